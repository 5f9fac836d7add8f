import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax import programs

WINDOWS = [(3, 1, (6, 6)), (3, 2, (7, 6)), (2, 2, (6, 5)), (5, 1, (6, 7)), (5, 3, (9, 8))]


def maximum(x, window, strides):
    """Takes the maximum by XLA's own operation, whose gradient the first of equal pixels has."""
    pad = (window - 1) // 2
    sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, strides, strides, 1), sides)


def average(x, window, strides):
    pad = (window - 1) // 2
    return flax_nn.avg_pool(x, (window, window), (strides, strides), ((pad, pad), (pad, pad)), count_include_pad=False)


POOLS = {"max": (programs.max_pool, maximum), "average": (programs.average_pool, average)}
DERIVATIVES = {
    "value": lambda f: f,
    "reverse": jax.grad,
    "forward": lambda f: lambda x: jax.jvp(f, (x,), (jnp.cos(x),)),
    "forward over reverse": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (jnp.cos(x),)),
    "reverse over reverse": lambda f: jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2)),
    "many images": lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, -x])),
}


@pytest.mark.parametrize(
    ("size", "window", "strides"), [((5, 7), 3, 1), ((8, 8), 3, 2), ((8, 6), 2, 2), ((9, 9), 5, 1)]
)
def test_average_pool_does_not_count_padding(size, window, strides, x64):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3), jnp.float64)
    pad = (window - 1) // 2
    expected = flax_nn.avg_pool(
        x, (window, window), (strides, strides), ((pad, pad), (pad, pad)), count_include_pad=False
    )
    np.testing.assert_allclose(programs.average_pool(x, window, strides), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("strides", [1, 2])
def test_pools_are_those_of_pytorch(kind, strides):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype(np.float32)
    options = {} if kind == "max" else {"count_include_pad": False}
    pool = torch.nn.MaxPool2d if kind == "max" else torch.nn.AvgPool2d
    expected = pool(3, strides, 1, **options)(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    found = (programs.max_pool if kind == "max" else programs.average_pool)(jnp.asarray(x), 3, strides)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "size"), [(3, 1, 6), (3, 2, 7), (2, 2, 6), (5, 1, 6)])
def test_the_first_of_equal_pixels_has_the_gradient_of_the_maximum(window, strides, size):
    """As where XLA selects and scatters; of pixels of which many are equal."""
    x = jax.random.randint(jax.random.key(0), (3, size, size, 2), 0, 3).astype(jnp.float32)
    pad = (window - 1) // 2

    def oracle(x):
        padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, strides, strides, 1), padding
        )

    (found, pullback), (expected, expected_pullback) = (
        jax.vjp(f, x) for f in (lambda x: programs.max_pool(x, window, strides), oracle)
    )
    np.testing.assert_array_equal(found, expected)
    cotangent = jax.random.normal(jax.random.key(1), found.shape)
    np.testing.assert_allclose(pullback(cotangent)[0], expected_pullback(cotangent)[0], rtol=1e-5, atol=1e-6)
    assert jnp.isnan(programs.max_pool(x.at[1].set(jnp.nan), window, strides)[1]).all()


def test_maximum_is_that_of_the_window_without_padding():
    x = -jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(programs.max_pool(x, 3, 2)[0, :, :, 0], [[-1, -2], [-5, -6]])


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(("window", "strides", "size"), WINDOWS)
def test_all_derivatives_are_those_of_xlas_pools(x64, derivative, kind, window, strides, size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    found, expected = (
        jax.jit(DERIVATIVES[derivative](lambda x, pool=pool: jnp.sum(jnp.sin(pool(x, window, strides)))))(x)
        for pool in POOLS[kind]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.parametrize("pool", [programs.max_pool, programs.average_pool])
def test_a_gradient_pads_what_it_reads_once(pool):
    """However many windows see a pixel: two pads, of images and cotangents, and two of the index of the maximum."""
    x = jnp.ones((2, 8, 8, 3))
    program = jax.jit(jax.grad(lambda x: jnp.sum(pool(x) ** 2))).lower(x).as_text()
    assert program.count("stablehlo.pad") == (3 if pool is programs.max_pool else 2)
