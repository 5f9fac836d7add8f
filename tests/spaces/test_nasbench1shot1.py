"""NAS-Bench-1Shot1 against published counts, NAS-Bench-101's hash of a cell, and a network written the plain way."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nasbench101_cases import nasbench101_hash

from nasi_jax import spaces
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.scores import Counter
from nasi_jax.spaces.nasbench1shot1_network import OPERATIONS

SPACES = {number: spaces.NASBench1Shot1(number) for number in (1, 2, 3)}
TEXT = (
    "ModelSpec(matrix=[[0, 1, 1, 1, 0, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0], "
    "[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], "
    "ops=['input', 'conv3x3-bn-relu', 'maxpool3x3', 'conv1x1-bn-relu', 'conv3x3-bn-relu', 'output'])"
)


def wirings(space):
    """One cell for each way to connect the nodes, with the first operation everywhere."""
    count = len(space.edges["operations"])
    every = len(OPERATIONS) ** count
    return itertools.islice(space.enumerate(), space.cardinality // every)


def full_matrix(space, genotype):
    text = space.format(genotype)
    return np.array(eval(text[text.index("[") : text.index(", ops=")]))


@pytest.mark.parametrize(("number", "published"), [(1, 6240), (2, 29160), (3, 363648)])
def test_architectures_with_loose_ends_are_as_many_as_published(number, published):
    """Zela et al., 2020: in S1 and S3 only blocks that some node reads choose an operation, in S2 all of them."""
    space, total = SPACES[number], 0
    for genotype in wirings(space):
        read = full_matrix(space, genotype)[1:-1].any(axis=1).sum()
        total += 3 ** (4 if number == 2 else read)
    assert total == published


@pytest.mark.parametrize(("number", "published"), [(1, 2487), (2, 3609), (3, 24066)])
def test_architectures_without_loose_ends_are_as_many_as_published(number, published):
    """Zela et al., 2020: their enumeration finds the cells each of whose blocks reads the one before it."""
    space, found = SPACES[number], set()
    for genotype in wirings(space):
        parents = [np.flatnonzero(column) for column in full_matrix(space, genotype).T]
        node, used = len(parents) - 1, set()
        while node:
            used.add(node)
            node = parents[node].max()
        if all(parent in used | {0} for n in used for parent in parents[n]):
            found.add(tuple((n, *parents[n].tolist()) for n in sorted(used)))
    assert sum(3 ** (len(cell) - 1) for cell in found) == published


def test_canonical_names_are_equal_where_nasbench101_takes_cells_for_equal():
    space = SPACES[1]
    pairs = set()
    for genotype in itertools.islice(space.enumerate(), 0, None, 7):
        pairs.add((space.canonical(genotype), nasbench101_hash(*space.nasbench101(genotype))))
    names, hashes = zip(*pairs, strict=True)
    assert len(pairs) == len(set(names)) == len(set(hashes)) > 500


def test_loose_ends_are_left_out_of_the_translation():
    space = SPACES[2]
    genotype = space.parse(
        "ModelSpec(matrix=[[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], "
        "[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], "
        "ops=['input', 'conv3x3-bn-relu', 'maxpool3x3', 'conv1x1-bn-relu', 'conv3x3-bn-relu', 'output'])"
    )
    matrix, operations = space.nasbench101(genotype)
    np.testing.assert_array_equal(
        matrix, [[0, 1, 0, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    )
    assert operations == ["input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'conv3x3-bn-relu', 'maxpool3x3'", "'conv5x5', 'maxpool3x3'", "got 'conv5x5'"),
        ("'input', ", "", "list of 6 names"),
        ("'output'", "'end'", "from 'input' to 'output'"),
        ("[[0, 1, 1, 1, 0, 1]", "[[0, 1, 1, 0, 0, 1]", "node 3 of the matrix to read 2 earlier ones, got"),
        ("[0, 0, 1, 1, 0, 0]", "[0, 0, 1, 2, 0, 0]", "zeros and ones"),
        ("[0, 0, 1, 1, 0, 0]", "[0, 0, 1, True, 0, 0]", "zeros and ones"),
        ("[0, 0, 1, 1, 0, 0]", "[0, 0, 1, 1, 0]", "6 rows of 6 numbers"),
        ("[0, 0, 0, 0, 0, 0]]", "[1, 0, 0, 0, 0, 0]]", "a one in its first column"),
        ("matrix=[[0", "matrix=[[open('x')", "expected matrix as a list of rows"),
        ("matrix=", "adjacency=", "expected ModelSpec with"),
        ("ModelSpec", "Genotype", "got Genotype"),
    ],
)
def test_cells_of_other_spaces_are_refused(old, new, message):
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        SPACES[1].parse(TEXT.replace(old, new, 1))


def test_a_number_without_a_space_is_refused():
    with pytest.raises(ValueError, match="number: expected one of"):
        spaces.NASBench1Shot1(4)


class Plain:
    """The network of one cell from its matrix, written with `jax.lax`; parameters by the names of ours."""

    def __init__(self, params, matrix, operations, cells):
        self.params, self.matrix, self.operations, self.cells = params, matrix, operations, cells

    def finish(self, y):
        mean = y.mean((0, 1, 2), keepdims=True)
        return jnp.maximum((y - mean) / jnp.sqrt(((y - mean) ** 2).mean((0, 1, 2), keepdims=True) + 1e-5), 0)

    def conv(self, x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def project(self, images, p):
        kernel = jnp.concatenate([p[name]["kernel"] for name in images], 0)[None, None]
        return self.finish(self.conv(jnp.concatenate(list(images.values()), -1), kernel))

    def pool(self, x, window, strides, padding):
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, strides, strides, 1), padding
        )

    def cell(self, images, p):
        nodes = [None]
        for node in range(1, len(self.matrix) - 1):
            total = 0
            for parent in np.flatnonzero(self.matrix[:, node]):
                total = total + (nodes[parent] if parent else self.project(images, p[f"input_to_{node}"]))
            operation = self.operations[node]
            if operation == "maxpool3x3":
                nodes.append(self.pool(total, 3, 1, "SAME"))
            else:
                nodes.append(self.finish(self.conv(total, p[f"block_{node}"][operation]["conv"]["kernel"])))
        read = np.flatnonzero(self.matrix[:, -1])
        outputs = {f"block_{node}": nodes[node] for node in read if node}
        if 0 in read:
            for node in read[1:]:
                outputs[f"block_{node}"] += self.project(images, p[f"input_to_output_{node}"])
        return outputs

    def __call__(self, x):
        images = {"stem": self.finish(self.conv(x, self.params["stem"]["conv"]["kernel"]))}
        for stack in range(3):
            if stack:
                images = {name: self.pool(y, 2, 2, "VALID") for name, y in images.items()}
            for i in range(self.cells):
                images = self.cell(images, self.params[f"stack_{stack}_cell_{i}"])
        last = self.project(images, self.params["last"])
        return last.mean((1, 2)) @ self.params["head"]["kernel"] + self.params["head"]["bias"][None]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-10)])
def test_the_network_is_the_plain_one(number, dtype, tolerance, x64):
    space = SPACES[number]
    genotype = space.sample(jax.random.key(number + 3))
    x = jax.random.normal(jax.random.key(0), (8, 16, 16, 3), dtype)
    arguments = (space.Size(4, 2), 3, Style(affine=False))
    module = space.network(genotype, *arguments)
    params = module.init(jax.random.key(2), x)["params"]
    operations = ["input", *(OPERATIONS[i] for i in genotype.operations.tolist()), "output"]
    # loose ends, which ours leaves out, are computed with parameters that nothing reads
    matrix = full_matrix(space, genotype)
    one_shot = space.network(None, *arguments)
    weights = jax.tree.map(lambda w: w.astype(dtype), space.encode(genotype))
    whole = one_shot.init(jax.random.key(2), x, weights)["params"]
    with jax.numpy_rank_promotion("allow"):
        expected = Plain(whole, matrix, operations, 2)(x)
    found = module.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    by_block = space.network(genotype, *arguments, Execution(blocks=True)).apply({"params": params}, x)
    np.testing.assert_allclose(by_block, expected, rtol=tolerance, atol=tolerance)


def test_a_loose_end_costs_nothing():
    space = SPACES[1]
    loose = (
        "ModelSpec(matrix=[[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], "
        "[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], "
        "ops=['input', 'conv1x1-bn-relu', 'maxpool3x3', 'maxpool3x3', 'maxpool3x3', 'output'])"
    )
    count = Counter(space, jnp.zeros((2, 8, 8, 3)), space.Size(4, 1), 10)
    costs = [count(space.parse(loose.replace("'maxpool3x3'", f"'{operation}'"))) for operation in OPERATIONS]
    assert costs[0] == costs[1] == costs[2]
    # three kernels and three times batch normalisation in each of three cells: for the block's input, the block, and
    # the output; then stem, last projection and head
    expected = 27 * 4 + 2 * 4
    inputs = 4
    for features in (4, 8, 16):
        expected += 2 * (inputs * features + 2 * features) + features**2 + 2 * features
        inputs = features
    expected += 16 * 16 + 2 * 16 + 16 * 10 + 10
    assert costs[0]["params"] == expected
