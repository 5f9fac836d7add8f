"""The DARTS space against published figures and a network written the plain way."""

import ast
import csv
import gzip
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import spaces
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import darts_network

SPACE = spaces.DARTS()
SMALL = spaces.DARTSSize(2, 3)
V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), "
    "('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
ENTRIES = "{" + re.sub(r"(\w+)=", r"'\1': ", V2).removeprefix("Genotype(").removesuffix(")") + "}"
IMAGES = {"cifar": (2, 32, 32, 3), "imagenet": (2, 224, 224, 3)}


def parameters(network, stem):
    x = jax.ShapeDtypeStruct(IMAGES[stem], jnp.float32)
    tree = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    return {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part)) for name, part in tree.items()}


@pytest.mark.parametrize(
    ("genotype", "stem", "published"),
    [
        (spaces.DARTS_V1, "cifar", 3169414),
        (spaces.DARTS_V2, "cifar", 3349342),
        (spaces.DARTS_V2, "imagenet", 4718752),
    ],
)
def test_parameters_are_the_published_ones(genotype, stem, published):
    """As the authors' code prints them, in millions to six places, without the auxiliary head."""
    channels, cells, outputs = {"cifar": (36, 20, 10), "imagenet": (48, 14, 1000)}[stem]
    size = spaces.DARTSSize(channels, cells, stem)
    counts = parameters(SPACE.network(genotype, size, outputs).clone(auxiliary=True), stem)
    auxiliary = counts.pop("auxiliary")
    assert sum(counts.values()) == published
    inputs = channels * 4 * 4
    assert auxiliary == inputs * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + (768 + 1) * outputs


def test_the_authors_text_is_read_whatever_its_order():
    assert SPACE.parse(V2) == spaces.DARTS_V2
    assert SPACE.parse(SPACE.format(spaces.DARTS_V2)) == spaces.DARTS_V2


def nested(text):
    """The edges of each cell in a list for each node, as pt.darts prints them."""
    return re.sub(r"(\('\w+', \d\), \('\w+', \d\))", r"[\1]", text)


@pytest.mark.parametrize(
    "text",
    [
        f'"{V2}",',
        f"DARTS_V2 = {V2}",
        f"06/21 10:12:13 AM genotype = {V2}",
        f"INFO:root:genotype = {V2}",
        f"[2020-01-01 10:12:13,123] [INFO] best: genotypes.{V2} at epoch 3",
        nested(V2),
        re.sub(r"('\w+', \d)", r"\1, 0.13017432", V2).removesuffix(")") + ", connectN=None, connects=None)",
        V2.replace("range(2, 6)", "list(range(2, 6))"),
        V2.replace("[2, 3, 4, 5]", "tensor([2, 3, 4, 5], device='cuda:0')"),
        V2.replace(", 0)", ", np.int64(0))").replace(", 1)", ", tensor(1))"),
        V2.replace("'", '"'),
        V2.replace("normal_concat=range(2, 6), ", "").replace(", reduce_concat=[2, 3, 4, 5]", ""),
        re.sub(r"\w+=", "", V2),
        ENTRIES,
        f"OrderedDict({ENTRIES})",
        f"collections.OrderedDict({list(ast.literal_eval(ENTRIES.replace('range(2, 6)', '[2, 3, 4, 5]')).items())})",
        "(((0, 3), (1, 3), (1, 3), (0, 3), (1, 3), (0, 2), (0, 2), (2, 5)), "
        "((0, 0), (1, 0), (2, 2), (1, 0), (0, 0), (2, 2), (2, 2), (np.int64(1), 0)))",
    ],
)
def test_a_genotype_in_many_notations(text):
    assert SPACE.parse(text) == spaces.DARTS_V2


def test_an_ordered_dictionary_with_something_else_in_it_is_refused():
    pairs = list(ast.literal_eval(ENTRIES.replace("range(2, 6)", "[2, 3, 4, 5]")).items())
    for wrong in ([*pairs, 5], [*pairs, ("normal",)], []):
        with pytest.raises(ValueError, match="genotype: expected"):
            SPACE.parse(f"OrderedDict({wrong})")


