"""DARTS cells in which a node may read one input twice and an edge may have no operation."""

import ast
import csv
import gzip

import jax
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import data, scores, spaces
from nasi_jax.nn import Style
from nasi_jax.spaces.darts_network import EDGES, Cell

SPACE, DARTS = spaces.DARTSNDS(), spaces.DARTS()
TEXT = (
    "Genotype(normal=[('none', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 1), ('max_pool_3x3', 1), "
    "('dil_conv_5x5', 2), ('dil_conv_5x5', 2), ('none', 0), ('none', 4)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('skip_connect', 1), ('skip_connect', 0), ('none', 2), ('none', 0), ('avg_pool_3x3', 3), "
    "('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def test_the_authors_text_is_read_and_written():
    assert SPACE.format(SPACE.parse(TEXT)) == TEXT.replace("[2, 3, 4, 5]", "range(2, 6)")


@pytest.mark.parametrize(
    ("old", "new"),
    [("[2, 3, 4, 5]", "range(2, 6)"), ("[2, 3, 4, 5]", "(2, 3, 4, 5)"), ("[2, 3, 4, 5]", "list(range(2, 6))"),
     ("[2, 3, 4, 5]", "[np.int64(2), np.int64(3), 4, 5]"), ("('none', 0)", "('none', np.int64(0))"),
     ("('none', 0)", "['none', array(0)]"), ("[2, 3, 4, 5]", "np.array([2, 3, 4, 5])")],
)  # fmt: skip
def test_lists_ranges_and_numpy_integers_are_read(old, new):
    assert old in TEXT
    assert SPACE.parse(TEXT.replace(old, new)) == SPACE.parse(TEXT)


def test_the_space_of_darts_says_which_one_has_such_cells():
    with pytest.raises(ValueError, match="got 'none' into node 2, as cells of the space darts-nds may have"):
        DARTS.parse(TEXT)
    with pytest.raises(ValueError, match="got 1 twice, as cells of the space darts-nds may"):
        DARTS.parse(TEXT.replace("none", "skip_connect"))


def test_the_published_table_is_read_with_edges_in_its_order():
    with gzip.open(shared_file("transfer/nasbench301_500.csv.gz"), "rt") as file:
        texts = [row["arch"] for row in csv.DictReader(file)]
    for text in texts[::10]:
        cells = SPACE.cells(SPACE.parse(text))
        numbers = [[(source, DARTS.operations.index(name)) for node in cell for name, source in node] for cell in cells]
        assert numbers == ast.literal_eval(text)


def test_cells_of_darts_have_the_same_network():
    size, x = spaces.DARTSSize(2, 3), data.Gaussian((8, 8, 3)).batch(jax.random.key(0), 2).x
    modules = [
        space.network(space.parse(DARTS.format(spaces.DARTS_V2)), size, 3, Style(affine=False))
        for space in (DARTS, SPACE)
    ]
    assert modules[0] == modules[1]
    assert jax.eval_shape(modules[1].init, jax.random.key(0), x)["params"]
    pair = "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)"
    swapped = DARTS.format(spaces.DARTS_V2).replace(pair, "('sep_conv_3x3', 1), ('sep_conv_3x3', 0)")
    assert SPACE.parse(swapped) != SPACE.parse(DARTS.format(spaces.DARTS_V2))
    assert SPACE.canonical(SPACE.parse(swapped)) == SPACE.canonical(SPACE.parse(DARTS.format(spaces.DARTS_V2)))


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("operation", ["dil_conv_3x3", "sep_conv_3x3", "skip_connect", "max_pool_3x3"])
def test_an_operation_that_is_there_twice_is_added_twice(x64, reduction, operation):
    """With the same parameters in both the first node is twice what it is with one of them."""
    edge = EDGES.index((0, 0))
    images = [jax.random.normal(key, (2, 4, 4, 8)) for key in jax.random.split(jax.random.key(0))]
    once, twice = (Cell(2, reduction, False, ((edge, operation),) * count, Style(affine=False)) for count in (1, 2))
    params = once.init(jax.random.key(1), *images)["params"]
    both = twice.init(jax.random.key(1), *images)["params"]
    own = params.get("from_0", {})
    copies = own | {name.replace("edge_0_", "edge_4_"): leaf for name, leaf in own.items()}
    assert jax.tree.structure(both.get("from_0", {})) == jax.tree.structure(copies)
    expected = once.apply({"params": params}, *images)
    got = twice.apply({"params": params | ({"from_0": copies} if copies else {})}, *images)
    side = 2 if reduction else 4
    assert got.shape == (2, side, side, 8)
    np.testing.assert_allclose(got[..., :2], 2 * expected[..., :2], rtol=1e-9)
    assert (np.asarray(got[..., 2:]) == 0).all()  # nodes without any operation


def test_operations_that_are_there_twice_have_parameters_of_their_own():
    counter = scores.Counter(SPACE, data.shapes(SPACE.noise(), 2).x, spaces.DARTSSize(4, 3), 10)
    pair = TEXT.replace("('dil_conv_5x5', 2), ('dil_conv_5x5', 2)", "('dil_conv_5x5', 2), ('dil_conv_5x5', 1)")
    single = TEXT.replace("('dil_conv_5x5', 2), ('dil_conv_5x5', 2)", "('dil_conv_5x5', 2), ('none', 1)")
    counts = [counter(SPACE.parse(text))["params"] for text in (TEXT, pair, single)]
    assert counts[0] == counts[1]
    assert counts[0] - counts[2] == 25 * 4 + 4 * 4 + 2 * 4  # one normal cell of three


def test_edges_between_the_same_nodes_are_drawn_as_one():
    edges = SPACE.graph(SPACE.parse(TEXT))["normal"]
    assert spaces.Edge("k-1", "1", "max_pool_3x3+max_pool_3x3") in edges
