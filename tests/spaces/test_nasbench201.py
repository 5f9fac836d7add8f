import csv
import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nasi_jax import spaces
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces.nasbench201_network import EDGES, OPERATIONS, Cell

SPACE = spaces.NASBench201()
ALL_CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parameter_count(text):
    network = SPACE.network(SPACE.parse(text), SPACE.Size(), 10)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_benchmarks_order_of_operations_and_edges():
    genotype = SPACE.parse("|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|")
    assert genotype.operations.tolist() == [0, 1, 2, 3, 4, 0]
    assert EDGES == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|+|none~0|none~1|", "3 nodes"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "node 3"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "node 1"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "operation~0"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'conv'"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "operation~0"),
    ],
)
def test_malformed_arch_strings_say_where(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"


@pytest.mark.parametrize(
    "text",
    [
        f" '{CELL}',",
        f"genotype = {CELL}",
        f"03/14 10:12:12 PM | arch = {CELL}",
        f"[2020-01-01] INFO arch: Structure(4 nodes with {CELL})",
        CELL.replace("|", " | "),
        "|nor_conv_3x3~0|+|none~1|skip_connect~0|+|avg_pool_3x3~2|none~0|nor_conv_1x1~1|",
        "[[('nor_conv_3x3', 0)], [('skip_connect', 0), ('none', 1)], "
        "[('avg_pool_3x3', np.int64(2)), ('none', 0), ('nor_conv_1x1', tensor(1))]]",
        # NASLib: skip, none, 3x3, 1x1, pool for the edges 0-1, 0-2, 0-3, 1-2, 1-3, 2-3
        "(2, 0, 1, 1, 3, 4)",
        "06/21 10:12:13 AM arch = (np.int64(2), 0, tensor(1), 1, 3, 4)",
    ],
)
def test_a_cell_in_many_notations(text):
    assert SPACE.parse(text) == SPACE.parse(CELL)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        # those that the authors' code checks, then a best and the worst cell of the published table
        ("0", "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"),
        ("arch-index = 9", "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"),
        ("np.int64(123)", "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"),
    ],
)
def test_indices_of_the_benchmark(index, text):
    assert SPACE.format(SPACE.parse(index)) == text


