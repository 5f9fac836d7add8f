import math

import jax
import numpy as np
import pytest
import toys

from nasi_jax import scores, search
from nasi_jax.scores.evaluator import FAILED

SPACE = toys.TOYS[0]
KEY = jax.random.key(0)
VALUES = np.random.default_rng(0).permutation(SPACE.cardinality).astype(float)


class Places:
    """The value of an architecture by its place in the space, and a record of what was evaluated."""

    names = ("value",)

    def __init__(self, broken=()):
        self.evaluated, self.broken = [], set(broken)

    def stream(self, genotypes):
        for genotype in genotypes:
            place = int(SPACE.index(genotype))
            self.evaluated.append(place)
            yield {"value": math.nan, FAILED: "it broke"} if place in self.broken else {"value": VALUES[place]}


def made(strategy=None, evaluator=None, **options):
    evaluator = Places() if evaluator is None else evaluator
    strategy = search.Evolution(6, 3) if strategy is None else strategy
    return search.BlackBox(KEY, strategy, SPACE, evaluator, lambda figures: figures["value"], **options), evaluator


def places(evaluations):
    return [int(SPACE.index(e.genotype)) for e in evaluations]


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize(
    "strategy", [search.Evolution(6, 3), search.LocalSearch(), search.Reinforce(), search.GridSearch()]
)
def test_a_search_that_stopped_continues_as_if_it_had_not(strategy, parallel):
    whole = list(made(strategy, parallel=parallel)[0].run(30))
    for stopped in (1, 10, 29):
        one, evaluator = made(strategy, parallel=parallel)
        rest = list(one.run(30, told=whole[:stopped]))
        assert places(rest) == places(whole[stopped:])
        assert one.best.value == max(e.value for e in whole)
        assert not set(evaluator.evaluated) & set(places(whole[:stopped]))


def test_more_evaluations_go_on_where_fewer_ended():
    few = list(made(parallel=4)[0].run(10))
    more = list(made(parallel=4)[0].run(25, told=few))
    assert places(few) + places(more) == places(made(parallel=4)[0].run(25))


def test_evaluations_of_another_search_are_refused():
    told = list(made(search.RandomSearch())[0].run(5))[::-1]
    with pytest.raises(ValueError, match="history: expected evaluation 0 to be of"):
        list(made()[0].run(10, told=told))


def test_equal_architectures_are_paid_for_again_and_computed_once():
    one, evaluator = made(search.Reinforce(learning_rate=0.1))
    found = list(one.run(200))
    assert len(found) == 200
    assert len(set(places(found))) < 200
    assert sorted(evaluator.evaluated) == sorted(set(places(found)))


@pytest.mark.parametrize("strategy", [search.RandomSearch(), search.Evolution(6, 3), search.LocalSearch()])
def test_what_was_evaluated_is_left_out_where_that_is_asked_for(strategy):
    found = list(made(strategy, unique="equal", parallel=3)[0].run(120))
    assert len(set(places(found))) == len(found) == 120


def test_the_search_ends_where_there_is_nothing_new():
    found = list(made(search.GridSearch(), unique="equal")[0].run(10**6))
    assert sorted(places(found)) == list(range(SPACE.cardinality))


def test_architectures_of_one_function_count_as_one(monkeypatch):
    monkeypatch.setattr(type(SPACE), "canonical", lambda self, genotype: str(genotype.operations[:2]))
    found = list(made(search.RandomSearch(), unique="isomorphic")[0].run(10**6))
    assert len(found) == 4**2


def cost(genotype):
    return {"params": float(np.sum(genotype.operations))}


@pytest.mark.parametrize("strategy", [*search.STRATEGIES])
def test_only_what_meets_the_limits_is_evaluated(strategy):
    one, _ = made(search.VARIANTS[strategy], costs=cost, limits=scores.Limits(max_params=4))
    found = list(one.run(60))
    assert len(found) == 60
    assert max(e.costs["params"] for e in found) == 4
    assert one.looked_at > 60


def test_limits_that_nothing_meets_say_the_smallest_cost_seen():
    one, evaluator = made(search.RandomSearch(), costs=lambda g: {"params": 7.5 + float(g.operations[0])},
                          limits=scores.Limits(max_params=3))  # fmt: skip
    with pytest.raises(scores.InfeasibleError, match=r"params at most 3, the smallest seen is 7\.5") as caught:
        list(one.run(10))
    assert caught.value.smallest == {"params": 7.5}
    assert not evaluator.evaluated


def test_what_has_no_value_is_recorded_and_never_the_best():
    best = int(np.argmax(VALUES))
    one, _ = made(search.GridSearch(), Places(broken=[best, 3]), unique="equal")
    found = list(one.run(SPACE.cardinality))
    reasons = {place: e.reason for place, e in zip(places(found), found, strict=True) if e.reason}
    assert reasons == {best: "it broke", 3: "it broke"}
    assert one.best.value == np.sort(VALUES)[-2]


def test_nothing_has_a_value():
    one, _ = made(search.RandomSearch(), Places(broken=range(SPACE.cardinality)))
    assert len(list(one.run(5))) == 5
    assert one.best is None


def test_incumbents_leave_out_what_is_not_a_number():
    np.testing.assert_array_equal(search.incumbents([math.nan, 2, 1, math.nan, 3]), [math.nan, 2, 2, 2, 3])
    assert len(search.incumbents([])) == 0