def test_inputs_that_are_not_in_rising_order_are_refused():
    for pair in ([1, 0], [1, 1]):
        genotype = spaces.DARTSGenotype(
            spaces.DARTS_V2.inputs.at[1, 2].set(jnp.array(pair)), spaces.DARTS_V2.operations
        )
        with pytest.raises(ValueError, match=r"inputs: expected .* rising order at \(1, 2\), got \[1, "):
            SPACE.encode(genotype)


def test_the_published_table_of_nasbench301_is_read_and_written():
    with gzip.open(shared_file("transfer/nasbench301_500.csv.gz"), "rt") as file:
        rows = [row["arch"] for row in csv.DictReader(file)]
    for text in rows:
        genotype = SPACE.parse(text)
        edges = np.stack([genotype.inputs, genotype.operations], axis=-1)
        assert edges.tolist() == [
            [[list(edge) for edge in sorted(cell[i : i + 2])] for i in range(0, 8, 2)]
            for cell in ast.literal_eval(text)
        ]
        written = ast.literal_eval(SPACE.notations["naslib"](genotype))
        assert [[sorted(cell[i : i + 2]) for i in range(0, 8, 2)] for cell in written] == [
            [sorted(cell[i : i + 2]) for i in range(0, 8, 2)] for cell in ast.literal_eval(text)
        ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ",
            "('sep_conv_3x3', 0), ('sep_conv_3x3', 2), ",
            "an earlier one, 0 to 1",
        ),
        ("('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ", "('sep_conv_3x3', 0), ", "8 edges in normal"),
        ("('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ", "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ", "1 twice"),
        ("dil_conv_3x3", "dil_conv_7x7", "got 'dil_conv_7x7'"),
        ("('dil_conv_3x3', 2)", "'dil_conv_3x3'", "got 'dil_conv_3x3'"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', True)", "got True"),
        ("('dil_conv_3x3', 2)", "(open('x'), 2)", "expected normal as a list"),
        ("range(2, 6)", "range(2, 5)", "normal_concat to be range"),
        ("[2, 3, 4, 5]", "[2, 3]", "reduce_concat to be range"),
        ("[2, 3, 4, 5]", "open('x')", "reduce_concat to be range"),
        ("reduce_concat", "concat", "expected Genotype with"),
        ("Genotype", "Phenotype", "got Phenotype"),
        ("Genotype(", "(", "expected 'Genotype"),
        ("Genotype(", "Genotype(1, ", "expected 'Genotype"),
        ("('sep_conv_3x3', 0)", "('none', 0)", "an operation on every edge of normal, got 'none' into node 2"),
        ("('sep_conv_3x3', 0)", "(3, 0)", r"\(operation, input\) or \(input, operation\)"),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x3', 0, 1)", "expected edges"),
        ("reduce_concat", "connects=[2], reduce_concat", "expected connects to be None"),
        ("range(2, 6)", "range(2, 10**12)", "normal_concat to be range"),
    ],
)
def test_genotypes_of_other_spaces_are_refused(old, new, message):
    assert old in V2
    with pytest.raises(ValueError, match=message):
        SPACE.parse(V2.replace(old, new, 1))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"cells": 2}, "cells: expected an integer of at least 3, got 2"),
        ({"stem": "mnist"}, "stem: expected one of"),
        ({"stem": "imagenet", "channels": 3}, "channels: expected an even number"),
    ],
)
def test_sizes_that_do_not_fit(size, message):
    with pytest.raises(ValueError, match=message):
        spaces.DARTSSize(**size)


@pytest.mark.parametrize(
    ("stem", "auxiliary", "shape", "message"),
    [
        ("cifar", False, (2, 30, 32, 3), "divisible by 4"),
        ("imagenet", False, (2, 48, 64, 3), "divisible by 32"),
        ("cifar", True, (2, 16, 16, 3), "auxiliary: expected images of at least 5x5"),
    ],
)
def test_images_that_do_not_fit(stem, auxiliary, shape, message):
    network = SPACE.network(spaces.DARTS_V2, spaces.DARTSSize(2, 3, stem), 10).clone(auxiliary=auxiliary)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))