def test_indices_are_those_of_the_published_table(benchmark_table):
    with gzip.open(benchmark_table, "rt") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:: len(rows) // 40]:
        assert SPACE.format(SPACE.parse(row["index"])) == row["arch"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15625", "0 to 15624, got 15625"),
        ("-1", "0 to 15624, got -1"),
        ("True", "expected an arch string"),
        ("12:30", "expected an arch string"),
        ("hello 7", "expected an arch string"),
        ("(4, 3, 2, 1, 0, 5)", "numbers from 0 to 4"),
        ("(4, 3, 2, 1, 0, 3.0)", "numbers from 0 to 4"),
        ("(4, 3, 2, 1, 0)", "expected an arch string"),
        ("range(10**12)", "got range"),
        ("__import__('os')", "got __import__"),
        ("[4, 3, 2, 1, 0, 3]", r"nor_conv_3x3~2\|' in the benchmark's order, .*nor_conv_1x1~2\|' in NASLib's"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "'operation~0' once in node 2"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|skip_conect~2|", "did you mean 'skip_connect'"),
    ],
)
def test_other_notations_say_what_was_expected(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_six_numbers_of_which_both_readings_are_one_cell():
    assert SPACE.parse("[4, 4, 4, 4, 4, 4]") == SPACE.parse("(4, 4, 4, 4, 4, 4)")


def test_parameter_counts_of_all_cells_equal_the_published_ones(benchmark_table):
    """Counted on one cell for each number of operations of each kind, and by the resulting formula on all 15,625."""
    base = parameter_count("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    per_edge = {
        operation: parameter_count(f"|{operation}~0|+|none~0|none~1|+|none~0|none~1|none~2|") - base
        for operation in OPERATIONS
    }
    with gzip.open(benchmark_table, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15_625
    counted = np.array([
        base + sum(per_edge[OPERATIONS[i]] for i in SPACE.parse(row["arch"]).operations.tolist()) for row in rows
    ])
    published = np.array([float(row["params_m"]) for row in rows])
    np.testing.assert_array_equal(np.round(counted / 1e6, 6), published)
    for row in rows[:: len(rows) // 5]:
        assert parameter_count(row["arch"]) / 1e6 == float(row["params_m"])


def reference_cell(x, text, parameters):
    """The cell edge by edge with Flax's own layers."""

    def norm(y):
        layer = nn.BatchNorm(use_running_average=False, epsilon=1e-5, use_bias=False, use_scale=False)
        return layer.init_with_output(jax.random.key(0), y)[0]

    def operation(name, y, key):
        if name == "none":
            return jnp.zeros_like(y)
        if name == "skip_connect":
            return y
        if name == "avg_pool_3x3":
            return nn.avg_pool(y, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)
        window = 3 if name == "nor_conv_3x3" else 1
        layer = nn.Conv(y.shape[-1], (window, window), padding=window // 2, use_bias=False)
        return norm(layer.apply({"params": {"kernel": parameters[key]["kernel"]}}, nn.relu(y)))

    names = [OPERATIONS[i] for i in SPACE.parse(text).operations.tolist()]
    nodes = [x]
    for target in (1, 2, 3):
        total = jnp.zeros_like(x)
        for (source, end), name in zip(EDGES, names, strict=True):
            if end == target:
                total = total + operation(name, nodes[source], f"edge_{source}_{end}_{name}")
        nodes.append(total)
    return nodes[3]


@pytest.mark.parametrize(
    "text",
    [
        ALL_CONVOLUTIONS,
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|",
        "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_a_cell_computes_what_the_benchmark_defines(text, x64):
    choices = tuple(SPACE.parse(text).operations.tolist())
    cell = Cell(5, choices, style=Style(affine=False))
    x = jax.random.normal(jax.random.key(1), (4, 8, 6, 5), jnp.float64)
    parameters = cell.init(jax.random.key(0), x).get("params", {})
    got = cell.apply({"params": parameters}, x)
    np.testing.assert_allclose(got, reference_cell(x, text, parameters), rtol=1e-9, atol=1e-9)


def test_one_shot_mixes_operations_by_their_weights(x64):
    """A soft mixture is the weighted sum of the operations, edge by edge."""
    cell = Cell(3, None, style=Style(affine=False))
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 3), jnp.float64)
    weights = jnp.zeros((6, 5), jnp.float64).at[3].set(jnp.array([0.1, 0.2, 0.3, 0.15, 0.25]))
    parameters = cell.init(jax.random.key(0), x, weights)["params"]
    expected = sum(
        weight * reference_cell(x, f"|none~0|+|none~0|none~1|+|{name}~0|none~1|none~2|", parameters)
        for weight, name in zip(weights[3].tolist(), OPERATIONS, strict=True)
    )
    np.testing.assert_allclose(cell.apply({"params": parameters}, x, weights), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|none~2|", ("0_1", "0_2", "1_2")),
        ("|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|", ("0_2",)),
        ("|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|", ()),
    ],
)
def test_paths_that_lead_nowhere_take_no_part_in_a_program_that_branches(text, dead, x64):
    size = (SPACE.Size(2, 1), 10)
    genotype, x = SPACE.parse(text), jax.random.normal(jax.random.key(0), (3, 8, 8, 3), jnp.float64)
    derived = SPACE.network(genotype, *size)
    whole = SPACE.network(None, *size, execution=Execution("branches"))
    weights = SPACE.encode(genotype)
    parameters = whole.init(jax.random.key(1), x, weights)["params"]

    def hidden(path, leaf):
        return leaf * jnp.nan if any(f"edge_{edge}" in jax.tree_util.keystr(path) for edge in dead) else leaf

    def loss(network, p, *inputs):
        return jnp.sum(network.apply({"params": p}, x, *inputs) ** 2)

    like = jax.eval_shape(derived.init, jax.random.key(0), x)["params"]
    expected = jax.grad(lambda p: loss(derived, p))(spaces.restrict(parameters, like))
    gradient = jax.grad(lambda p: loss(whole, p, weights))(jax.tree_util.tree_map_with_path(hidden, parameters))
    got = spaces.restrict(gradient, like)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), got, expected)


@pytest.mark.parametrize(("size", "image"), [(SPACE.Size(6, 2), (12, 8)), (SPACE.Size(), (32, 32))])
def test_any_size(size, image):
    network = SPACE.network(SPACE.parse(ALL_CONVOLUTIONS), size, 7)
    x = jnp.zeros((2, *image, 3))
    logits, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    assert logits.shape == (2, 7)


def test_parameterisations_are_the_same_function_at_initialisation(x64):
    text = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3), jnp.float64)
    networks = {
        p: SPACE.network(SPACE.parse(text), SPACE.Size(4, 1), 10, Style(parameterisation=p))
        for p in ("standard", "ntk")
    }
    parameters = {p: jax.jit(network.init)(jax.random.key(2), x)["params"] for p, network in networks.items()}
    logits = {p: networks[p].apply({"params": parameters[p]}, x) for p in networks}
    np.testing.assert_allclose(logits["standard"], logits["ntk"], rtol=1e-9)
    kernel = parameters["ntk"]["stage_1_cell_0"]["edge_0_1_nor_conv_3x3"]["kernel"]
    assert 0.85 < float(jnp.std(kernel)) < 1.15


