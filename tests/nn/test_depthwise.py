import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax.nn import conv
from nasi_jax.nn.depthwise import depthwise_conv

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


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize(
    ("window", "strides", "dilation", "height"), [(3, 1, 1, 6), (5, 1, 2, 8), (3, 2, 1, 6), (5, 2, 2, 8), (3, 2, 1, 7)]
)
def test_all_derivatives_are_those_of_xlas_convolution(x64, derivative, window, strides, dilation, height):
    x = jax.random.normal(jax.random.key(0), (3, height, 6, 2))
    kernel = jax.random.normal(jax.random.key(1), (window, window, 2))

    def ours(x, w):
        return jnp.sum(jnp.sin(depthwise_conv(x, w, strides, dilation)))

    def oracle(x, w):
        return jnp.sum(jnp.sin(conv(x, w[:, :, None], strides, dilation)))

    found, expected = (jax.jit(DERIVATIVES[derivative](f))(x, kernel) for f in (ours, oracle))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


def test_half_precision_stays_half():
    x, kernel = jnp.ones((2, 4, 4, 3), jnp.bfloat16), jnp.ones((3, 3, 3), jnp.bfloat16)
    assert depthwise_conv(x, kernel).dtype == jnp.bfloat16
    assert float(depthwise_conv(x, kernel)[0, 1, 1, 0]) == 9
