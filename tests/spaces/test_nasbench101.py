"""NAS-Bench-101 against its table of parameters, its hash of a cell, and a network written the plain way."""

import collections
import csv
import gzip
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file
from nasbench101_cases import nasbench101_hash

from nasi_jax import data, proxies, scores, spaces
from nasi_jax.nn import Style
from nasi_jax.spaces.nasbench101_network import vertex_channels
from nasi_jax.spaces.nasbench101_text import OPERATIONS, ModelSpec

SPACE = spaces.NASBench101()
NASLIB = {"input": 0, "output": 1, "maxpool3x3": 2, "conv1x1-bn-relu": 3, "conv3x3-bn-relu": 4}
TEXT = (
    "ModelSpec(matrix=[[0, 1, 1, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], "
    "ops=['input', 'conv3x3-bn-relu', 'maxpool3x3', 'conv1x1-bn-relu', 'output'])"
)


def drawn(count):
    genotypes = jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(0), count))
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), genotypes) for i in range(count)]


def parameters(matrix, operations, channels=128, cells=3, outputs=10):
    """Counted by hand: a scale and a shift beside every convolution, a bias in the head."""
    total, before = 9 * 3 * channels + 2 * channels, channels
    last = len(matrix) - 1
    for features in np.repeat(channels * 2 ** np.arange(3), cells):
        found = vertex_channels(matrix, before, features)
        for vertex in range(1, last):
            total += (before + 2) * found[vertex] * matrix[0, vertex]
            window = {"conv1x1-bn-relu": 1, "conv3x3-bn-relu": 9}.get(operations[vertex])
            total += window * found[vertex] ** 2 + 2 * found[vertex] if window else 0
        total += (before + 2) * features * matrix[0, last]
        before = features
    return total + (before + 1) * outputs


def test_cells_have_at_most_nine_edges_and_a_path():
    sizes = collections.Counter()
    for genotype in drawn(1000):
        matrix, operations = SPACE.spec(genotype)
        assert matrix.sum() <= 9
        assert matrix[:-1].any(axis=1).all()
        assert matrix[:, 1:].any(axis=0).all()
        assert not np.tril(matrix).any()
        sizes[len(operations), int(matrix.sum())] += 1
    assert {vertices for vertices, _ in sizes} == set(range(2, 8))
    assert {count for _, count in sizes} == set(range(1, 10))


def connected(side, bits):
    """A matrix without loose ends, or None."""
    matrix = np.zeros((side, side), int)
    matrix[np.triu_indices(side, 1)] = bits
    whole = matrix[:-1].any(axis=1).all() and matrix[:, 1:].any(axis=0).all() and matrix.sum() <= 9
    return matrix if whole else None