def test_cells_of_one_canonical_name_compute_the_same(x64):
    """On all cells without convolutions, which have no parameters."""
    cells = [g for g in SPACE.enumerate() if not np.isin(g.operations, [2, 3]).any()]
    assert len(cells) == 3**6
    weights = jax.nn.one_hot(np.stack([g.operations for g in cells]), 5, dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1), jnp.float64)
    cell = Cell(1, style=Style(affine=False))
    params = cell.init(jax.random.key(1), x, weights[0])
    outputs = np.asarray(jax.jit(jax.vmap(lambda w: cell.apply(params, x, w)))(weights)).reshape(len(cells), -1)
    by_name = {}
    for genotype, output in zip(cells, outputs, strict=True):
        np.testing.assert_allclose(by_name.setdefault(SPACE.canonical(genotype), output), output, atol=1e-12)


def test_isomorphic_classes_of_the_table_have_one_name_each(benchmark_table):
    """The table's 6,466 classes are finer: they tell a sum from the same sum that a skip connection passes on."""
    with gzip.open(benchmark_table, "rt") as file:
        rows = list(csv.DictReader(file))
    names = {}
    for row in rows:
        names.setdefault(row["iso_class"], set()).add(SPACE.canonical(SPACE.parse(row["arch"])))
    assert len(rows) == 15_625
    assert len(names) == 6_466
    assert all(len(found) == 1 for found in names.values())
    assert len(set.union(*names.values())) == 4_930


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 6, 8, 3), (0, 8, 8, 3)])
def test_bad_images_are_refused(shape):
    network = SPACE.network(SPACE.parse(ALL_CONVOLUTIONS), SPACE.Size(2, 1), 3)
    with pytest.raises(ValueError, match="x: expected images"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))


def test_as_many_cells_are_without_dead_branches_as_published():
    """9,445, of which newer papers report (Týbl and Neumann, 2025); the one without any operation is among them."""
    rows = np.stack([np.asarray(genotype.operations) for genotype in SPACE.enumerate()]) != 0
    there, counts = np.unique(rows, axis=0, return_counts=True)
    valid = SPACE.subsets["valid"]
    whole = [valid(spaces.NASBench201Genotype(row.astype(np.int32))) for row in there]
    assert counts[whole].sum() == 9445


def test_edges_are_dropped_as_a_whole_and_skips_stay():
    """With one edge, an example's output is nothing or the edge's, scaled up; without a rate nothing is dropped."""
    x = jax.random.normal(jax.random.key(0), (16, 4, 4, 2))
    for name, stays in (("nor_conv_3x3", False), ("skip_connect", True)):
        choices = (0, 0, 0, OPERATIONS.index(name), 0, 0)
        cell = Cell(2, choices)
        params = cell.init(jax.random.key(1), x)
        whole = cell.apply(params, x)
        none, some = (
            cell.apply(params, x, drop_path=rate, rngs={"drop_path": jax.random.key(2)}) for rate in (0.0, 0.5)
        )
        np.testing.assert_allclose(none, whole, rtol=1e-6)
        if stays:
            np.testing.assert_array_equal(some, whole)
            continue
        gone = np.array([not example.any() for example in some])
        assert 2 < gone.sum() < 14
        np.testing.assert_allclose(some[~gone], 2 * whole[~gone], rtol=1e-6)
