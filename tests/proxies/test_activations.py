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


def test_jacob_cov_in_single_precision_is_that_in_double():
    """Of gradients of which some are nearly the same, so that the least eigenvalues are far below float32's digits."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(4, 60))
    gradients = np.concatenate([common, common + 1e-4 * rng.normal(size=(4, 60)), rng.normal(size=(3, 60))])
    values = np.linalg.eigvalsh(np.corrcoef(gradients.astype(np.float32))) + 1e-5
    expected = -np.sum(np.log(values) + 1 / values)
    f = lambda p, x: jnp.sum(x * p, axis=1, keepdims=True)  # noqa: E731
    got = proxies.jacob_cov(f, jnp.array(gradients, jnp.float32), jnp.ones((11, 60)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


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


def test_epe_nas_by_numpy(x64):
    f, params, x, _ = ntk_cases.make("batch-statistics")
    y = jnp.array([0, 1, 0, 2, 2, 0])
    gradients = np.asarray(jax.jacrev(lambda x: jnp.sum(f(params, x)))(x)).reshape(6, -1)
    sums = {
        c: np.sum(np.log(np.abs(np.atleast_2d(np.corrcoef(gradients[np.asarray(y) == c]))) + 1e-5)) for c in (0, 1, 2)
    }
    np.testing.assert_allclose(proxies.epe_nas(f, params, x, y, 5), sum(map(abs, sums.values())), rtol=1e-8)
    means = {c: total / np.sum(np.asarray(y) == c) for c, total in sums.items()}
    expected = sum(abs(a - b) for a in means.values() for b in means.values()) / 3
    np.testing.assert_allclose(proxies.epe_nas(f, params, x, y, 101), expected, rtol=1e-8)


def test_meco_by_numpy(x64):
    keys = jax.random.split(jax.random.key(0), 2)
    layers = [jax.random.normal(key, (2, 4, 4, channels)) for key, channels in zip(keys, (3, 5), strict=True)]
    least = [np.linalg.eigvalsh(np.corrcoef(np.asarray(x[0]).reshape(16, -1).T))[0] for x in layers]
    got = proxies.meco([(layers[0], jnp.array(1.0)), (layers[1], jnp.array(2.0))])
    np.testing.assert_allclose(got, least[0] + 2 * least[1], rtol=1e-9)
    constant = layers[0].at[..., 0].set(7.0)
    np.testing.assert_allclose(proxies.meco([(constant, jnp.array(1.0))]), 0, atol=1e-12)


@pytest.mark.parametrize("batch", [3, 40])
def test_swap_counts_patterns_of_layers_in_use(batch):
    """Of forty examples, so that a pattern takes more than a word of the machine."""
    keys = jax.random.split(jax.random.key(0), 3)
    layers = [jnp.sign(jax.random.normal(key, (batch, 2, 6)) + 1) for key in keys]
    layers[1] = layers[1].at[:, 0].set(layers[0][:, 0])
    used = np.concatenate([np.asarray(x).reshape(batch, -1) > 0 for x in layers[:2]], axis=1)
    uses = [jnp.array(1.0), jnp.array(3.0), jnp.array(0.0)]
    assert proxies.swap(zip(layers, uses, strict=True)) == len(np.unique(used, axis=1).T)
    assert np.isnan(proxies.swap([(layers[0].at[0, 0, 0].set(jnp.nan), uses[0])]))


def test_zen_by_numpy(x64):
    clean, noisy = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2))
    variances = [jnp.array([1.0, 3.0]), jnp.array([0.5])]
    expected = np.log(np.mean(np.abs(np.asarray(clean - noisy)))) + np.log(np.sqrt(2)) + np.log(np.sqrt(0.5))
    np.testing.assert_allclose(proxies.zen(clean, noisy, variances), expected, rtol=1e-10)
    assert proxies.zen(clean, clean, variances) == -np.inf
