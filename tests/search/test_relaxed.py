"""What every search over relaxed architectures promises, for every method that is registered."""

import dataclasses

import jax
import numpy as np
import pytest
import toys
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.programs import Execution
from nasi_jax.scores.linear import LinearCost

SPACE = ToySpace()
SOURCE = data.Gaussian((8, 8, 3), outputs=3)
TINY = {"steps": 6, "rounds": 2, "batch": 4, "moments": 3, "window": 2, "size": SPACE.Size(2, 1)}
KEYS = jax.random.split(jax.random.key(0), 2)


def tiny(strategy, **changes):
    """Returns settings of a method at the smallest size."""
    fields = {field.name for field in dataclasses.fields(strategy)}
    return dataclasses.replace(strategy, **{n: v for n, v in (TINY | changes).items() if n in fields})


@pytest.fixture(params=sorted(search.METHODS), scope="module")
def strategy(request):
    return tiny(search.METHODS[request.param]["default"])


@pytest.fixture(scope="module")
def whole(strategy):
    return list(search.iterate(KEYS, SPACE, SOURCE, strategy))


def equal(first, second):
    return all(
        np.array_equal(a, b, equal_nan=np.issubdtype(np.asarray(a).dtype, np.floating))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def test_all_figures_are_finite_and_all_steps_are_taken(strategy, whole):
    assert np.isfinite(jax.tree.leaves([infos for _, infos in whole])).all()
    assert (np.asarray(whole[-1][0].step) == strategy.steps).all()
    assert set(strategy.shown) <= set(whole[0][1]._fields)
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(whole[-1][0].alphas))


def test_a_stored_state_goes_on_to_the_same_bits(strategy, whole):
    for place in (0, 3):
        stored = jax.tree.map(np.asarray, whole[place][0])
        rest = list(search.iterate(KEYS, SPACE, SOURCE, strategy, states=jax.tree.map(jax.numpy.asarray, stored)))
        assert equal(rest[-1][0], whole[-1][0])
        assert equal([infos for _, infos in rest], [infos for _, infos in whole[place + 1 :]])


def test_the_same_key_gives_the_same_search_and_another_one_another(strategy, whole):
    again = list(search.iterate(KEYS[1:], SPACE, SOURCE, strategy))[-1][0]
    for name in ("alphas", "step"):
        for a, b in zip(
            jax.tree.leaves(getattr(again, name)), jax.tree.leaves(getattr(whole[-1][0], name)), strict=True
        ):
            np.testing.assert_array_equal(a[0], b[1])
    assert not equal(*[jax.tree.map(lambda leaf, i=i: leaf[i], whole[-1][0].alphas) for i in range(2)])


@pytest.mark.slow
def test_scanned_and_by_programs_is_the_same_search(strategy, x64):
    found = [
        list(search.iterate(KEYS, SPACE, SOURCE, strategy, execution=execution))[-1][0].alphas
        for execution in (Execution(), Execution(scan=True), Execution(blocks=True))
    ]
    for other in found[1:]:
        for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_the_genotype_is_in_the_space(strategy, whole):
    genotype = strategy.genotype(SPACE, jax.tree.map(lambda leaf: leaf[0], whole[-1][0]))
    assert SPACE.parse(SPACE.format(genotype)) == genotype


@pytest.mark.slow
def test_limits_turn_the_logits_to_what_is_cheaper(strategy):
    strategy = tiny(strategy, steps=4, warmup=0.0, learning_rate=0.1, logits_learning_rate=0.1)
    price = LinearCost(0.0, {"cell": np.tile(np.arange(5.0), (6, 1))})
    expected = []
    for limits in ((), [(price, 0.5)]):
        states = search.init_states(KEYS, SPACE, SOURCE, strategy, limits)
        last = list(search.iterate(KEYS, SPACE, SOURCE, strategy, states=states))[-1][0].alphas
        expected.append([price.expected(jax.tree.map(lambda leaf, i=i: leaf[i], last)) for i in range(2)])
    assert (np.array(expected[1]) < np.array(expected[0])).all()


@pytest.mark.slow
def test_what_is_left_out_of_a_space_stays_out(strategy):
    space = spaces.restricted(SPACE, ["none"], ["0→2=nor_conv_3x3"])
    mask = np.asarray(space.alphas()["cell"]) == 0
    last = list(search.iterate(KEYS[:1], space, SOURCE, strategy))[-1]
    logits = np.asarray(last[0].alphas["cell"][0])
    assert (logits[~mask] == spaces.IMPOSSIBLE).all()
    assert np.isfinite(logits[mask]).all()
    assert np.isfinite(jax.tree.leaves(last[1])).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "nasbench1shot1-s1", "nasbench201"])
@pytest.mark.parametrize("method", ["darts", "snas"])
def test_methods_that_train_weights_in_published_spaces(name, method):
    """Also the second order, as one program and as a sequence of them."""
    space = spaces.get(name)
    changes = {"steps": 2, "moments": 2, "warmup": 0.0, "order": "second", "size": toys.smallest(space)}
    strategy = tiny(search.METHODS[method]["default"], **changes)
    found = []
    for execution in (None, Execution(blocks=True)):
        states, infos = list(search.iterate(KEYS[:1], space, SOURCE, strategy, execution=execution))[-1]
        assert np.isfinite(jax.tree.leaves(infos)).all()
        assert np.isfinite(jax.tree.leaves(states.looks)).all()
        found.append(states.alphas)
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    genotype = strategy.genotype(space, jax.tree.map(lambda leaf: leaf[0], states))
    assert space.parse(space.format(genotype)) == genotype
