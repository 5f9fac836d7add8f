import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategy_cases import DecisionSpace

from nasi_jax import search, spaces, tabular
from nasi_jax.search import GridSearch
from nasi_jax.search.grid_search import stride

SPACE = DecisionSpace((3, 2, 4))
KEY = jax.random.key(0)


def places(strategy, count, space=SPACE):
    genotypes, _ = strategy.ask(KEY, strategy.init(KEY, space), count)
    return np.asarray(jax.vmap(space.index)(genotypes)).tolist()


def test_lexicographic_is_the_order_of_the_space():
    assert places(GridSearch("lexicographic"), SPACE.cardinality + 3) == [*range(SPACE.cardinality), 0, 1, 2]


@pytest.mark.parametrize("order", ["lexicographic", "strided", "shuffled"])
def test_every_order_visits_every_architecture_once(order):
    assert sorted(places(GridSearch(order), SPACE.cardinality)) == [*range(SPACE.cardinality)]


def test_shuffled_is_another_order_for_another_key():
    strategy = GridSearch("shuffled")
    orders = [strategy.init(jax.random.key(seed), SPACE).order.tolist() for seed in range(50)]
    assert len(set(map(tuple, orders))) == 50
    # the first one is uniform: 50 draws of 24 leave less than half of them out
    assert len({order[0] for order in orders}) > 12


def test_a_subset_of_options():
    strategy = GridSearch("lexicographic", options=((2,), (0, 1), (3, 1)))
    assert strategy.size(SPACE) == 4
    genotypes, _ = strategy.ask(KEY, strategy.init(KEY, SPACE), 4)
    assert np.asarray(genotypes.options).tolist() == [[2, 0, 3], [2, 0, 1], [2, 1, 3], [2, 1, 1]]


@pytest.mark.parametrize("decisions", [(5,) * 6, (3, 3, 3, 3, 1, 3, 6, 10), (2,) * 14, (10, 10, 10, 10), (7, 11, 13)])
def test_part_of_a_strided_grid_has_every_option_about_equally_often(decisions):
    """Of 100 to 200 architectures, whatever the size factors into: as in a uniform draw, or closer."""
    space = DecisionSpace(decisions)
    assert np.gcd(stride(space.cardinality), space.cardinality) == 1
    for count in (100, 200):
        genotypes, _ = GridSearch().ask(KEY, GridSearch().init(KEY, space), count)
        for column, options in zip(np.asarray(genotypes.options).T, decisions, strict=True):
            share = np.bincount(column, minlength=options) / count
            assert np.abs(share - 1 / options).max() < 4 * np.sqrt(1 / options / count)


def test_the_whole_grid_returns_the_best_of_the_benchmark(benchmark_table):
    space = spaces.get("nasbench201")
    names = [space.format(g) for g in space.enumerate()]
    table = tabular.Table.read(benchmark_table, ["cifar10_val_12ep", "imagenet16_val_12ep"])
    for column, row in (("cifar10_val_12ep", 13714), ("imagenet16_val_12ep", 2581)):
        values = table.lookup(names)[column]
        found = search.simulate(GridSearch(), space, values, KEY[None], space.cardinality)
        assert table.rows[names[found.incumbents[0, -1]]] == row


def test_grids_that_are_too_large_are_refused_until_told():
    space = DecisionSpace((10,) * 6)
    with pytest.raises(ValueError, match="at most limit=100000 architectures of decisions, got 1000000"):
        GridSearch().init(KEY, space)
    assert len(GridSearch(limit=10**6).init(KEY, space).order) == 10**6
    with pytest.raises(ValueError, match="architectures of darts, got 1076746950455072400"):
        GridSearch().init(KEY, spaces.get("darts"))
    few = ((0,), (0, 1), (0,)) * 8
    assert GridSearch(options=few).init(KEY, spaces.get("darts")).order.shape == (256,)


@pytest.mark.parametrize("options", [((0,),), ((0,), (0,), ()), ((0,), (0, 0), (1,)), ((0,), (2,), (1,))])
def test_options_that_are_not_of_the_space_are_refused(options):
    with pytest.raises(ValueError, match="options: expected"):
        GridSearch(options=options).size(SPACE)


@pytest.mark.parametrize("bad", [{"order": "random"}, {"limit": 0}, {"limit": 2**31}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GridSearch(**bad)


def test_a_single_architecture():
    assert places(GridSearch(), 3, DecisionSpace((1, 1))) == [0, 0, 0]
    assert jnp.gcd(stride(1), 1) == 1