def test_there_are_as_many_cells_of_few_vertices_as_published():
    """1, 7, 91 and 2,532 of up to 2, 3, 4 and 5 vertices, by the log of the authors' enumeration."""
    found, counts = set(), []
    for side in range(2, 6):
        for bits in itertools.product((0, 1), repeat=side * (side - 1) // 2):
            matrix = connected(side, bits)
            if matrix is not None:
                inner = itertools.product(OPERATIONS, repeat=side - 2)
                specs = [ModelSpec(matrix, ("input", *operations, "output")) for operations in inner]
                assert SPACE.format(SPACE.parse(specs[0].model_spec())) == specs[0].model_spec()
                found |= {spec.canonical().model_spec() for spec in specs}
        counts.append(len(found))
    assert counts == [1, 7, 91, 2532]


@pytest.mark.parametrize("side", [6, 7])
def test_large_cells_have_a_genotype(side):
    rng, found = np.random.default_rng(0), set()
    while len(found) < 100:
        matrix = connected(side, rng.random(side * (side - 1) // 2) < 0.5)
        if matrix is not None:
            text = ModelSpec(matrix, ("input", *rng.choice(OPERATIONS, side - 2).tolist(), "output")).model_spec()
            assert SPACE.format(SPACE.parse(text)) == text
            found.add(text)


def test_canonical_names_are_equal_where_the_benchmark_takes_cells_for_equal():
    pairs = {(SPACE.canonical(genotype), nasbench101_hash(*SPACE.spec(genotype))) for genotype in drawn(1500)}
    names, hashes = zip(*pairs, strict=True)
    assert len(pairs) == len(set(names)) == len(set(hashes)) > 700


def test_cells_in_another_order_of_vertices_are_one_entry():
    first = SPACE.parse(TEXT.replace("'maxpool3x3'", "'conv1x1-bn-relu'"))
    matrix, operations = SPACE.spec(first)
    order = [0, 1, 3, 2, 4]
    second = SPACE.parse(ModelSpec(matrix[np.ix_(order, order)], operations).model_spec())
    assert first != second
    assert SPACE.canonical(first) == SPACE.canonical(second) == SPACE.listed(second)


def test_the_published_cells_have_the_published_parameters():
    with gzip.open(shared_file("transfer/nasbench101_500.csv.gz"), "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    for row in rows:
        matrix, operations = SPACE.spec(SPACE.parse(row["arch"]))
        assert parameters(matrix, operations) / 1e6 == pytest.approx(float(row["params"]), abs=1e-9)
    counter = scores.Counter(SPACE, data.shapes(SPACE.noise(), 2).x, SPACE.Size(), 10)
    for row in rows[:4]:
        assert counter(SPACE.parse(row["arch"]))["params"] == pytest.approx(float(row["params"]) * 1e6)


def test_vertices_share_the_channels_of_the_output():
    """Three that the output reads share 16 as 6, 5 and 5; one before them has as many as the largest that reads it."""
    matrix = np.zeros((6, 6), int)
    for edge in ((0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5)):
        matrix[edge] = 1
    assert vertex_channels(matrix, 8, 16) == [8, 6, 6, 5, 5, 16]
    assert vertex_channels(np.array([[0, 1], [0, 0]]), 8, 16) == [8, 16]


def plain(params, matrix, operations, x, features):
    """A cell by NumPy, convolutions of 1x1 alone: projections, truncation, sums, concatenation."""

    def conv_norm_relu(name, x):
        y = x @ np.asarray(params[name]["conv"]["conv"]["kernel"][0, 0])
        y = (y - y.mean(axis=(0, 1, 2))) / np.sqrt(y.var(axis=(0, 1, 2)) + 1e-5)
        return np.maximum(y, 0)

    last, nodes = len(matrix) - 1, {}
    channels = vertex_channels(matrix, x.shape[-1], features)
    for vertex in range(1, last):
        total = conv_norm_relu(f"input_to_{vertex}", x) if matrix[0, vertex] else 0
        for source in range(1, vertex):
            if matrix[source, vertex]:
                total = total + nodes[source][..., : channels[vertex]]
        nodes[vertex] = conv_norm_relu(f"vertex_{vertex}", total)
    output = np.concatenate([nodes[v] for v in range(1, last) if matrix[v, last]], axis=-1) if last > 1 else 0
    return output + (conv_norm_relu("input_to_output", x) if matrix[0, last] else 0)


@pytest.mark.parametrize("with_input", [0, 1])
def test_the_network_is_the_benchmarks(x64, with_input):
    matrix = np.array([[0, 1, 1, 0, with_input], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    operations = ("input", *["conv1x1-bn-relu"] * 3, "output")
    genotype = SPACE.parse(f"ModelSpec(matrix={matrix.tolist()}, ops={list(operations)})")
    module = SPACE.network(genotype, SPACE.Size(5, 1), 3)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = module.init(jax.random.key(1), x)["params"]
    kernel = np.asarray(params["stem"]["conv"]["kernel"])
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    y = np.maximum((y - y.mean(axis=(0, 1, 2))) / np.sqrt(y.var(axis=(0, 1, 2)) + 1e-5), 0)
    for stack in range(3):
        if stack:
            y = y.reshape(2, y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).max(axis=(2, 4))
        y = plain(params[f"stack_{stack}_cell_0"], matrix, operations, y, 5 * 2**stack)
    expected = y.mean(axis=(1, 2)) @ np.asarray(params["head"]["kernel"])
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'maxpool3x3'", "'avgpool3x3'", "got 'avgpool3x3'"),
        ("[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]", "[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]", r"a one at \(4, 3\)"),
        ("[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]", "[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]", None),
        ("[[0, 1, 1, 0, 1]", "[[0, 0, 0, 0, 0]", "a path from input to output, there is none"),
        ("ops=['input', ", "ops=[", "from 'input' to 'output'"),
    ],
)
def test_what_is_no_cell_is_refused(old, new, message):
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if message is None:  # loose ends are left out, and what is left is a cell
        assert SPACE.format(SPACE.parse(text)) == "ModelSpec(matrix=[[0, 1], [0, 0]], ops=['input', 'output'])"
        return
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_cells_of_too_many_edges_or_vertices_are_refused():
    everything = np.triu(np.ones((7, 7), int), 1)
    names = ["input", *["maxpool3x3"] * 5, "output"]
    with pytest.raises(ValueError, match="at most 9 edges on paths from input to output, got 21"):
        SPACE.parse(f"ModelSpec(matrix={everything.tolist()}, ops={names})")
    numbers = (*everything.ravel().tolist(), *(NASLIB[name] for name in names))
    with pytest.raises(ValueError, match="at most 9 edges"):
        SPACE.parse(str(numbers))
    with pytest.raises(ValueError, match="2 or 3 or 4 or 5 or 6 or 7 names"):
        SPACE.parse(f"ModelSpec(matrix=[[0]], ops={['input', *['maxpool3x3'] * 6, 'output']})")
    with pytest.raises(ValueError, match="operations 0, the input, then numbers from 2 on"):
        SPACE.parse("(0, 1, 0, 0, 1, 1)")
    with pytest.raises(ValueError, match="expected 6 or 12 or"):
        SPACE.parse("(3, 1, 2)")


def test_decisions_that_give_another_cell_are_refused():
    other = np.asarray(SPACE.to_decisions(drawn(1)[0])).tolist()
    with pytest.raises(ValueError, match="expected decisions of the cell"):
        SPACE.parse(TEXT[:-1] + f", decisions={other})")
    with pytest.raises(ValueError, match="expected decisions as 15 numbers"):
        SPACE.parse(TEXT[:-1] + ", decisions=[1])")
    with pytest.raises(ValueError, match="expected decisions from 0"):
        SPACE.parse(TEXT[:-1] + f", decisions={[99] * 15})")


def test_the_table_repeats_cells_whose_figures_are_averaged(tmp_path):
    from nasi_jax.tabular import Table

    first = TEXT.replace("'maxpool3x3'", "'conv1x1-bn-relu'")
    matrix, operations = SPACE.spec(SPACE.parse(first))
    swapped = matrix[np.ix_([0, 1, 3, 2, 4], [0, 1, 3, 2, 4])]
    second = f"ModelSpec(matrix={swapped.tolist()}, ops={list(operations)})"
    (tmp_path / "table.csv").write_text(f'arch;top1\n"{first}";91\n"{second}";93\n"{TEXT}";90\n|none~0|;1\n')
    table = Table.read(tmp_path / "table.csv", ["top1"])
    with pytest.raises(ValueError, match="expected every architecture once"):
        table.rows_of(SPACE)
    merged = Table.read(tmp_path / "table.csv", ["top1"], SPACE)
    assert merged.lookup([second, TEXT], SPACE)["top1"].tolist() == [92.0, 90.0]
    assert len(merged.rows) == 2
    evaluator = scores.TableEvaluator(SPACE, merged)
    assert [row["top1"] for row in evaluator.stream([SPACE.parse(first)])] == [92.0]


@pytest.mark.parametrize("double", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scores_of_a_space_without_a_one_shot_network_are_those_of_the_derived_one(double):
    names = ("ntk-one-batch", "params", *["synflow"] * double)
    config = scores.ScoreConfig(SPACE.Size(5, 1), batch=4)
    scorer = scores.Scorer(SPACE, data.Gaussian((8, 8, 3), 4), names, config)
    draw = scorer.draw(0)
    genotype = SPACE.parse("(0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 4, 1)")
    found = scorer.score(draw, [genotype])[0]
    module = SPACE.network(genotype, config.size, 4)
    params = module.init(draw.params, draw.batch.x)["params"]  # one by one, as the scorer draws, to the last digit
    x, y = draw.batch

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean(data.cross_entropy(module.apply({"params": p}, x), y)))(params)

    expected = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient(params)))
    assert found["ntk-one-batch"] == pytest.approx(expected, rel=1e-4)
    assert found["params"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    if double:
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
            bare = SPACE.network(genotype, config.size, 4, Style(normalisation="fixed"))
            flow = proxies.synflow(lambda p, x: bare.apply({"params": p}, x), wide, x.astype(jnp.float64))
        assert found["synflow"] == pytest.approx(float(flow), rel=1e-10)
