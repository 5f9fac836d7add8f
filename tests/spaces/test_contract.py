"""What every search space promises, for every space that is registered."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasi_jax import spaces
from nasi_jax.nn import RUNNING_STATISTICS

SEEDS = st.integers(0, 2**31 - 1)
SIZES = {"nasbench201": {"channels": 4, "cells": 1, "classes": 3}}
NEIGHBOURS = {
    "nasbench201": 6 * 4,
    "nasbench1shot1-s1": 4 * 2 + 2 + 5 + 9,
    "nasbench1shot1-s2": 4 * 2 + 1 + 2 + 5 + 9,
    "nasbench1shot1-s3": 5 * 2 + 1 + 2 + 5 + 9 + 14,
    "darts": 16 * 6 + 24,
    "darts-none": 16 * 6 + 24,
}
"""Architectures that differ in an operation, in DARTS in an input of a node, or in the set of nodes that one reads."""
LEFT_OUT = {"darts": {"normal": 6, "reduction": 6}, "darts-none": {"normal": 6, "reduction": 6}}
"""Edges that a genotype lacks."""
COUNTED = {"nasbench201": 15625, "nasbench1shot1-s1": 14580, "nasbench1shot1-s2": 29160}
"""Spaces small enough to count."""
SMALLEST = {"channels": 2, "cells": 3, "classes": 3}


@pytest.fixture(params=sorted(spaces.SPACES), scope="module")
def space(request):
    return spaces.get(request.param)


@pytest.fixture(scope="module")
def size(space):
    return SIZES.get(space.name, SMALLEST)


def draw(space, seed):
    return space.sample(jax.random.key(seed))


def many(space, count=4000):
    return jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), count))


def choices(space, genotypes):
    """One-hot weights of stacked genotypes, for each kind of choice (genotypes, rows, columns)."""
    return {name: np.asarray(values) for name, values in jax.vmap(space.encode)(genotypes).items()}


def test_alphas_are_zero_and_shaped_like_the_names(space):
    alphas = space.alphas()
    named = {name: (len(space.edges[name]), len(space.choices[name])) for name in space.edges}
    assert named == {name: values.shape for name, values in alphas.items()}
    assert all((values == 0).all() for values in alphas.values())


def test_spaces_are_hashable_and_equal_by_value(space):
    assert space == dataclasses.replace(space)
    assert hash(space) == hash(dataclasses.replace(space))


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_text_round_trip(space, seed):
    genotype = draw(space, seed)
    text = space.format(genotype)
    assert space.parse(text) == genotype
    assert space.format(space.parse(text)) == text


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_one_hot_round_trip(space, seed):
    genotype = draw(space, seed)
    weights = space.encode(genotype)
    assert jax.tree.structure(weights) == jax.tree.structure(space.alphas())
    for values in weights.values():
        assert set(np.unique(values)) <= {0.0, 1.0}
        assert (values.sum(axis=-1) <= 1).all()
    there = {name: len(values) - LEFT_OUT.get(space.name, {}).get(name, 0) for name, values in weights.items()}
    assert {name: int(values.sum()) for name, values in weights.items()} == there
    assert space.decode(weights) == genotype


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_json_round_trip(space, seed):
    genotype = draw(space, seed)
    record = json.loads(json.dumps(spaces.to_json(space, genotype)))
    assert spaces.from_json(space, record) == genotype


def test_json_refuses_what_contradicts_itself(space):
    record = spaces.to_json(space, draw(space, 0))
    other = next(g for g in (draw(space, i) for i in range(1, 20)) if g != draw(space, 0))
    with pytest.raises(ValueError, match="do not say"):
        spaces.from_json(space, record | {"genotype": space.format(other)})
    with pytest.raises(ValueError, match="space"):
        spaces.from_json(space, record | {"space": "elsewhere"})
    with pytest.raises(ValueError, match="lacks"):
        spaces.from_json(space, {"space": space.name})
    with pytest.raises(ValueError, match="lacks"):
        spaces.from_json(space, [])


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_mutation_changes_exactly_one_choice(space, seed):
    genotype = draw(space, seed)
    mutant = space.mutate(jax.random.key(seed + 1), genotype)
    before, after = space.encode(genotype), space.encode(mutant)
    ones = sum(int(values.sum()) for values in before.values())
    assert sum(int(values.sum()) for values in after.values()) == ones
    assert sum(int((before[name] * after[name]).sum()) for name in before) == ones - 1
    assert space.parse(space.format(mutant)) == mutant


def test_sampling_is_uniform_over_choices(space):
    """Of every edge that is there; columns that no genotype has do not count."""
    for name, drawn in choices(space, many(space)).items():
        counts = drawn.sum(axis=0)
        there = counts.sum(axis=1, keepdims=True)
        used = (counts > 0).any(axis=0)
        assert used.sum() == len(space.choices[name]) - (space.name == "darts-none")
        expected = 1 / used.sum()
        deviation = np.sqrt(there * expected * (1 - expected))
        assert (np.abs(counts[:, used] - there * expected) < 5 * deviation).all()


def test_mutation_is_uniform_over_all_neighbours(space):
    genotype = draw(space, 0)
    keys = jax.random.split(jax.random.key(1), 12000)
    mutants = jax.jit(jax.vmap(space.mutate, in_axes=(0, None)))(keys, genotype)
    flat = np.concatenate([np.reshape(leaf, (len(keys), -1)) for leaf in jax.tree.leaves(mutants)], axis=1)
    reached = np.unique(flat, axis=0, return_counts=True)[1]
    assert len(reached) == NEIGHBOURS[space.name]
    expected = len(keys) / len(reached)
    assert np.abs(reached - expected).max() < 5 * np.sqrt(expected)


def test_the_size_is_the_number_of_genotypes(space):
    assert (space.size < 10**6) == (space.name in COUNTED)
    if space.name in COUNTED:
        assert len(set(space.enumerate())) == space.size == COUNTED[space.name]


def test_jit_and_vmap_agree_with_eager(space):
    keys = jax.random.split(jax.random.key(2), 8)
    stacked = jax.jit(jax.vmap(space.sample))(keys)
    for i, key in enumerate(keys):
        assert jax.tree.map(lambda leaf, i=i: leaf[i], stacked) == space.sample(key)
    decoded = jax.jit(jax.vmap(lambda g: space.decode(space.encode(g))))(stacked)
    assert decoded == stacked


def test_genotypes_compare_and_hash_by_value(space):
    first, second = draw(space, 0), draw(space, 0)
    assert first == second
    assert hash(first) == hash(second)
    assert len({space.format(draw(space, i)) for i in range(50)}) == len({draw(space, i) for i in range(50)})
    assert first != "text"


def test_graph_names_every_edge_once(space):
    graph = space.graph(draw(space, 3))
    of_blocks = space.name.startswith("nasbench1shot1")  # whose edges have no choice of their own
    assert set(graph) == ({"cell"} if of_blocks else set(space.edges))
    for edges in graph.values():
        assert len({(edge.source, edge.target) for edge in edges}) == len(edges) > 0
        assert {edge.operation for edge in edges if not (of_blocks and edge.target == "output")} <= {*space.operations}


@pytest.mark.parametrize("text", ["", "nonsense", "|", "|none~0|", "\n", "Genotype()"])
def test_malformed_text_is_refused(space, text):
    with pytest.raises(ValueError, match="expected"):
        space.parse(text)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_shot_at_one_hot_weights_is_the_derived_network(space, size, seed, affine, x64):
    genotype = draw(space, seed)
    one_shot = space.one_shot(**size, affine=affine)
    network = space.network(genotype, **size, affine=affine)
    x = jax.random.normal(jax.random.key(seed), (3, 8, 8, 3), jnp.float64)
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), space.encode(genotype))
    parameters = one_shot.init(jax.random.key(seed), x, weights)["params"]
    like = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    expected = network.apply({"params": spaces.restrict(parameters, like)}, x)
    for discrete in ("no", "one-hot", "branches"):
        module = space.one_shot(**size, affine=affine, discrete=discrete)
        logits = module.apply({"params": parameters}, x, weights)
        np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)


def test_programs_branch_where_the_space_says_so(space, size):
    module = space.one_shot(**size, discrete="branches")
    x, weights = jnp.zeros((2, 8, 8, 3)), space.encode(draw(space, 0))
    parameters = jax.eval_shape(module.init, jax.random.key(0), x, weights)
    program = str(jax.make_jaxpr(module.apply)(parameters, x, weights))
    assert ("branches=" in program) == space.branches


def test_derived_parameters_are_drawn_like_the_one_shot_ones(space, size):
    """Same names and shapes, hence the same draws: a derived network is a part of the one-shot network."""
    genotype = draw(space, 4)
    x = jnp.zeros((2, 8, 8, 3))
    network = space.network(genotype, **size, affine=False)
    one_shot = space.one_shot(**size)
    derived = network.init(jax.random.key(0), x)["params"]
    whole = one_shot.init(jax.random.key(0), x, space.encode(genotype))["params"]
    for a, b in zip(jax.tree.leaves(derived), jax.tree.leaves(spaces.restrict(whole, derived)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_space_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        spaces.get("nasbench102")


@pytest.mark.parametrize(
    "bad", [{"channels": 0}, {"cells": -1}, {"classes": 0}, {"parameterisation": "mup"}, {"normalisation": "layer"}]
)
def test_bad_sizes_are_refused(space, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        space.one_shot(**bad)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 6, 8, 3), (0, 8, 8, 3)])
def test_bad_images_are_refused(space, shape):
    with pytest.raises(ValueError, match="x: expected images"):
        jax.eval_shape(space.network(draw(space, 0)).init, jax.random.key(0), jnp.zeros(shape))


def test_enumeration_is_in_order_and_without_repetition(space):
    first = list(itertools.islice(space.enumerate(), 300))
    assert len(set(first)) == 300
    assert first == list(itertools.islice(space.enumerate(), 300))
    assert {space.parse(space.format(g)) for g in first[:20]} == set(first[:20])


def test_canonical_names_are_equal_for_equal_genotypes(space):
    assert space.canonical(draw(space, 0)) == space.canonical(space.parse(space.format(draw(space, 0))))


def test_a_tracked_network_evaluates_every_sample_alone(space, size):
    """Training updates the running statistics of every normalisation, and evaluation uses no other ones."""
    network = space.network(draw(space, 1), **size)
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
    variables = {"params": network.init(jax.random.key(0), x)["params"]}
    logits, tracked = network.apply(variables, x, mutable=[RUNNING_STATISTICS])
    np.testing.assert_allclose(logits, network.apply(variables, x), rtol=1e-5, atol=1e-5)
    whole = network.apply(variables | tracked, x)
    halves = [network.apply(variables | tracked, part) for part in jnp.split(x, 2)]
    np.testing.assert_allclose(whole, jnp.concatenate(halves), rtol=1e-4, atol=1e-5)
    assert not np.allclose(whole, logits, atol=1e-2)
