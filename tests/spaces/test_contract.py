"""What every search space promises, for every space that is registered."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from nasi_jax import data, scores, search, spaces
from nasi_jax.nn import RUNNING_STATISTICS, STAGES, Style
from nasi_jax.programs import Execution

SEEDS = st.integers(0, 2**31 - 1)
CASES = {space.name: space for space in (*spaces.SPACES.values(), *toys.TOYS)}
CASES |= {
    "toy-tokens-restricted": spaces.restricted(toys.TokenSpace(), ["shift"], ["2=dense"]),
    "darts-none-restricted": spaces.restricted(spaces.DARTS(none=True), ["none", "avg_pool_3x3"]),
}


def cases():
    """Every space; of several that differ in their settings alone, those after the first are for the slow run."""
    seen = set()
    for name, space in sorted(CASES.items()):
        repeats = type(space) in seen and not isinstance(space, spaces.Restricted)
        yield pytest.param(name, marks=[pytest.mark.slow] * repeats)
        seen.add(type(space))


@pytest.fixture(params=cases(), scope="module")
def space(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def network(space):
    """Networks of the smallest size with three outputs, as a function of a genotype or None."""
    if isinstance(space, spaces.Restricted) and space.space not in toys.TOYS:
        pytest.skip("its networks are those of the space")
    return functools.partial(space.network, size=toys.smallest(space), outputs=3)


@pytest.fixture
def one_shot(space):
    """Whether there is a network of all architectures: what is said of it does not hold for other spaces."""
    if not space.one_shot:
        pytest.skip(f"{space.name} has no one-shot network")


def inputs(space, count, seed=0):
    return toys.small_noise(space).batch(jax.random.key(seed), count).x


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
    for name, used in choices(space, many(space)).items():
        assert (alphas[name][used.any(axis=0)] == 0).all()
        assert ((alphas[name] == 0) | (alphas[name] == spaces.IMPOSSIBLE)).all()


def test_spaces_are_hashable_and_equal_by_value(space):
    assert space == dataclasses.replace(space)
    assert hash(space) == hash(dataclasses.replace(space))


@settings(max_examples=50)
@given(seed=SEEDS)
def test_text_round_trip(space, seed):
    genotype = draw(space, seed)
    text = space.format(genotype)
    assert space.parse(text) == genotype
    assert space.format(space.parse(text)) == text


@settings(max_examples=50)
@given(seed=SEEDS)
def test_one_hot_round_trip(space, seed):
    genotype = draw(space, seed)
    weights = space.encode(genotype)
    assert jax.tree.structure(weights) == jax.tree.structure(space.alphas())
    for values in weights.values():
        assert set(np.unique(values)) <= {0.0, 1.0}
        assert (values.sum(axis=-1) <= 1).all()
    assert space.decode(weights) == genotype


@settings(max_examples=25)
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


@pytest.mark.parametrize(
    "change", [lambda a: a - a.max() - 1, lambda a: a + 99, lambda a: a[..., :-1], lambda a: a / 2]
)
def test_arrays_that_are_no_architecture_are_refused(space, network, change):
    """At the boundary, by their name; nothing is wrapped around or taken for another operation."""
    genotype = jax.tree.map(np.asarray, draw(space, 0))
    for name, array in vars(genotype).items():
        bad = dataclasses.replace(genotype, **{name: change(array)})
        for use in (space.format, space.encode, space.graph, space.canonical, network):
            with pytest.raises(ValueError, match=f"{name}: expected .*, got"):
                use(bad)
        record = spaces.to_json(space, genotype)
        record["arrays"] |= {name: change(array).tolist()}
        with pytest.raises(ValueError, match=f"expected arrays {name} .*, got"):
            spaces.from_json(space, record)
    with pytest.raises(TypeError, match="genotype: expected"):
        space.format("a text")


@settings(max_examples=50)
@given(seed=SEEDS)
def test_decisions_round_trip(space, seed):
    genotype = draw(space, seed)
    options = space.to_decisions(genotype)
    assert options.dtype == jnp.int32
    assert ((options >= 0) & (options < np.array(space.decisions))).all()
    assert space.from_decisions(options) == genotype
    other = jax.random.randint(jax.random.key(seed), options.shape, 0, np.array(space.decisions))
    np.testing.assert_array_equal(space.to_decisions(space.from_decisions(other)), other)


def test_places_are_those_of_the_enumeration(space):
    for place, genotype in enumerate(itertools.islice(space.enumerate(), 300)):
        assert space.at(place) == genotype
    last = space.at(space.cardinality - 1)
    np.testing.assert_array_equal(space.to_decisions(last), np.array(space.decisions) - 1)
    if space.cardinality <= np.iinfo(np.int32).max:
        drawn = many(space, 50)
        places = jax.jit(jax.vmap(space.index))(drawn)
        assert jax.vmap(space.at)(places) == drawn
        assert space.at(int(places[-1])) == jax.tree.map(lambda leaf: leaf[-1], drawn)
        assert space.index(last) == space.cardinality - 1
    else:
        with pytest.raises(ValueError, match="int32"):
            space.index(last)


def rows(genotypes):
    """Stacked genotypes as an array, a row each."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(genotypes)]
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in leaves], axis=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_are_all_that_differ_in_exactly_one_choice(space, seed):
    """Distinct, mutual, and with all but one of the ones of their one-hot weights."""
    genotype = draw(space, seed)
    around = jax.vmap(space.neighbour, in_axes=(None, 0))(genotype, jnp.arange(space.neighbours))
    assert len(np.unique(rows(around), axis=0)) == space.neighbours
    before = {name: np.asarray(values) for name, values in space.encode(genotype).items()}
    after = choices(space, around)
    ones = sum(int(values.sum()) for values in before.values())
    assert (sum(values.sum(axis=(1, 2)) for values in after.values()) == ones).all()
    assert (sum((before[name] * after[name]).sum(axis=(1, 2)) for name in before) == ones - 1).all()
    back = jax.vmap(jax.vmap(space.neighbour, in_axes=(None, 0)), in_axes=(0, None))(
        around, jnp.arange(space.neighbours)
    )
    is_home = jax.tree.map(lambda found, home: np.asarray(found) == np.asarray(home), back, genotype)
    everywhere = [leaf.reshape(*leaf.shape[:2], -1).all(axis=-1) for leaf in jax.tree.leaves(is_home)]
    assert (np.logical_and.reduce(everywhere).sum(axis=1) == 1).all()
    for i in range(0, space.neighbours, 7):
        mutant = jax.tree.map(lambda leaf, i=i: leaf[i], around)
        assert space.parse(space.format(mutant)) == mutant