def test_one_class_has_one_logit():
    network = SPACE.network(spaces.DARTS_V2, SMALL, 1)
    assert jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((2, 8, 8, 3)))[0].shape == (2, 1)


class Plain:
    """The relaxed network written operation by operation with `jax.lax`, nothing shared and nothing fused."""

    def __init__(self, params, cells):
        self.params, self.cells = params, cells

    def conv(self, x, kernel, strides=1, dilation=1):
        pad, groups = dilation * (kernel.shape[0] - 1) // 2, x.shape[-1] // kernel.shape[2]
        return jax.lax.conv_general_dilated(
            x, kernel, (strides, strides), ((pad, pad),) * 2, rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    def norm(self, x):
        mean = x.mean((0, 1, 2), keepdims=True)
        return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean((0, 1, 2), keepdims=True) + 1e-5)

    def separable(self, x, p, strides=1, dilation=1):
        return self.norm(self.conv(self.conv(jnp.maximum(x, 0), p["depthwise"], strides, dilation), p["kernel"]))

    def factorised(self, x, p):
        x = jnp.maximum(x, 0)
        halves = [self.conv(x, p["conv_0"]["kernel"], 2), self.conv(x[:, 1:, 1:], p["conv_1"]["kernel"], 2)]
        return self.norm(jnp.concatenate(halves, -1))

    def pool(self, x, strides, maximum):
        fill = -jnp.inf if maximum else jnp.nan
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
        size = x.shape[1]
        windows = jnp.stack([padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3)])
        return (windows.max(0) if maximum else jnp.nanmean(windows, 0))[:, ::strides, ::strides]

    def mixed(self, x, p, edge, source, weights, strides):
        numbers = [e for e, (s, _) in enumerate(darts_network.EDGES) if s == source]
        p, edge = p[f"from_{source}"], numbers.index(edge)
        outputs = {
            "max_pool_3x3": self.norm(self.pool(x, strides, True)),
            "avg_pool_3x3": self.norm(self.pool(x, strides, False)),
            "skip_connect": x if strides == 1 else self.factorised(x, p[f"edge_{edge}_skip"]),
        }
        for name, dilation in (("sep_conv_3x3", 1), ("sep_conv_5x5", 1), ("dil_conv_3x3", 2), ("dil_conv_5x5", 2)):
            y = self.separable(x, p[f"edge_{edge}_{name}"], strides, dilation)
            outputs[name] = self.separable(y, p[f"edge_{edge}_{name}_again"]) if dilation == 1 else y
        return sum(w * outputs[name] for w, name in zip(weights, SPACE.operations, strict=True))

    def __call__(self, x, weights):
        before = last = self.norm(self.conv(x, self.params["stem_conv"]["kernel"]))
        after_reduction = False
        for i in range(self.cells):
            p, reduction = self.params[f"cell_{i}"], i in (self.cells // 3, 2 * self.cells // 3)
            if after_reduction:
                first = self.factorised(before, p["preprocess_0"])
            else:
                first = self.norm(self.conv(jnp.maximum(before, 0), p["preprocess_0"]["kernel"]))
            nodes = [first, self.norm(self.conv(jnp.maximum(last, 0), p["preprocess_1"]["kernel"]))]
            edge = 0
            for node in range(4):
                total = 0
                for source in range(node + 2):
                    row = weights["reduction" if reduction else "normal"][edge]
                    strides = 2 if reduction and source < 2 else 1
                    total = total + self.mixed(nodes[source], p, edge, source, row, strides)
                    edge += 1
                nodes.append(total)
            before, last, after_reduction = last, jnp.concatenate(nodes[2:], -1), reduction
        return last.mean((1, 2)) @ self.params["head"]["kernel"] + self.params["head"]["bias"].reshape(1, -1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-10)])
