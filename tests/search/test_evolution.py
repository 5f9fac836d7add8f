import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from strategy_cases import DecisionSpace, reached

from nasi_jax import search, spaces
from nasi_jax.search import Evolution

SPACE = DecisionSpace((4, 3, 5, 2))
TRUTH = np.random.default_rng(0).integers(0, 40, SPACE.cardinality) / 40  # with ties
KEYS = jax.random.split(jax.random.key(0), 4)


def history(strategy, steps):
    """Returns after each step the place of what was told, and the places and values of the members."""

    def evaluate(state, number):
        genotypes, state = strategy.ask(jax.random.fold_in(KEYS[0], number), state)
        places = jax.vmap(SPACE.index)(genotypes)
        state = strategy.tell(state, genotypes, jnp.asarray(TRUTH)[places])
        return state, (places[0], jax.vmap(SPACE.index)(state.members), state.values)

    state = strategy.init(KEYS[1], SPACE)
    return map(np.asarray, jax.jit(lambda s: jax.lax.scan(evaluate, s, jnp.arange(steps))[1])(state))


def test_an_aging_population_is_the_last_of_the_history():
    told, members, values = history(Evolution(7, 3), 100)
    for step in range(7, 100):
        assert sorted(members[step]) == sorted(told[step - 6 : step + 1])
        np.testing.assert_allclose(values[step], TRUTH[members[step]], rtol=1e-6)


@pytest.mark.parametrize("crossover", [0.0, 0.5])
def test_a_population_that_loses_its_worst_never_gets_worse(crossover):
    told, _, values = history(Evolution(7, 3, remove="worst", crossover=crossover), 150)
    assert (np.diff(np.sort(values[6:], axis=1), axis=0) >= 0).all()
    assert values[-1].min() > values[6].min()
    # the best seven of the history, as far as their values go
    np.testing.assert_allclose(np.sort(values[-1]), np.sort(TRUTH[told])[-7:], rtol=1e-6)


@pytest.mark.parametrize("replace", [True, False])
def test_the_parent_of_a_tournament_has_the_best_of_a_random_sample(replace):
    """Its rank is the least of `contenders` draws: P(rank > r) = ((P - r) / P)^S, or C(P - r, S) / C(P, S)."""
    size, contenders, draws = 8, 3, 4000
    values = jnp.asarray(np.random.default_rng(1).permutation(size) / size)
    strategy = Evolution(size, contenders, replace=replace)
    keys = jax.random.split(jax.random.key(2), draws)
    chosen = jax.jit(jax.vmap(lambda key: strategy._parents(key, values)[0]))(keys)
    ranks = np.asarray(jnp.argsort(jnp.argsort(-values)))[np.asarray(chosen)]
    left = size - np.arange(size + 1)
    above = (left / size) ** contenders if replace else scipy.special.comb(left, contenders)
    expected = -np.diff(above / above[0]) * draws
    there = expected > 0
    observed = np.bincount(ranks, minlength=size)
    assert observed[~there].sum() == 0
    assert scipy.stats.chisquare(observed[there], expected[there]).pvalue > 1e-4


def test_all_contenders_without_replacement_breed_from_the_best():
    strategy = Evolution(6, 6)
    state = strategy.tell(strategy.init(KEYS[0], SPACE), *_population([10, 50, 30, 77, 90, 4], [1, 5, 2, 9, 3, 4.0]))
    children, _ = strategy.ask(KEYS[1], state, 200)
    differ = np.asarray(children.options) != SPACE.at(77).options[None]
    assert (differ.sum(axis=1) == 1).all()
    # each of the neighbours as often as another, so each decision in proportion to its other options
    others = np.array(SPACE.decisions) - 1
    assert scipy.stats.chisquare(differ.sum(axis=0), 200 * others / others.sum()).pvalue > 1e-4