@settings(max_examples=50)
@given(seed=SEEDS)
def test_a_child_takes_every_choice_from_a_parent(space, seed):
    first, second = draw(space, seed), draw(space, seed + 1)
    child = space.cross(jax.random.key(seed), first, second)
    a, b, c = (space.to_decisions(genotype) for genotype in (first, second, child))
    assert ((c == a) | (c == b)).all()
    assert space.parse(space.format(child)) == child
    assert space.cross(jax.random.key(seed), first, first) == first


def test_children_are_as_much_of_one_parent_as_of_the_other(space):
    a, b = np.zeros(len(space.decisions), np.int32), np.array(space.decisions, np.int32) - 1
    parents = space.from_decisions(jnp.array(a)), space.from_decisions(jnp.array(b))
    keys = jax.random.split(jax.random.key(0), 4000)
    children = jax.jit(jax.vmap(space.cross, in_axes=(0, None, None)))(keys, *parents)
    share = np.mean(np.asarray(jax.vmap(space.to_decisions)(children)) == a, axis=0)
    decided = a != b
    assert np.abs(share[decided] - 0.5).max() < 5 * 0.5 / np.sqrt(len(keys))


def test_sampling_is_uniform_over_choices(space):
    """Of every edge that is there and has several; columns that no genotype has do not count."""
    alphas = space.alphas()
    for name, drawn in choices(space, many(space)).items():
        counts = drawn.sum(axis=0)
        there = counts.sum(axis=1, keepdims=True)
        possible = (counts > 0).any(axis=0) & (np.asarray(alphas[name]) == 0)
        expected = possible / possible.sum(axis=1, keepdims=True)
        deviation = np.sqrt(there * expected * (1 - expected))
        assert (np.abs(counts - there * expected) <= 5 * deviation).all()


