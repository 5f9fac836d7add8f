"""What every black-box strategy promises, for every variant that is registered."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategy_cases import DecisionSpace, reached

from nasi_jax import search, spaces

TINY = DecisionSpace()
PARTS = [size * np.random.default_rng(size).permutation(count) for size, count in ((8, 3), (4, 2), (1, 4))]
VALUES = sum(np.ix_(*PARTS)).ravel() / TINY.cardinality  # a sum over the decisions, all different
KEY = jax.random.key(7)
KEYS = jax.random.split(jax.random.key(0), 5)[jnp.array([0, 1, 2, 3, 4, 0])]


def kind(strategy):
    """What makes it another program than others: its class and all options that are not numbers."""
    return type(strategy), *(option for option in dataclasses.astuple(strategy) if type(option) not in {int, float})


KINDS = {kind(strategy): name for name, strategy in reversed(search.VARIANTS.items())}


@pytest.fixture(params=sorted(KINDS.values()), scope="module")
def strategy(request):
    return search.VARIANTS[request.param]


@pytest.fixture(scope="module")
def asked(strategy):
    """A jitted `ask`, since policies are slow without."""
    return jax.jit(strategy.ask, static_argnames="count")


@pytest.fixture(scope="module")
def told(strategy):
    return jax.jit(strategy.tell)


def stack(*genotypes):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *genotypes)


def part(genotypes, index):
    return jax.tree.map(lambda leaf: leaf[index], genotypes)


def equal(first, second):
    return all(
        np.array_equal(a, b, equal_nan=np.issubdtype(np.asarray(a).dtype, np.floating))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def go_on(asked, told, state, steps):
    for step in steps:
        genotypes, state = asked(jax.random.fold_in(KEY, step), state, count=3)
        state = told(state, genotypes, jnp.asarray(VALUES)[jax.vmap(TINY.index)(genotypes)])
    return state


@pytest.fixture(scope="module")
def runs(strategy):
    """Six repetitions, the first and the last one with the same key."""
    return search.simulate(strategy, TINY, VALUES, KEYS, 300)


def test_every_strategy_has_a_variant_with_its_defaults():
    for name, strategy in search.STRATEGIES.items():
        assert search.VARIANTS[name] == strategy()


def test_strategies_are_hashable_and_equal_by_value(strategy):
    assert strategy == dataclasses.replace(strategy)
    assert hash(strategy) == hash(dataclasses.replace(strategy))


def test_the_same_key_gives_the_same_search(runs):
    np.testing.assert_array_equal(runs.evaluated[0], runs.evaluated[-1])
    np.testing.assert_array_equal(runs.incumbents[0], runs.incumbents[-1])


def test_another_key_gives_another_search_where_anything_is_random(strategy, runs):
    assert (runs.evaluated[0] == runs.evaluated[1:5]).all() == (strategy == search.GridSearch())


def test_repetitions_side_by_side_are_those_one_by_one(strategy, runs):
    alone = search.simulate(strategy, TINY, VALUES, KEYS[2:3], 300)
    np.testing.assert_array_equal(runs.evaluated[2], alone.evaluated[0])
    np.testing.assert_array_equal(runs.incumbents[2], alone.incumbents[0])


def test_the_incumbent_is_the_best_so_far(runs):
    best = np.maximum.accumulate(VALUES[runs.evaluated], axis=1)
    np.testing.assert_array_equal(VALUES[runs.incumbents], best)


def test_a_small_space_is_searched_to_its_best(runs):
    assert (runs.incumbents[:, -1] == np.argmax(VALUES)).all()


def test_adaptive_are_those_that_ask_for_something_else_when_told_otherwise(strategy, runs):
    otherwise = search.simulate(strategy, TINY, VALUES[::-1].copy(), KEYS, 300)
    assert strategy.adaptive == (otherwise.evaluated != runs.evaluated).any()


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_been(strategy, asked, told):
    whole = go_on(asked, told, strategy.init(KEY, TINY), range(30))
    half = go_on(asked, told, strategy.init(KEY, TINY), range(13))
    leaves, structure = jax.tree.flatten(half)
    saved = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    assert equal(go_on(asked, told, saved, range(13, 30)), whole)


def test_genotypes_stay_in_the_space(strategy):
    space = next(s for s in map(spaces.get, ("darts", "nasbench1shot1-s1")) if accepts(strategy, s))
    state, go_on = strategy.init(KEY, space), jax.jit(lambda key, state: exchange(strategy, key, state))
    for step in range(12):
        genotypes, state = go_on(jax.random.fold_in(KEY, step), state)
        for i in range(11):
            genotype = part(genotypes, i)
            assert space.parse(space.format(genotype)) == genotype


def accepts(strategy, space):
    """Whether a strategy that lists the space finds it small enough."""
    try:
        strategy.init(KEY, space)
    except ValueError:
        return False
    return True


def exchange(strategy, key, state):
    genotypes, state = strategy.ask(key, state, 11)
    return genotypes, strategy.tell(state, genotypes, jnp.arange(11.0) % 5)


def test_as_many_as_asked_for(strategy, asked):
    genotypes, _ = asked(KEY, strategy.init(KEY, TINY), count=30)
    assert jax.vmap(TINY.to_decisions)(genotypes).shape == (30, len(TINY.decisions))


def test_telling_at_once_is_telling_one_after_the_other(strategy, told):
    """Up to rounding, since a program for three tells in another order of sums than one for one."""
    genotypes = jax.vmap(TINY.sample)(jax.random.split(KEY, 9))
    values = jnp.array([0.3, 0.1, jnp.nan, 0.7, 0.7, 0.2, 0.9, jnp.nan, 0.1])
    at_once = one_by_one = strategy.init(KEY, TINY)
    for i in range(3):
        at_once = told(at_once, part(genotypes, slice(3 * i, 3 * i + 3)), values[3 * i : 3 * i + 3])
    for i in range(9):
        one_by_one = told(one_by_one, part(genotypes, slice(i, i + 1)), values[i : i + 1])
    for a, b in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(at_once), strict=True):
        if np.issubdtype(np.asarray(a).dtype, np.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)
    assert at_once.told == 9


def test_what_was_asked_may_be_told_in_any_order_and_together_with_others(strategy, asked, told):
    state = strategy.init(KEY, TINY)
    state = told(state, stack(*map(TINY.at, (5, 9, 0))), jnp.array([0.5, 0.25, 0.0]))
    first, state = asked(KEY, state, count=3)
    second, state = asked(jax.random.key(8), state, count=3)
    mixed = stack(part(second, 1), TINY.at(11), part(first, 2))
    state = told(state, mixed, jnp.array([0.1, 0.6, 0.3]))
    assert strategy.best(state) == TINY.at(11)
    state = told(state, part(first, slice(0, 1)), jnp.array([0.9]))
    assert strategy.best(state) == part(first, 0)
    third, _ = asked(KEY, state, count=3)
    assert (jax.vmap(TINY.to_decisions)(third) < jnp.array([TINY.decisions])).all()


def test_the_best_is_the_first_of_the_largest_values(strategy, told):
    state = told(strategy.init(KEY, TINY), stack(*map(TINY.at, (3, 8, 2))), jnp.array([-2.0, -1.0, -1.0]))
    assert strategy.best(state) == TINY.at(8)
    assert state.incumbent_value == -1


def test_not_a_number_is_worse_than_every_number(strategy, asked, told):
    state = told(strategy.init(KEY, TINY), stack(*map(TINY.at, (3, 4, 7))), jnp.full(3, jnp.nan))
    assert strategy.best(state) == TINY.at(3)
    assert jnp.isnan(state.incumbent_value)
    state = told(state, stack(*map(TINY.at, (5, 6, 7))), jnp.array([-jnp.inf, jnp.nan, jnp.nan]))
    assert strategy.best(state) == TINY.at(5)
    assert state.incumbent_value == -jnp.inf
    for step in range(40):
        genotypes, state = asked(jax.random.fold_in(KEY, step), state, count=3)
        state = told(state, genotypes, jnp.array([jnp.nan, 0.5, jnp.nan]))
    genotypes, state = asked(KEY, state, count=3)
    assert (jax.vmap(TINY.to_decisions)(genotypes) < jnp.array([TINY.decisions])).all()
    assert state.incumbent_value == 0.5


@pytest.mark.parametrize("values", [jnp.zeros(3), jnp.zeros(()), jnp.zeros((2, 1))])
def test_there_is_one_value_for_each_genotype(strategy, values):
    state = strategy.init(KEY, TINY)
    with pytest.raises(ValueError, match=r"values: expected shape \(2,\), one for each genotype, got"):
        strategy.tell(state, stack(TINY.at(0), TINY.at(1)), values)


def test_a_planted_optimum_is_found(strategy):
    """By those that learn, in fewer evaluations than a seventh of the space."""
    assert not strategy.adaptive or reached(strategy, spaces.get("nasbench1shot1-s1"), 2000)