def test_the_one_shot_network_is_the_plain_one(dtype, tolerance, x64):
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 3), dtype)
    logits = {name: jax.random.normal(jax.random.key(1), v.shape, dtype) for name, v in SPACE.alphas().items()}
    weights = jax.tree.map(jax.nn.softmax, logits)
    module = SPACE.network(None, SMALL, 10, Style(affine=False))
    params = module.init(jax.random.key(2), x, weights)["params"]
    found = module.apply({"params": params}, x, weights)
    with jax.numpy_rank_promotion("allow"):
        expected = Plain(params, 3)(x, weights)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    by_block = module.clone(execution=Execution(blocks=True)).apply({"params": params}, x, weights)
    np.testing.assert_allclose(by_block, expected, rtol=tolerance, atol=tolerance)


def test_none_takes_its_share_of_an_edge():
    """A relaxed edge of eight operations, "none" among them, is that of seven whose weights sum to less."""
    space, x = spaces.DARTS(none=True), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    weights = jax.tree.map(
        jax.nn.softmax, {k: jax.random.normal(jax.random.key(1), v.shape) for k, v in space.alphas().items()}
    )
    modules = [s.network(None, SMALL, 10, Style(affine=False)) for s in (space, SPACE)]
    params = modules[0].init(jax.random.key(2), x, weights)
    without = jax.tree.map(lambda w: w[:, 1:], weights)
    np.testing.assert_array_equal(modules[0].apply(params, x, weights), modules[1].apply(params, x, without))


def test_decoding_keeps_the_two_strongest_edges_and_never_none():
    space = spaces.DARTS(none=True)
    logits = {name: np.zeros(values.shape, np.float32) for name, values in space.alphas().items()}
    logits["normal"][:, 0] = 9.0  # "none" is the likeliest everywhere
    for edge, operation, value in ((5, 4, 12.0), (8, 5, 11.0), (6, 6, 10.0)):  # all into node 2 but the first
        logits["normal"][edge, operation] = value
    genotype = space.decode({name: jnp.asarray(values) for name, values in logits.items()})
    # edges 5 to 8 enter node 2, from inputs 0 to 3
    np.testing.assert_array_equal(genotype.inputs[0, 2], [0, 3])
    np.testing.assert_array_equal(genotype.operations[0, 2], [3, 4])


def test_a_genotype_and_its_nodes_in_another_order_have_one_name():
    """Nodes 0 and 1 of the normal cell read the inputs alone, and nothing reads node 0 or 1 by number."""
    first = V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 1)")
    swapped = first.replace(
        "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0)",
        "normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)",
    )
    a, b = SPACE.parse(first), SPACE.parse(swapped)
    assert a != b
    assert SPACE.canonical(a) == SPACE.canonical(b)
    assert SPACE.canonical(a) != SPACE.canonical(spaces.DARTS_V2)


def test_dropped_paths_keep_the_mean_and_leave_identities():
    genotype = SPACE.parse(V2)
    network = SPACE.network(genotype, SMALL, 3)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    params = network.init(jax.random.key(1), x)
    whole = network.apply(params, x)
    same = network.apply(params, x, drop_path=0.0, rngs={"drop_path": jax.random.key(0)})
    np.testing.assert_array_equal(whole, same)
    drops = [network.apply(params, x, drop_path=0.5, rngs={"drop_path": jax.random.key(i)}) for i in range(2)]
    assert not np.allclose(drops[0], whole)
    assert not np.allclose(drops[0], drops[1])
    again = network.apply(params, x, drop_path=0.5, rngs={"drop_path": jax.random.key(0)})
    np.testing.assert_array_equal(drops[0], again)


def test_the_auxiliary_head_adds_logits_and_changes_none():
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    network = SPACE.network(spaces.DARTS_V2, SMALL, 4).clone(auxiliary=True)
    params = network.init(jax.random.key(1), x)["params"]
    logits, auxiliary = network.apply({"params": params}, x)
    assert auxiliary.shape == (2, 4)
    params.pop("auxiliary")
    np.testing.assert_array_equal(SPACE.network(spaces.DARTS_V2, SMALL, 4).apply({"params": params}, x), logits)
