import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk


@pytest.fixture
def case(x64):
    f, params, x, _ = ntk_cases.make("batch-normalised")
    return f, params, x, ntk_cases.dense_kernel(f, params, x)


def test_products_with_the_dense_kernel(case):
    f, params, x, kernel = case
    v = jax.random.normal(jax.random.key(0), (len(x), 3))
    product = jax.jit(ntk.vector_product, static_argnums=0)(f, params, x, v)
    np.testing.assert_allclose(np.ravel(product), kernel @ np.ravel(v), rtol=1e-10)


def test_one_probe_from_the_dense_kernel(case):
    f, params, x, kernel = case
    for seed in range(3):
        key = jax.random.key(seed)
        v = np.asarray(jax.random.rademacher(key, (len(x), 3), jnp.float64)).ravel()
        got = ntk.participation_ratio(f, params, x, key)
        np.testing.assert_allclose(got.trace, v @ kernel @ v, rtol=1e-10)
        np.testing.assert_allclose(got.ratio, (v @ kernel @ v) ** 2 / np.sum((kernel @ v) ** 2), rtol=1e-10)


def test_over_keys_trace_and_frobenius_norm_are_unbiased(case):
    f, params, x, kernel = case
    keys = jax.random.split(jax.random.key(7), 2000)
    got = jax.vmap(lambda key: ntk.participation_ratio(f, params, x, key))(keys)
    for samples, expected in ((got.trace, np.trace(kernel)), (got.trace**2 / got.ratio, np.sum(kernel**2))):
        samples = np.asarray(samples)
        assert abs(samples.mean() - expected) < 4 * samples.std(ddof=1) / np.sqrt(len(samples))


def test_the_ratio_is_bounded_by_the_size_of_the_kernel_and_reaches_it(x64):
    x = jnp.eye(4)
    orthogonal = {"w": jnp.ones((4, 2))}
    got = ntk.participation_ratio(lambda p, x: x @ p["w"], orthogonal, x, jax.random.key(0))
    np.testing.assert_allclose(got.ratio, 8)
    np.testing.assert_allclose(got.trace, 8)


def test_without_any_dependence_on_parameters_the_ratio_is_not_a_number():
    got = ntk.participation_ratio(lambda p, x: 0 * (x @ p), jnp.ones((4, 2)), jnp.ones((3, 4)), jax.random.key(0))
    assert np.isnan(got.ratio)
    assert got.trace == 0
