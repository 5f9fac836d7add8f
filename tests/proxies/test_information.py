import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from nasi_jax import proxies


def test_vkdnw_from_the_dense_fisher_information(x64):
    """Each example's Jacobian by the first factor of each of twelve layers, in a chain of dense layers."""
    keys = jax.random.split(jax.random.key(0), 13)
    weights = [jax.random.normal(key, (6, 6)) / 2 for key in keys[:12]] + [jax.random.normal(keys[12], (6, 4))]
    x = jax.random.normal(jax.random.key(1), (5, 6))

    def network(scales, x):
        for scale, weight in zip(scales, weights, strict=False):
            x = x + jnp.tanh(scale * (x @ weight))
        return x @ weights[-1]

    ones = [jnp.ones((5, 6))] * 12
    fisher = 0
    for n in range(5):

        def of_firsts(firsts, n=n):
            scales = [jnp.ones((1, 6)).at[0, 0].set(first) for first in firsts]
            return network(scales, x[n : n + 1])[0]

        jacobian = np.asarray(jax.jacfwd(of_firsts)(jnp.ones(12)))
        logits = np.asarray(of_firsts(jnp.ones(12)))
        p = 0.95 * np.exp(logits) / np.exp(logits).sum() + 0.05 / 4
        fisher = fisher + jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian / 5
    deciles = np.quantile(np.linalg.eigvalsh(fisher), np.arange(0.1, 0.95, 0.1))
    np.testing.assert_allclose(proxies.vkdnw(network, ones, x), 12 + scipy.stats.entropy(deciles), rtol=1e-6)


def test_a_network_that_no_layer_reaches_has_no_spectrum():
    value = proxies.vkdnw(lambda scales, x: x, [jnp.ones((3, 4))], jnp.ones((3, 4)))
    assert value == 1
