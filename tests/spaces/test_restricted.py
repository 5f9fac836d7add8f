"""Spaces without some of their choices: only what is left, in every way of drawing, listing, learning and reading."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.scores import Limits
from nasi_jax.scores.linear import LinearCost

NASBENCH, DARTS, ONE_SHOT = spaces.NASBench201(), spaces.DARTS(), spaces.NASBench1Shot1(1)
SOURCE = data.Gaussian((8, 8, 3), outputs=3)


def test_what_is_left_is_the_space_without_what_is_forbidden():
    left = spaces.restricted(NASBENCH, ["none", "avg_pool_3x3"], ["1->3=nor_conv_3x3"])
    expected = [
        NASBENCH.format(g)
        for g in NASBENCH.enumerate()
        if not {0, 4} & set(g.operations.tolist()) and g.operations[4] == 3
    ]
    assert [left.format(g) for g in left.enumerate()] == expected
    assert left.cardinality == len(expected) == 3**5


@pytest.mark.parametrize(
    ("space", "forbid", "fix", "absent", "present"),
    [
        (DARTS, ["max_pool_3x3", "skip_connect"], [], ["max_pool", "skip"], []),
        (
            DARTS,
            ["dil_conv_5x5"],
            ["normal/k-1→0=sep_conv_3x3"],
            ["dil_conv_5x5"],
            ["normal=[(", "('sep_conv_3x3', 1)"],
        ),
        (ONE_SHOT, ["maxpool3x3"], ["2=conv1x1-bn-relu"], ["maxpool"], ["conv1x1-bn-relu"]),
    ],
)
def test_draws_changes_and_children_stay_in_what_is_left(space, forbid, fix, absent, present):
    left = spaces.restricted(space, forbid, fix)

    def check(genotypes):
        for i in range(len(jax.tree.leaves(genotypes)[0])):
            text = left.format(jax.tree.map(lambda leaf, i=i: leaf[i], genotypes))
            assert not any(name in text for name in absent)
            assert all(name in text for name in present)
            left.parse(text)

    @jax.jit
    def results(keys, logits):
        drawn = jax.vmap(left.sample)(keys)
        first = jax.tree.map(lambda leaf: leaf[0], drawn)
        return (
            drawn,
            jax.vmap(left.mutate)(keys, drawn),
            jax.vmap(left.cross)(keys, drawn, jax.tree.map(lambda leaf: leaf[::-1], drawn)),
            jax.vmap(left.neighbour, in_axes=(None, 0))(first, jnp.arange(left.neighbours)[::4]),
            jax.vmap(left.decode)(logits),
        )

    keys = jax.random.split(jax.random.key(0), 20)
    logits = {kind: jax.random.normal(keys[0], (20, *values.shape)) for kind, values in space.alphas().items()}
    for genotypes in jax.device_get(results(keys, logits)):
        check(genotypes)


def test_neighbours_of_darts_keep_its_notion_of_them():
    """16 edges with 4 other operations, and 24 moves of an edge to another input, as without the restriction."""
    left = spaces.restricted(DARTS, ["max_pool_3x3", "avg_pool_3x3"])
    assert (DARTS.neighbours, left.neighbours) == (16 * 6 + 24, 16 * 4 + 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forbid": ["nonee"]}, "forbid: expected one of .*, got 'nonee'; did you mean 'none'"),
        ({"forbid": NASBENCH.operations}, "forbid: expected a choice to be left for 0→1 of cell"),
        ({"fix": ["1→3=none", "1->3=skip_connect"]}, "one choice for 1→3, got 'none' and 'skip_connect'"),
        ({"forbid": ["none"], "fix": ["1→3=none"]}, "a choice that is not forbidden, got '1→3=none'"),
        ({"fix": ["1→4=none"]}, "fix: expected one of .*, got '1→4'; did you mean '1→3'"),
        ({"fix": ["1→3=conv_3x3"]}, "fix: 1→3: expected one of .* did you mean 'nor_conv_3x3'"),
        ({"fix": ["normal/1→3=none"]}, "fix: expected one of 'cell', got 'normal'"),
        ({"fix": ["1→3"]}, "fix: expected 'edge=choice', got '1→3'"),
        ({"fix": [f"{edge}=none" for edge in NASBENCH.edges["cell"]]}, "more than one architecture"),
        ({"space": DARTS, "fix": ["k-2→1=skip_connect"]}, "an edge that every architecture of darts has"),
        ({"space": DARTS, "forbid": ["none"]}, "forbid: expected one of 'avg_pool_3x3'"),
        ({"space": DARTS, "forbid": DARTS.operations[1:]}, "two choices to be left for every edge"),
    ],
)
def test_restrictions_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        spaces.restricted(**{"space": NASBENCH} | options)


def test_what_is_left_out_is_not_read():
    left = spaces.restricted(NASBENCH, ["none"], ["1→3=nor_conv_3x3"])
    text = "|skip_connect~0|+|{}~0|skip_connect~1|+|skip_connect~0|{}~1|skip_connect~2|"
    left.parse(text.format("nor_conv_1x1", "nor_conv_3x3"))
    with pytest.raises(ValueError, match=r"expected skip_connect or .* for 0→2 of cell, .* got 'none'"):
        left.parse(text.format("none", "nor_conv_3x3"))
    with pytest.raises(ValueError, match=r"expected nor_conv_3x3 for 1→3 of cell, .* got 'skip_connect'"):
        left.parse(text.format("nor_conv_1x1", "skip_connect"))
    assert spaces.restricted(NASBENCH) is NASBENCH


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        ("score-function", {"rounds": 2}),
        ("soft", {"rounds": 2, "mu": 0.5, "nu": 0.1}),
        ("hard", {"rounds": 1}),
        ("score-function", {"optimizer": "adam"}),
        ("soft", {"optimizer": "sgd"}),
    ],
)
def test_a_search_leaves_the_logits_of_what_is_left_out(estimator, options):
    """Also at the end of a round, and where limits turn the gradient."""
    space = spaces.restricted(ToySpace(), ["none"], ["0→2=nor_conv_3x3"])
    mask = np.asarray(space.alphas()["cell"]) == 0
    config = search.NASI(steps=5, batch=4, size=space.Size(2, 1), objective="one-batch", estimator=estimator, **options)
    price = LinearCost(0.0, {"cell": np.tile(np.arange(5.0), (6, 1))})
    state = config.init(space, limits=[(price, 5.0)])
    params = config.init_params(space, SOURCE, jax.random.key(0))
    step = jax.jit(lambda state, key: config.step(space, SOURCE, state, params, key))
    for number in range(config.steps):
        state, info = step(state, jax.random.key(number))
        assert np.isfinite(info.objective)
    logits = np.asarray(state.alphas["cell"])
    assert (logits[~mask] == spaces.IMPOSSIBLE).all()
    assert np.isfinite(logits[mask]).all()
    assert np.abs(logits[mask]).max() > 0
    assert (jax.nn.softmax(logits)[~mask] == 0).all()


def test_the_most_likely_architecture_within_limits_is_one_that_is_left():
    """The cheapest choice is left out, and the most likely one too dear."""
    space = spaces.restricted(NASBENCH, ["none"])
    price = LinearCost(0.0, {"cell": np.tile(np.arange(5.0), (6, 1))})
    alphas = {"cell": space.alphas()["cell"] + jnp.arange(5.0)[None]}

    def costs(genotype):
        return {"params": float(np.sum(genotype.operations))}

    for bound in (6.0, 11.0):
        found = search.most_likely(space, alphas, Limits(max_params=bound), costs, {"params": price})
        assert found.operations.min() >= 1
        assert costs(found)["params"] == bound
    with pytest.raises(ValueError, match="smallest seen is 6"):
        search.most_likely(space, alphas, Limits(max_params=5.0), costs, {"params": price})


def test_a_restricted_space_is_a_value():
    left = spaces.restricted(NASBENCH, ["none"])
    assert left == spaces.restricted(NASBENCH, ("none",)) != spaces.restricted(NASBENCH, ["skip_connect"])
    assert hash(left) == hash(dataclasses.replace(left))
    assert spaces.from_json(left, spaces.to_json(NASBENCH, left.at(0))) == left.at(0)
