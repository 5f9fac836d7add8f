"""Progressive shrinking, on blocks whose candidates are numbers."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from nasi_jax import search
from nasi_jax.scores import Limits

BLOCKS, CANDIDATES = 3, 400
RNG = np.random.default_rng(0)
PORTS = RNG.integers(0, 2, CANDIDATES)
COSTS = {"params": RNG.uniform(1, 100, CANDIDATES), "latency_ms": RNG.uniform(1, 5, CANDIDATES)}
TRUE = RNG.normal(size=(BLOCKS, CANDIDATES)) + COSTS["params"] / 30
JOINTS = {"params": [np.zeros((1, 2)), *[np.array([[0.0, 3], [3, 0]])] * 2, np.zeros((2, 1))]}


class Known:
    """Values that never change, beside what was asked for."""

    steps = 0

    def __init__(self, true=TRUE):
        self.true, self.asked = true, []

    def init(self, seed):
        return ()

    def train(self, state, block, candidates):
        raise AssertionError("nothing to train")

    def values(self, state, block, candidates):
        self.asked += [(block, int(i)) for i in candidates]
        return self.true[block][candidates]


class Trained(Known):
    """Values that are noisy until they are trained; counts how often each candidate was."""

    steps = 50

    def init(self, seed):
        return {"times": np.zeros((BLOCKS, CANDIDATES), int)}

    def train(self, state, block, candidates):
        times = state["times"].copy()
        np.add.at(times[block], candidates, 1)
        return {"times": times}, float(len(candidates))

    def values(self, state, block, candidates):
        noise = np.random.default_rng([block, int(state["times"].sum())]).normal(size=len(candidates))
        return self.true[block][candidates] + noise / (1 + state["times"][block].sum())


def run(strategy, estimate, seed=0, state=None):
    binned = strategy.binned(COSTS)
    state = strategy.init(seed, BLOCKS, binned, estimate) if state is None else state
    return binned, list(strategy.run(seed, binned, estimate, state))


STRATEGY = search.Blockwise(bins=5, pool=0, drawn=30, kept=4)


def test_a_bin_holds_what_meets_its_limits_in_all_costs():
    binned = STRATEGY.binned(COSTS)
    for number in range(5):
        meets = np.all([cost <= (number + 1) / 5 * cost.max() for cost in COSTS.values()], axis=0)
        np.testing.assert_array_equal(binned <= number, meets)
    even = search.Blockwise(bins=10).binned({"params": np.arange(1, 11) * 0.1})
    np.testing.assert_array_equal(even, np.arange(10))


def test_what_limits_rule_out_is_in_no_bin():
    allowed = COSTS["params"] < 40
    binned = STRATEGY.binned(COSTS, allowed)
    np.testing.assert_array_equal(binned >= 0, allowed)
    assert (binned == STRATEGY.bins - 1).any()
    estimate = Known()
    state = STRATEGY.init(0, BLOCKS, binned, estimate)
    steps = list(STRATEGY.run(0, binned, estimate, state))
    assert all(allowed[i] for _, i in estimate.asked)
    last = steps[-1][0]
    assert not last.alive[:, ~allowed].any()
    assert (last.alive.sum(axis=1) == np.minimum(np.bincount(binned[allowed], minlength=5), 4).sum()).all()


@pytest.mark.parametrize("strategy", [STRATEGY, dataclasses.replace(STRATEGY, pool=20, warmup=2)])
@pytest.mark.parametrize("estimate", [Known, Trained])
def test_it_ends_when_every_bin_has_what_is_kept(strategy, estimate):
    binned, steps = run(strategy, estimate())
    state, _ = steps[-1]
    assert len(steps) == BLOCKS * (strategy.rounds(binned) + 1)
    for block in range(BLOCKS):
        for number in range(5):
            members = binned == number
            assert state.alive[block][members].sum() == min(members.sum(), strategy.kept)
        assert np.isfinite(state.values[block][state.alive[block]]).all()


def test_a_round_removes_the_worse_half_of_what_it_draws_from_each_bin():
    estimate = Known()
    binned = STRATEGY.binned(COSTS)
    before = STRATEGY.init(0, BLOCKS, binned, estimate)
    state, info = next(STRATEGY.run(0, binned, estimate, before))
    asked = np.array([i for block, i in estimate.asked if block == 0])
    assert info.evaluated == len(asked) == sum(min(30, n) for n in np.bincount(binned))
    for number in range(5):
        drawn = asked[binned[asked] == number]
        removed = drawn[~state.alive[0][drawn]]
        assert len(removed) == min(len(drawn) // 2, max(0, (binned == number).sum() - 4))
        if len(removed):
            assert TRUE[0][removed].max() < TRUE[0][np.setdiff1d(drawn, removed)].min()
    assert state.alive[0].sum() == before.alive[0].sum() - (~state.alive[0]).sum()
    assert state.alive[1:].all()


def test_of_values_that_do_not_change_the_best_of_every_bin_are_left_and_each_is_asked_for_once():
    estimate, strategy = Known(), dataclasses.replace(STRATEGY, drawn=2000)
    binned, steps = run(strategy, estimate)
    assert len(set(estimate.asked)) == len(estimate.asked) == BLOCKS * CANDIDATES
    for block in range(BLOCKS):
        for number in range(5):
            members = np.flatnonzero(binned == number)
            best = members[np.argsort(-TRUE[block][members])[:4]]
            assert steps[-1][0].alive[block][best].all()


def test_nothing_is_removed_while_it_warms_up():
    strategy = dataclasses.replace(STRATEGY, warmup=2)
    _, steps = run(strategy, Trained())
    assert all(info.left == CANDIDATES for _, info in steps[: 2 * BLOCKS])
    assert steps[2 * BLOCKS][1].left < CANDIDATES


def test_training_draws_a_bin_uniformly_and_then_one_of_what_is_left():
    estimate = Trained()
    estimate.steps = 4000
    binned = STRATEGY.binned(COSTS)
    state, info = next(STRATEGY.run(0, binned, estimate, STRATEGY.init(0, BLOCKS, binned, estimate)))
    times = state.estimate["times"][0]
    assert info.loss == times.sum() == 4000
    by_bin = np.bincount(binned, weights=times)
    there = by_bin[np.bincount(binned, minlength=5) > 0]
    expected = 4000 / len(there)
    assert np.abs(there - expected).max() < 5 * np.sqrt(expected)


def test_what_was_removed_is_not_trained_again():
    estimate = Trained()
    _, steps = run(STRATEGY, estimate)
    for (before, _), (after, _) in itertools.pairwise(steps):
        trained = after.estimate["times"] > before.estimate["times"]
        assert not (trained & ~before.alive).any()


@pytest.mark.parametrize("estimate", [Known, Trained])
def test_a_search_that_stopped_goes_on_as_if_it_had_not(estimate):
    strategy = dataclasses.replace(STRATEGY, pool=30)
    _, whole = run(strategy, estimate())
    for stop in (0, 4, len(whole) - 2):
        _, rest = run(strategy, estimate(), state=whole[stop][0])
        expected = [info for _, info in whole[stop + 1 :]]
        np.testing.assert_array_equal(np.array([info for _, info in rest]), np.array(expected))
        for a, b in zip(jax.tree.leaves(rest[-1][0]), jax.tree.leaves(whole[-1][0]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_seed_gives_another_search():
    first, second = (run(dataclasses.replace(STRATEGY, pool=20), Known(), seed)[1][-1][0] for seed in (0, 1))
    assert (first.alive != second.alive).any()


def test_what_has_no_value_goes_first_and_is_never_selected():
    true = TRUE.copy()
    true[:, ::3] = np.nan
    _, steps = run(dataclasses.replace(STRATEGY, drawn=2000, kept=3), Known(true))
    chain, left = search.table(steps[-1][0], PORTS, COSTS, JOINTS | {"latency_ms": JOINTS["params"]})
    assert all((numbers % 3 > 0).all() for numbers in left)
    assert np.isfinite(chain.best()[0].value)
    with pytest.raises(ValueError, match="values: expected finite ones, got others or none in block 0"):
        search.table(run(STRATEGY, Known(np.full_like(TRUE, np.nan)))[1][-1][0], PORTS, COSTS, JOINTS)


def test_planted_candidates_are_found_under_a_limit():
    true, limit = TRUE.copy(), 90.0
    planted = [int(np.flatnonzero((COSTS["params"] < 25) & (PORTS == 0))[block]) for block in range(BLOCKS)]
    for block, place in enumerate(planted):
        true[block][place] = 100
    _, steps = run(dataclasses.replace(STRATEGY, drawn=2000), Known(true))
    chain, left = search.table(steps[-1][0], PORTS, {"params": COSTS["params"]}, JOINTS)
    found = chain.best(Limits(max_params=limit))[0]
    assert [int(numbers[place]) for numbers, place in zip(left, found.places, strict=True)] == planted


@pytest.mark.parametrize("option", ["bins", "kept", "pool", "drawn", "warmup"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}: expected an integer of at least"):
        dataclasses.replace(STRATEGY, **{option: -1})