def test_mutation_is_uniform_over_all_neighbours(space):
    genotype = draw(space, 0)
    keys = jax.random.split(jax.random.key(1), 12000)
    mutants = jax.jit(jax.vmap(space.mutate, in_axes=(0, None)))(keys, genotype)
    reached = np.unique(rows(mutants), axis=0, return_counts=True)[1]
    assert len(reached) == space.neighbours
    expected = len(keys) / len(reached)
    assert np.abs(reached - expected).max() < 5 * np.sqrt(expected)


def test_the_enumeration_has_every_genotype_once(space):
    if space.cardinality > 30_000:
        pytest.skip(f"{space.name} is too large to list")
    assert len(set(space.enumerate())) == space.cardinality


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
    for edges in space.graph(draw(space, 3)).values():
        assert len({(edge.source, edge.target) for edge in edges}) == len(edges) > 0
        assert {name for edge in edges for name in edge.operation.split("+")} <= {*space.operations, ""}


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "|", "|none~0|", "\n", "Genotype()", "1" + "+1" * 20_000, "[" * 500,
     f"Genotype(normal={'-' * 999}1, reduce=2)",
     "\0", "{**a}", "Genotype(*a)", "tensor()", "[[], []]", "None", "0.1_", "1if 2else 3"],
)  # fmt: skip
def test_malformed_text_is_refused(space, text):
    with pytest.raises(ValueError, match="expected"):
        space.parse(text)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_shot_at_one_hot_weights_is_the_derived_network(one_shot, space, network, seed, affine, x64):
    genotype, style = draw(space, seed), Style(affine)
    whole, derived = (network(g, style=style) for g in (None, genotype))
    x = inputs(space, 3, seed)
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), space.encode(genotype))
    parameters = whole.init(jax.random.key(seed), x, weights)["params"]
    like = jax.eval_shape(derived.init, jax.random.key(0), x)["params"]
    expected, left = derived.apply({"params": spaces.restrict(parameters, like)}, x, mutable=[STAGES])
    assert expected.shape == (3, 3)
    for discrete in ("no", "one-hot", "branches"):
        module = network(None, style=style, execution=Execution(discrete))
        outputs, stages = module.apply({"params": parameters}, x, weights, mutable=[STAGES])
        np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-9)
        for name, maps in left.get(STAGES, {}).items():
            np.testing.assert_allclose(stages[STAGES][name], maps, rtol=1e-9, atol=1e-9)


def test_the_ends_of_three_stages_are_left_where_the_network_says_so(space, network):
    """The later the smaller, and of shapes that the architecture does not change, so that one training fits all."""
    found = set()
    for seed in range(3):
        module = network(draw(space, seed), style=Style(bare_cells=True))

        def left(key, x, module=module):
            return module.apply(module.init(key, x), x, mutable=[STAGES, RUNNING_STATISTICS])[1]

        stages = jax.eval_shape(left, jax.random.key(0), inputs(space, 2)).get(STAGES, {})
        assert bool(stages) == ("stages" in module.capabilities)
        if stages:
            assert sorted(stages) == ["stage_0", "stage_1", "stage_2"]
            shapes = [stages[name].shape for name in sorted(stages)]
            assert [len(shape) for shape in shapes] == [4, 4, 4]
            sides = [shape[1:3] for shape in shapes]
            assert sides == sorted(sides, reverse=True)
            found.add(tuple(shapes))
    assert len(found) <= 1


def test_programs_branch_where_the_network_says_so(one_shot, space, network):
    module = network(None, style=Style(affine=False), execution=Execution("branches"))
    x, weights = inputs(space, 2), space.encode(draw(space, 0))
    parameters = jax.eval_shape(module.init, jax.random.key(0), x, weights)
    program = str(jax.make_jaxpr(module.apply)(parameters, x, weights))
    assert ("branches=" in program) == ("branches" in module.capabilities)


