import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk


@pytest.fixture(params=["dense", "batch-normalised"])
def case(request, x64):
    return ntk_cases.make(request.param)


def cotangents(outputs, y):
    """Derivative of each sample's cross entropy with respect to its outputs, in closed form."""
    return np.asarray(jax.nn.softmax(outputs) - jax.nn.one_hot(y, outputs.shape[1]))


def test_one_batch_from_the_dense_jacobian(case):
    f, params, x, y = case
    j = ntk_cases.jacobian(f, params, x).reshape(len(x) * ntk_cases.CLASSES, -1)
    gradient = cotangents(f(params, x), y).ravel() @ j / len(x)
    np.testing.assert_allclose(ntk.one_batch(f, params, x, y), gradient @ gradient, rtol=1e-12)


def test_per_sample_from_the_dense_jacobian(case):
    f, params, x, y = case
    j = ntk_cases.jacobian(f, params, x)
    rows = np.einsum("bc,bcp->bp", cotangents(f(params, x), y), j)
    np.testing.assert_allclose(ntk.per_sample(f, params, x, y), np.sum(rows**2), rtol=1e-12)


def test_constant_network_has_trace_zero(x64):
    params = {"w": jnp.ones((5, 3))}
    x, y = jnp.ones((4, 5)), jnp.zeros(4, jnp.int32)
    constant = lambda p, x: 0 * (x @ p["w"])  # noqa: E731
    assert ntk.one_batch(constant, params, x, y) == 0
    assert ntk.per_sample(constant, params, x, y) == 0


def test_not_a_number_stays_one(case):
    f, params, x, y = case
    assert np.isnan(ntk.one_batch(f, params, x.at[0, 0].set(jnp.nan), y))
