import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import ntk


def dense(params, x):
    return jnp.tanh(x @ params["first"]) @ params["second"]


def batch_normalised(params, x):
    hidden = jax.nn.standardize(x @ params["first"], axis=0, epsilon=1e-5)
    return jax.nn.relu(hidden) @ params["second"]


@pytest.fixture(params=[dense, batch_normalised], ids=lambda f: f.__name__)
def case(request, x64):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "first": jax.random.normal(keys[0], (5, 7), jnp.float64),
        "second": jax.random.normal(keys[1], (7, 3), jnp.float64),
    }
    return request.param, params, jax.random.normal(keys[2], (6, 5), jnp.float64), jnp.array([0, 1, 2, 2, 1, 0])


def jacobian(function, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jacrev(lambda p: function(unravel(p)).ravel())(flat))


def cotangents(outputs, y):
    """Derivative of each sample's cross entropy with respect to its outputs, in closed form."""
    return np.asarray(jax.nn.softmax(outputs) - jax.nn.one_hot(y, outputs.shape[1]))


def test_one_batch_from_the_dense_jacobian(case):
    f, params, x, y = case
    j = jacobian(lambda p: f(p, x), params)
    gradient = cotangents(f(params, x), y).ravel() @ j / len(x)
    np.testing.assert_allclose(ntk.one_batch(f, params, x, y), gradient @ gradient, rtol=1e-12)


def test_per_sample_from_the_dense_jacobian(case):
    f, params, x, y = case
    j = jacobian(lambda p: f(p, x), params).reshape(len(x), 3, -1)
    rows = np.einsum("bc,bcp->bp", cotangents(f(params, x), y), j)
    np.testing.assert_allclose(ntk.per_sample(f, params, x, y), np.sum(rows**2), rtol=1e-12)


def test_the_estimates_form_the_chain_of_equation_11(case):
    """Exact trace >= per-sample / gamma^2 >= batch * one-batch / gamma^2, with gamma^2 = 2 for the cross entropy."""
    f, params, x, y = case
    trace = np.sum(jacobian(lambda p: f(p, x), params) ** 2)
    per_sample = ntk.per_sample(f, params, x, y)
    assert trace >= per_sample / 2
    assert per_sample >= len(x) * ntk.one_batch(f, params, x, y)


def test_constant_network_has_trace_zero(x64):
    params = {"w": jnp.ones((5, 3))}
    x, y = jnp.ones((4, 5)), jnp.zeros(4, jnp.int32)
    constant = lambda p, x: 0 * (x @ p["w"])  # noqa: E731
    assert ntk.one_batch(constant, params, x, y) == 0
    assert ntk.per_sample(constant, params, x, y) == 0


def test_not_a_number_stays_one(case):
    f, params, x, y = case
    assert np.isnan(ntk.one_batch(f, params, x.at[0, 0].set(jnp.nan), y))
