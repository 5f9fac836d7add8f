"""Selection of blocks under limits, beside a list of all combinations."""

import itertools
import math

import numpy as np
import pytest

from nasi_jax.scores import InfeasibleError, Limits
from nasi_jax.search import Chain

COSTS = ("params", "flops", "latency_ms")


def chain(seed, candidates=(6, 5, 7, 6), ports=3):
    """Random blocks, in which larger candidates tend to be better; every second seed has integers with many ties."""
    rng, count = np.random.default_rng(seed), len(candidates)
    costs = {name: [rng.uniform(1, 10, n) for n in candidates] for name in COSTS}
    values = [costs["params"][b] + rng.normal(0, 3, n) for b, n in enumerate(candidates)]
    sizes = [1, *[ports] * count, 1]
    joints = {name: [rng.uniform(0, 3, shape) for shape in itertools.pairwise(sizes)] for name in COSTS}
    if seed % 2:
        costs, joints = ({name: [np.round(a) for a in arrays] for name, arrays in d.items()} for d in (costs, joints))
        values = [np.round(v) for v in values]
    return Chain(values, [rng.integers(0, ports, n) for n in candidates], costs, joints)


def listed(blocks):
    """Every combination, as (value, costs, places)."""
    found = []
    for places in itertools.product(*(range(len(values)) for values in blocks.values)):
        value = sum(blocks.values[b][place] for b, place in enumerate(places))
        ports = [0, *(blocks.ports[b][place] for b, place in enumerate(places)), 0]
        costs = {
            name: sum(blocks.costs[name][b][place] for b, place in enumerate(places))
            + sum(blocks.joints[name][b][pair] for b, pair in enumerate(itertools.pairwise(ports)))
            for name in COSTS
        }
        found.append((value, costs, places))
    return found


def limits(found, share, names):
    """Bounds below which a share of all combinations is, for each cost by itself."""
    bounds = {f"max_{name}": float(np.quantile([costs[name] for _, costs, _ in found], share)) for name in names}
    return Limits(**bounds)


CASES = [(0, ()), (1, ("params",)), (2, ("params", "latency_ms")), (3, COSTS), (4, COSTS), (5, ("flops", "params"))]


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize(("seed", "names"), CASES)
def test_the_best_under_limits_are_those_of_a_list_of_all_combinations(seed, names, share):
    blocks = chain(seed)
    found = listed(blocks)
    bound = limits(found, share, names)
    feasible = {places: value for value, costs, places in found if bound.met(costs)}
    if not feasible:
        with pytest.raises(InfeasibleError):
            blocks.best(bound)
        return
    selected = blocks.best(bound, 40)
    expected = sorted(feasible.values(), reverse=True)[:40]
    np.testing.assert_allclose([one.value for one in selected], expected, rtol=1e-12)
    assert len({one.places for one in selected}) == len(selected)
    for one in selected:
        assert one.value == pytest.approx(feasible[one.places])
        assert bound.met(one.costs)


@pytest.mark.parametrize("cost", ["params", "latency_ms"])
@pytest.mark.parametrize(("seed", "names"), CASES)
def test_the_front_is_that_of_a_list_of_all_combinations(seed, names, cost):
    blocks = chain(seed)
    found = listed(blocks)
    bound = limits(found, 0.4, names)
    expected, best = [], -math.inf
    for value, size in sorted(
        ((v, c[cost]) for v, c, _ in found if bound.met(c)), key=lambda pair: (pair[1], -pair[0])
    ):
        if value > best + 1e-9:
            expected.append((size, value))
            best = value
    front = blocks.front(cost, bound)
    np.testing.assert_allclose([(one.costs[cost], one.value) for one in front], expected, rtol=1e-9)
    by_places = {places: costs for _, costs, places in found}
    for one in front:
        assert one.costs == pytest.approx(by_places[one.places])


def test_limits_below_everything_are_refused_with_the_smallest_costs():
    blocks = chain(6)
    smallest = min(costs["params"] for _, costs, _ in listed(blocks))
    for use in (blocks.best, lambda bound: blocks.front("flops", bound)):
        with pytest.raises(InfeasibleError, match="params at most 1e-06, the smallest seen is") as error:
            use(Limits(max_params=1e-6))
        assert error.value.smallest == {"params": pytest.approx(smallest)}


def test_a_bound_at_the_smallest_architecture_is_met():
    blocks = chain(7)
    smallest = min(costs["params"] for _, costs, _ in listed(blocks))
    assert blocks.best(Limits(max_params=smallest))[0].costs["params"] == smallest


def test_without_limits_the_best_candidate_of_every_block_is_chosen():
    blocks = chain(8)
    assert blocks.best()[0].places == tuple(int(np.argmax(values)) for values in blocks.values)
    found = [one.value for one in blocks.best(count=10**6)]
    np.testing.assert_allclose(found, sorted((v for v, _, _ in listed(blocks)), reverse=True), rtol=1e-13)


def test_values_that_are_not_finite_are_refused():
    blocks = chain(9)
    blocks.values[2][1] = math.nan
    with pytest.raises(ValueError, match="values: expected finite ones, got others or none in block 2"):
        Chain(blocks.values, blocks.ports, blocks.costs, blocks.joints)


def test_of_very_many_equal_ones_some_are_found_at_once():
    blocks = chain(11, (2000,) * 4)
    equal = Chain([np.zeros(2000)] * 4, blocks.ports, blocks.costs, blocks.joints)
    assert len(equal.best(Limits(max_params=25), 3)) == 3


@pytest.mark.slow
def test_a_hundred_candidates_a_block_take_seconds():
    """As many as NAS-BERT leaves: 10^8 combinations, under three limits."""
    blocks = chain(10, (100,) * 4, 5)
    selected = blocks.best(Limits(25, 25, 25), 100)
    assert len(selected) == 100
    front = blocks.front("params", Limits(max_latency_ms=20))
    values = [one.value for one in front]
    assert values == sorted(values)
