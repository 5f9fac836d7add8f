import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from nasi_jax import data, proxies, spaces
from nasi_jax.nn import FEATURES, PERTURBATIONS


@pytest.fixture
def features(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (3, 4, 4, 5), (3, 4, 4, 5), (3, 2, 2, 8)
    return [
        jax.random.normal(key, shape) * jnp.arange(1, shape[-1] + 1.0).reshape(1, 1, 1, -1)
        for key, shape in zip(keys, shapes, strict=True)
    ]


def shares(x):
    flat = np.asarray(x).reshape(-1, x.shape[-1])
    values = np.linalg.eigvalsh(np.cov(flat.T, bias=True))
    return values / values.sum()


def test_entropies_by_numpy(features):
    expected = [scipy.stats.entropy(shares(x)) for x in features]
    np.testing.assert_allclose(proxies.entropies(features), expected, rtol=1e-6)
    np.testing.assert_allclose(proxies.expressivity(features), sum(expected), rtol=1e-6)
    np.testing.assert_allclose(proxies.progressivity(features), min(np.diff(expected)), rtol=1e-5)
    np.testing.assert_allclose(proxies.effective_rank(features), sum(np.exp(expected)), rtol=1e-6)
    ratios = [1 / np.sum(shares(x) ** 2) for x in features]
    np.testing.assert_allclose(proxies.participation_ratio(features), sum(ratios), rtol=1e-9)


def test_the_rank_by_singular_values_is_that_of_the_centred_samples(features):
    """Also where there are fewer samples than channels."""
    features = [*features, jax.random.normal(jax.random.key(3), (2, 3, 9))]
    ranks = []
    for x in features:
        flat = np.asarray(x).reshape(-1, x.shape[-1])
        ranks.append(np.exp(scipy.stats.entropy(scipy.linalg.svdvals(flat - flat.mean(axis=0)))))
    np.testing.assert_allclose(proxies.effective_rank(features, "singular-values"), sum(ranks), rtol=1e-6)


def test_outputs_that_do_not_vary_have_no_directions():
    flat = [jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3))]
    assert proxies.expressivity(flat) == 0
    assert proxies.progressivity(flat) == 0
    assert proxies.participation_ratio(flat) == 0
    assert proxies.effective_rank(flat) == proxies.effective_rank(flat, "singular-values") == 2


def test_trainability_by_numpy(features):
    """A block that keeps the image, and one that halves it: the four pixels under one are channels there."""
    first = proxies.Passage(features[0], features[1])
    second = proxies.Passage(features[2], features[1])
    below, above = np.asarray(features[1]), np.asarray(features[2])
    pixels = [below[:, i::2, j::2] for i in range(2) for j in range(2)]
    halved = np.stack(pixels, axis=-1).reshape(3, 2, 2, -1)
    largest = [
        scipy.linalg.svdvals(a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]) / (len(b) * b.shape[1] ** 2))[0]
        for a, b in ((below, np.asarray(features[0])), (halved, above))
    ]
    expected = np.mean([2 - s - 1 / (s + 1e-6) for s in largest])
    np.testing.assert_allclose(proxies.trainability([first, second]), expected, rtol=1e-9)


def test_a_block_that_hands_gradients_on_cannot_be_trained():
    same = jnp.ones((2, 4, 4, 3))
    assert proxies.trainability([proxies.Passage(same, same)]) == -np.inf
    assert np.isfinite(proxies.trainability([proxies.Passage(same, 2 * same)]))


def test_images_of_odd_sides_are_filled_up(x64):
    above, below = jnp.ones((1, 2, 2, 2)), jnp.ones((1, 3, 3, 1))
    filled = jnp.zeros((1, 4, 4, 1)).at[:, :3, :3].set(1)
    found = [proxies.trainability([proxies.Passage(above, x)]) for x in (below, filled)]
    assert found[0] == found[1]


def test_a_perturbation_reaches_one_block_alone(x64):
    """The derivative of a cell's output by what it reads, in a space whose cells read two of those before them."""
    space = spaces.DARTS()
    module = space.network(space.sample(jax.random.key(0)), space.Size(2, 3), 3)
    x = data.Gaussian((8, 8, 3)).batch(jax.random.key(1), 2).x
    params = module.init(jax.random.key(2), x)["params"]
    apply = lambda shifts: module.apply({"params": params, PERTURBATIONS: shifts}, x, mutable=[FEATURES])[1][FEATURES]  # noqa: E731
    outputs = module.apply({"params": params}, x, mutable=[FEATURES])[1][FEATURES]
    zeros = jax.tree.map(jnp.zeros_like, outputs)
    directions = {name: jax.random.normal(jax.random.key(int(name)), leaf.shape) for name, leaf in outputs.items()}
    for name in zeros:
        moved = jax.jvp(apply, (zeros,), (zeros | {name: directions[name]},))[1]
        changed = {other for other, leaf in moved.items() if np.abs(leaf).max() > 0}
        following = f"{int(name) + 1:03d}"
        assert changed == ({following} if following in zeros else set())
    for a, b in zip(jax.tree.leaves(apply(zeros)), jax.tree.leaves(outputs), strict=True):
        np.testing.assert_array_equal(a, b)
