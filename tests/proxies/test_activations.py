import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import proxies


def test_naswot_counts_units_that_agree(x64):
    first = np.array([[1.0, -1, 2], [3, -2, -1], [-1, -1, 1]])
    second = np.array([[1.0, 1], [-1, 1], [1, -1]])
    kernel = np.zeros((3, 3))
    for values, uses in ((first, 1), (second, 2)):
        for i in range(3):
            for j in range(3):
                kernel[i, j] += uses * np.sum((values[i] > 0) == (values[j] > 0))
    got = proxies.naswot([(jnp.array(first), jnp.array(1.0)), (jnp.array(second), jnp.array(2.0))])
    np.testing.assert_allclose(got, np.log(abs(np.linalg.det(kernel))), rtol=1e-10)


def test_inputs_that_cannot_be_told_apart_give_minus_infinity():
    assert proxies.naswot([(jnp.ones((3, 4)), jnp.array(1.0))]) == -np.inf


def test_a_unit_that_is_not_a_number_is_not_hidden():
    values = jnp.eye(3).at[1, 2].set(jnp.nan)
    assert np.isnan(proxies.naswot([(values, jnp.array(1.0)), (jnp.eye(3), jnp.array(1.0))]))
    assert np.isfinite(proxies.naswot([(jnp.eye(3).at[1, 2].set(jnp.inf), jnp.array(1.0))]))


def test_jacob_cov_by_numpy(x64):
    f, params, x, _ = ntk_cases.make("batch-statistics")
    gradients = np.asarray(jax.jacrev(lambda x: jnp.sum(f(params, x)))(x)).reshape(6, -1)
    values = np.linalg.eigvalsh(np.corrcoef(gradients)) + 1e-5
    np.testing.assert_allclose(proxies.jacob_cov(f, params, x), -np.sum(np.log(values) + 1 / values), rtol=1e-8)


def test_jacob_cov_of_inputs_that_are_trees(x64):
    f, params, x, _ = ntk_cases.make("dense")
    split = {"left": x[:, :2], "right": x[:, 2:], "ids": jnp.arange(6)}
    joined = lambda p, x: f(p, jnp.concatenate([x["left"], x["right"]], axis=1)) + x["ids"][:, None]  # noqa: E731
    np.testing.assert_allclose(proxies.jacob_cov(joined, params, split), proxies.jacob_cov(f, params, x), rtol=1e-10)
    with pytest.raises(TypeError, match=r"x: expected at least one floating array, .* got bool, int64"):
        proxies.jacob_cov(*ntk_cases.tokens()[:3])


def test_jacob_cov_is_largest_for_uncorrelated_gradients(x64):
    """Orthogonal gradients of mean zero: eigenvalues one, and the sum is -n (log(1 + k) + 1 / (1 + k))."""
    directions = jnp.array([[1.0, -1, 0, 0], [0, 0, 1, -1], [1, 1, -1, -1]])
    got = proxies.jacob_cov(lambda p, x: jnp.sum(x * p, axis=1, keepdims=True), directions, jnp.ones((3, 4)))
    np.testing.assert_allclose(got, -3 * (np.log(1 + 1e-5) + 1 / (1 + 1e-5)), rtol=1e-10)
