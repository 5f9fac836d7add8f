import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk, proxies


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


@pytest.mark.parametrize("bad", [3, -1, *(pytest.param(bad, marks=pytest.mark.slow) for bad in (7, -3))])
def test_labels_that_are_none_of_the_classes_are_refused_or_not_a_number(bad, case):
    f, params, x, y = case
    y = y.at[2].set(bad)
    functions = [ntk.one_batch, ntk.per_sample, proxies.grad_norm, proxies.snip, proxies.grasp, proxies.zico]
    functions.append(lambda f, p, x, y: proxies.fisher(lambda s, x: s * f(p, x), jnp.ones((6, 3)), x, y))
    for function in functions:
        for labels in (y, np.asarray(y)):
            with pytest.raises(ValueError, match=rf"y: expected labels from 0 to 2, got {bad}"):
                function(f, params, x, labels)
        assert np.isnan(jax.jit(lambda y, of=function: of(f, params, x, y))(y))
    with pytest.raises(ValueError, match="y: expected labels from 0 to 2"):
        jax.jit(lambda p: ntk.one_batch(f, p, x, y))(params)
    for method in ("per-sample", "per-batch", "one-batch"):
        with pytest.raises(ValueError, match="y: expected labels from 0 to 2"):
            ntk.trace(f, params, x, y, method=method, batch_size=2)


def test_not_a_number_stays_one(case):
    f, params, x, y = case
    assert np.isnan(ntk.one_batch(f, params, x.at[0, 0].set(jnp.nan), y))
