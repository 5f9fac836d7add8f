import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nasi_jax.programs import conv, depthwise_conv

DERIVATIVES = {
    "value": lambda f: f,
    "reverse": lambda f: jax.grad(f, (0, 1)),
    "forward": lambda f: lambda x, w: jax.jvp(f, (x, w), (jnp.cos(x), jnp.cos(w))),
    "forward over reverse": lambda f: lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (jnp.cos(x), jnp.cos(w))),
    "reverse over reverse": lambda f: jax.grad(
        lambda x, w: sum(jnp.sum(g**2) for g in jax.grad(f, (0, 1))(x, w)), (0, 1)
    ),
    "Hessian by the kernel": lambda f: jax.hessian(f, 1),
    "many kernels": lambda f: lambda x, w: jax.vmap(jax.grad(f, (0, 1)), (None, 0))(x, jnp.stack([w, 2 * w])),
    "many images": lambda f: lambda x, w: jax.vmap(jax.grad(f, (0, 1)), (0, None))(jnp.stack([x, -x]), w),
}


SHAPES = {"dense": (2, 5), "depthwise": (2,)}


def flaxs(x, kernel, strides, dilation):
    """Computes the convolution by Flax's layer, with derivatives by XLA."""
    kernel = kernel[:, :, None] if kernel.ndim == 3 else kernel
    layer = nn.Conv(
        kernel.shape[-1],
        kernel.shape[:2],
        strides,
        padding=[(dilation * (side - 1) // 2,) * 2 for side in kernel.shape[:2]],
        kernel_dilation=dilation,
        feature_group_count=x.shape[-1] // kernel.shape[2],
        use_bias=False,
    )
    return layer.apply({"params": {"kernel": kernel}}, x)


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("batch", "window", "strides", "dilation", "height"),
    [
        (3, (3, 3), 1, 1, 6),
        (3, (5, 5), 1, 2, 8),
        (3, (3, 3), 2, 1, 6),
        (16, (5, 5), 2, 2, 8),
        (18, (3, 3), 2, 1, 7),
        (16, (1, 1), 2, 1, 6),
        (3, (1, 5), 1, 1, 3),
    ],
)
def test_all_derivatives_are_those_of_xlas_convolution(x64, derivative, kind, batch, window, strides, dilation, height):
    x = jax.random.normal(jax.random.key(0), (batch, height, 6, 2))
    kernel = jax.random.normal(jax.random.key(1), (*window, *SHAPES[kind]))
    own = {"dense": conv, "depthwise": depthwise_conv}[kind]

    def summed(function):
        return lambda x, w: jnp.sum(jnp.sin(function(x, w, strides, dilation)))

    found, expected = (jax.jit(DERIVATIVES[derivative](summed(f)))(x, kernel) for f in (own, flaxs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


@pytest.mark.parametrize("own", [conv, depthwise_conv])
def test_no_derivative_leaves_the_layout_that_is_fast_in_loops_on_a_cpu(own):
    x, kernel = jnp.ones((16, 8, 8, 2)), jnp.ones((3, 3, 2, 2) if own is conv else (3, 3, 2))

    def squared(x, w):
        return sum(jnp.sum(g**2) for g in jax.grad(lambda x, w: jnp.sum(own(x, w, 2) ** 2), (0, 1))(x, w))

    program = jax.jit(jax.grad(squared, (0, 1))).lower(x, kernel).as_text()
    layouts = set(re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\]),", program))
    assert layouts == ({"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"} if own is conv else set())


@pytest.mark.parametrize("kind", SHAPES)
def test_half_precision_stays_half_and_sums_in_full(kind):
    own = {"dense": conv, "depthwise": depthwise_conv}[kind]
    x, kernel = jnp.ones((32, 4, 4, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 1)[: 2 + len(SHAPES[kind])], jnp.bfloat16)
    assert own(x, kernel).dtype == jnp.bfloat16
    assert float(own(x, kernel)[0, 1, 1, 0]) == 9
    gradient = jax.grad(lambda w: jnp.sum(own(x, w).astype(jnp.float32)))(kernel)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[1, 1].reshape(())) == 512