def test_one_contender_is_a_uniform_walk(benchmark_table):
    """The mutation is symmetric: every evaluation is uniform, so that its mean is the table's, here 68.852."""
    from nasi_jax import tabular

    space = spaces.get("nasbench201")
    table = tabular.Table.read(benchmark_table, ["cifar10_val_12ep"]).lookup([
        space.format(g) for g in space.enumerate()
    ])
    values = table["cifar10_val_12ep"]
    found = search.simulate(Evolution(10, 1), space, values, jax.random.split(jax.random.key(4), 2000), 60)
    means = values[found.evaluated].mean(axis=1)  # of a run, whose evaluations depend on one another
    assert abs(means.mean() - 68.852) < 4 * means.std() / np.sqrt(len(means))
    last = values[found.evaluated[:, -1]]
    assert abs(last.mean() - 68.852) < 4 * last.std() / np.sqrt(len(last))


def _population(places, values):
    members = [SPACE.at(place) for place in places]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members), jnp.array(values, float)


@pytest.mark.parametrize("selection", ["tournament", "truncation"])
def test_children_of_two_are_of_two_different_members(selection):
    """Members that differ everywhere: each decision tells the parent, and both are there."""
    space = DecisionSpace((6,) * 12)
    members = jax.vmap(space.from_decisions)(jnp.tile(jnp.arange(6)[:, None], (1, 12)))
    strategy = Evolution(6, 3, selection, crossover=1.0)
    state = strategy.tell(strategy.init(KEYS[0], space), members, jnp.array([6.0, 5, 4, 3, 2, 1]))
    children, _ = strategy.ask(KEYS[1], state, 300)
    kinds = [set(child) for child in np.asarray(children.options).tolist()]
    assert sum(len(kind) == 2 for kind in kinds) > 290  # the others are copies of one that were mutated, or all heads
    # the best of three of six, or of three of the five others, is never one of the two worst
    assert set().union(*(kind for kind in kinds if len(kind) == 2)) == {0, 1, 2} | {3} - {
        3 * (selection == "truncation")
    }


def test_a_copy_of_a_parent_is_mutated_once_unless_told():
    """Crossing equal parents gives the parent again, which wastes an evaluation."""
    places = [33] * 5
    for mutate_copies in (True, False):
        strategy = Evolution(5, 3, crossover=1.0, mutate_copies=mutate_copies)
        state = strategy.tell(strategy.init(KEYS[0], SPACE), *_population(places, [1.0] * 5))
        children, _ = strategy.ask(KEYS[1], state, 50)
        differ = np.asarray(children.options) != SPACE.at(33).options[None]
        assert (differ.sum(axis=1) == mutate_copies).all()


def test_a_child_as_bad_as_the_worst_takes_its_place_and_a_worse_one_does_not():
    strategy = Evolution(3, 2, remove="worst")
    state = strategy.tell(strategy.init(KEYS[0], SPACE), *_population([1, 2, 3], [0.5, 0.2, 0.9]))
    equal = strategy.tell(state, *_population([7], [0.2]))
    assert set(np.asarray(jax.vmap(SPACE.index)(equal.members)).tolist()) == {1, 7, 3}
    worse = strategy.tell(state, *_population([7], [0.1]))
    assert set(np.asarray(jax.vmap(SPACE.index)(worse.members)).tolist()) == {1, 2, 3}


@pytest.mark.parametrize(
    "strategy",
    [
        Evolution(),
        Evolution(100, 25),
        Evolution(20, 10, "truncation", remove="worst", crossover=0.5),
        Evolution(20, 10, crossover=0.5),
    ],
)
def test_the_planted_optimum_of_darts_is_found(strategy):
    """Of 120 mutations at most a few are right: with three contenders of ten, they would be lost faster than found."""
    assert reached(strategy, spaces.get("darts"), 4000)


@pytest.mark.parametrize(
    "bad",
    [
        {"population": 0},
        {"contenders": 0},
        {"contenders": 51},
        {"selection": "roulette"},
        {"remove": "youngest"},
        {"crossover": 1.5},
    ],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Evolution(**bad)


def test_options_that_leave_no_two_parents_are_refused():
    with pytest.raises(ValueError, match="crossover"):
        Evolution(1, 1, crossover=0.5, replace=True)
    with pytest.raises(ValueError, match="crossover"):
        Evolution(20, 1, "truncation", crossover=0.5)
    with pytest.raises(ValueError, match="contenders"):
        dataclasses.replace(Evolution(10, 10), crossover=0.5)