def test_derived_parameters_are_drawn_like_the_one_shot_ones(one_shot, space, network):
    """Same names and shapes, hence the same draws: a derived network is a part of the one-shot network."""
    genotype, x, style = draw(space, 4), inputs(space, 2), Style(affine=False)
    derived = network(genotype, style=style).init(jax.random.key(0), x)["params"]
    whole = network(None, style=style).init(jax.random.key(0), x, space.encode(genotype))["params"]
    for a, b in zip(jax.tree.leaves(derived), jax.tree.leaves(spaces.restrict(whole, derived)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_noise_fits_the_published_size_and_that_of_a_search(space):
    noise = space.noise(7)
    noise.check_batch(2)
    for size in (space.Size(), space.search_size):
        genotype, more = (None, (space.alphas(),)) if space.one_shot else (draw(space, 0), ())
        module = space.network(genotype, size, noise.outputs)
        outputs, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), data.shapes(noise, 2).x, *more)
        assert outputs.shape == (2, 7)
    with pytest.raises(ValueError, match="batch: expected"):
        noise.check_batch(0)


def test_unknown_space_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        spaces.get("nasbench102")


def test_bad_sizes_are_refused(space):
    for field in dataclasses.fields(space.Size):
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            with pytest.raises(ValueError, match=f"{field.name}: expected"):
                space.Size(**{field.name: 0})
    with pytest.raises(ValueError, match="outputs: expected"):
        space.network(draw(space, 0), space.Size(), 0)


def test_who_needs_a_one_shot_network_is_told_where_there_is_none(space, network):
    if space.one_shot:
        assert network(None).capabilities == network(draw(space, 0)).capabilities
        return
    noise, strategy = toys.small_noise(space), search.NASI(size=toys.smallest(space), batch=2)
    scored = ["naswot"], scores.ScoreConfig(toys.smallest(space), 2)
    for use in (
        lambda: network(None),
        lambda: search.check(space, noise, strategy),
        lambda: scores.Scorer(space, noise, *scored, compilation="space"),
        lambda: scores.Scorer(space, noise, *scored, per_device=2),
    ):
        with pytest.raises(ValueError, match="expected one with a one-shot network"):
            use()


def test_notations_are_written_by_name(space):
    genotype = draw(space, 0)
    assert space.writer(None)(genotype) == space.format(genotype)
    for name, write in space.notations.items():
        assert space.writer(name)(genotype) == write(genotype)
    with pytest.raises(ValueError, match=r"format: expected .* of .*'s notations, got 'morse'"):
        space.writer("morse")


def test_other_notations_name_the_same_architecture(space):
    for write in space.notations.values():
        for seed in range(5):
            genotype = draw(space, seed)
            assert space.canonical(space.parse(write(genotype))) == space.canonical(genotype)
            assert space.listed(space.parse(write(genotype))) == space.listed(genotype)


def test_inputs_of_another_kind_are_refused(space, network):
    with pytest.raises(ValueError, match="x: expected"):
        jax.eval_shape(network(draw(space, 0)).init, jax.random.key(0), jnp.zeros((2, 3)))


def test_enumeration_is_in_order_and_without_repetition(space):
    first = list(itertools.islice(space.enumerate(), 300))
    assert len(set(first)) == min(300, space.cardinality)
    assert first == list(itertools.islice(space.enumerate(), 300))
    assert {space.parse(space.format(g)) for g in first[:20]} == set(first[:20])


def test_canonical_names_are_equal_for_equal_genotypes(space):
    assert space.canonical(draw(space, 0)) == space.canonical(space.parse(space.format(draw(space, 0))))


def test_a_tracked_network_evaluates_every_sample_alone(space, network):
    """Training updates the running statistics of every normalisation, and evaluation uses no other ones."""
    module, x = network(draw(space, 1)), inputs(space, 6, 1)
    variables = {"params": module.init(jax.random.key(0), x)["params"]}
    outputs, tracked = module.apply(variables, x, mutable=[RUNNING_STATISTICS])
    np.testing.assert_allclose(outputs, module.apply(variables, x), rtol=1e-5, atol=1e-5)
    whole = module.apply(variables | tracked, x)
    halves = [
        module.apply(variables | tracked, data.map_examples(lambda leaf, part=part: leaf[part], x))
        for part in (slice(3), slice(3, None))
    ]
    np.testing.assert_allclose(whole, jnp.concatenate(halves), rtol=1e-4, atol=1e-5)
    if jax.tree.leaves(tracked):
        assert not np.allclose(whole, outputs, atol=1e-2)
