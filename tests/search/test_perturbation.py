import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.nn import RUNNING_STATISTICS
from nasi_jax.programs import Execution
from nasi_jax.search import perturbation


class Linear:
    """Losses that are linear in the weights of the operations."""

    def __init__(self, space, steps, values):
        self.space, self.strategy, self.values = space, types.SimpleNamespace(steps=steps), values

    def __call__(self, params, weights, key):
        return -float(sum(jnp.sum(weights[kind] * self.values[kind]) for kind in weights))


def decided(space, values, alphas, start=10, steps=16):
    state = types.SimpleNamespace(params=None, alphas=alphas)
    state.replace = lambda alphas: types.SimpleNamespace(**vars(state) | {"alphas": alphas})
    courses = []
    for step in sorted({*perturbation.schedule(space, start, steps), steps}):
        state.step = step
        state.alphas = perturbation.decide(Linear(space, steps, values), state, start, jax.random.key(0)).alphas
        courses.append(state.alphas)
    return courses


def test_each_row_keeps_the_choice_whose_removal_costs_most():
    """Which is not the one with the largest logit."""
    space = spaces.NASBench201()
    values = {"cell": jnp.asarray(np.random.default_rng(0).permutation(30).reshape(6, 5) + 1.0)}
    alphas = {"cell": jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)) * 0.01, jnp.float32)}
    courses = decided(space, values, alphas)
    assert len(courses) == 7
    for number, course in enumerate(courses[:-1], start=1):
        left_out = np.asarray(course["cell"]) < spaces.IMPOSSIBLE / 2
        assert sorted(left_out.sum(axis=1)) == [0] * (6 - number) + [4] * number
    genotype = space.decode(courses[-1])
    np.testing.assert_array_equal(genotype.operations, np.asarray(values["cell"]).argmax(axis=1))
    assert (genotype.operations != alphas["cell"].argmax(axis=1)).any()


def test_in_darts_the_edges_that_are_worth_most_are_kept():
    space = spaces.DARTS()
    values = {kind: jax.random.uniform(jax.random.key(i), (14, 7)) for i, kind in enumerate(("normal", "reduction"))}
    last = decided(space, values, space.alphas(), 0, 56)[-1]
    genotype, best = space.decode(last), jax.tree.map(lambda v: np.asarray(v).max(axis=1), values)
    for kind, worth in enumerate((best["normal"], best["reduction"])):
        for node, first in enumerate((0, 2, 5, 9)):
            strongest = np.sort(np.argsort(worth[first : first + node + 2])[-2:])
            np.testing.assert_array_equal(genotype.inputs[kind, node], strongest)


def test_what_is_left_out_of_a_space_is_not_chosen():
    space = spaces.restricted(spaces.NASBench201(), ["nor_conv_3x3"], ["0→1=none"])
    values = {"cell": jnp.ones((6, 5)).at[:, 3].set(9.0).at[:, 1].set(2.0)}
    genotype = space.decode(decided(space, values, space.alphas())[-1])
    np.testing.assert_array_equal(genotype.operations, [0, 1, 1, 1, 1, 1])


def test_rows_are_decided_in_equal_distances_and_then_trained():
    assert perturbation.schedule(spaces.NASBench201(), 70, 100) == [70, 75, 80, 85, 90, 95]
    assert perturbation.schedule(spaces.NASBench201(), 2, 4) == [2, 2, 2, 3, 3, 3]


def test_a_search_ends_with_a_choice_in_each_row_and_its_logits_stay():
    space, source = ToySpace(), data.Gaussian((8, 8, 3), outputs=3)
    strategy = search.DARTS(
        steps=18, batch=4, moments=4, window=2, perturbation=0.67, perturbation_batches=1,
        size=space.Size(2, 1),
    )  # fmt: skip
    states = [s for s, _ in search.iterate(jax.random.key(0)[None], space, source, strategy)]
    assert len(states) == 18
    left = [(np.asarray(s.alphas["cell"][0]) > spaces.IMPOSSIBLE / 2).sum(axis=1) for s in states]
    assert (left[4] == 5).all()
    assert (left[-2] == 1).all()
    assert (np.diff([n.sum() for n in left[:-1]]) <= 0).all()
    chosen = np.asarray(states[-2].alphas["cell"][0]).argmax(axis=1)
    np.testing.assert_array_equal(np.asarray(states[-1].alphas["cell"][0]).argmax(axis=1), chosen)


@pytest.mark.slow
def test_recalibrated_statistics_are_those_of_the_training_batches(x64):
    """A network that is judged by them, on the batch that they are of, is the one normalised by that batch."""
    space, source = spaces.NASBench201(), data.halves(data.Gaussian((8, 8, 3), outputs=3), 0.5, 4)
    strategy = search.DARTS(steps=8, batch=4, moments=8, size=space.Size(2, 1), recalibration=1)
    state, _ = strategy.begin(space, source, jax.random.key(0))
    weights, key = jax.tree.map(jax.nn.softmax, state.alphas), jax.random.key(1)
    statistics = perturbation._batch_moments(strategy, space, Execution(), source, state.params, weights, key)
    module, x = strategy.one_shot(space, source), source.training.batch(key, 4).x
    by_batch = module.apply({"params": state.params}, x, weights)
    variables = {"params": state.params, RUNNING_STATISTICS: statistics}
    # running variances are unbiased, 1/63 larger where an image has 4 pixels
    np.testing.assert_allclose(module.apply(variables, x, weights), by_batch, rtol=0.3, atol=0.05)
    found, moved = (module.apply(v, 3 * x + 1, weights) for v in (variables, {"params": state.params}))
    assert not np.allclose(found, moved, atol=0.1)
    losses = perturbation.Losses(strategy, space, source, Execution())
    assert np.isfinite(losses(state.params, weights, key))
