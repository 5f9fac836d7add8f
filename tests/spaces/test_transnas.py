"""TransNAS-Bench-101's micro space against a cell written the plain way and parameters counted by hand."""

import itertools

import jax
import numpy as np
import pytest

from nasi_jax import data, scores, spaces
from nasi_jax.nn import PREACTIVATIONS, Style
from nasi_jax.spaces.nasbench201_network import Cell

SPACE = spaces.TransNASMicro()


def test_notations_of_the_benchmark_and_of_naslib():
    genotype = SPACE.parse("64-41414-1_02_333")
    assert SPACE.graph(genotype)["cell"] == [
        spaces.Edge("0", "1", "skip_connect"),
        spaces.Edge("0", "2", "none"),
        spaces.Edge("1", "2", "nor_conv_1x1"),
        *(spaces.Edge(str(i), "3", "nor_conv_3x3") for i in range(3)),
    ]
    assert SPACE.parse("(1, 0, 2, 3, 3, 3)") == genotype
    assert SPACE.notations["naslib"](genotype) == "(1, 0, 2, 3, 3, 3)"
    assert SPACE.cardinality == 4096


@pytest.mark.parametrize(
    "text",
    ["64-41414-1_02_334", "64-41414-1_02_3333", "64-1-1_02_333", "(1, 0, 2, 3, 3)", "(1, 0, 2, 3, 3, 4)", "5",
     "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"],
)  # fmt: skip
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(ValueError, match="expected a cell such as '64-41414-1_02_333'"):
        SPACE.parse(text)


def test_a_skip_that_halves_the_image_is_no_identity():
    through = SPACE.canonical(SPACE.parse("64-41414-1_00_030"))
    assert through == "nor_conv_3x3(skip_connect(x))"
    assert SPACE.canonical(SPACE.parse("64-41414-3_00_010")) == "nor_conv_3x3(x)"


def by_hand(digits, channels, cells, outputs):
    """Parameters: kernels, two for each normalised channel, and of skips that halve the image two kernels as one."""
    total = 9 * 3 * channels // 2 + channels + (9 * channels // 2 + 2) * channels
    before = channels
    for factor in (2, 1, 2, 1, 2):
        features = before * factor
        for number, (source, digit) in itertools.product(range(cells), zip((0, 0, 1, 0, 1, 2), digits, strict=True)):
            width = before if source == 0 and number == 0 else features
            halves = source == 0 and number == 0 and factor == 2
            kernel = {0: 0, 1: halves, 2: 1, 3: 9}[digit] * width * features
            total += kernel + 2 * features * (kernel > 0)
        before = features
    return total + (before + 1) * outputs


@pytest.mark.parametrize("digits", [(1, 0, 2, 3, 3, 3), (3, 1, 1, 2, 0, 1), (0, 0, 0, 0, 0, 0)])
def test_parameters_are_those_counted_by_hand(digits):
    counter = scores.Counter(SPACE, data.shapes(SPACE.noise(), 2).x, SPACE.Size(), 100)
    assert counter(SPACE.parse(str(digits)))["params"] == by_hand(digits, 64, 2, 100)


def normalised(x):
    return (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)


def test_a_cell_that_halves_the_image_by_numpy(x64):
    """1x1 convolutions and skips from the input, a 1x1 convolution and identities between the nodes."""
    choices = SPACE.names(SPACE.parse("64-41414-1_22_120"))
    cell = Cell(4, tuple(SPACE.operations.index(name) for name in choices), Style(), strides=2)
    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 2))
    params = cell.init(jax.random.key(1), x)["params"]
    relu = np.maximum(np.asarray(x), 0)

    def reduced(name):
        halves = [relu[:, i::2, i::2] @ np.asarray(params[name][f"conv_{i}"]["kernel"])[0, 0] for i in range(2)]
        return normalised(np.concatenate(halves, axis=-1))

    def conv(name, y, strides):
        return normalised(np.maximum(y, 0)[:, ::strides, ::strides] @ np.asarray(params[name]["kernel"])[0, 0])

    first = reduced("edge_0_1_skip_connect")
    expected = reduced("edge_0_3_skip_connect") + conv("edge_1_3_nor_conv_1x1", first, 1)
    np.testing.assert_allclose(cell.apply({"params": params}, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_relus_of_skips_count_where_there_is_such_a_skip():
    """The one-shot network has a reduction on every edge; naswot counts those that the architecture has."""
    size, genotype = SPACE.Size(2, 1), SPACE.parse("64-41414-1_23_031")
    x = data.Gaussian((32, 32, 3)).batch(jax.random.key(0), 2).x
    total = {}
    for name, chosen, arguments in (("whole", None, (SPACE.encode(genotype),)), ("derived", genotype, ())):
        module = SPACE.network(chosen, size, 3)
        params = module.init(jax.random.key(0), x, *arguments)["params"]
        _, seen = module.apply({"params": params}, x, *arguments, mutable=[PREACTIVATIONS])
        total[name] = sum(float(uses) for uses in jax.tree.leaves(seen[PREACTIVATIONS])[1::2])
    assert total["whole"] == total["derived"]


@pytest.mark.slow
def test_images_of_odd_sides_are_filled_with_zeros():
    module = SPACE.network(SPACE.parse("64-41414-1_11_111"), SPACE.Size(2, 1), 3)
    x = data.Gaussian((20, 20, 3)).batch(jax.random.key(0), 2).x
    assert np.isfinite(module.init_with_output(jax.random.key(0), x)[0]).all()
