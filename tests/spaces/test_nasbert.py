"""NAS-BERT's space against the figures of the paper, of the published network, and layers of Flax."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax import data, scores, spaces
from nasi_jax.spaces.nasbert_network import HEADS, OPERATIONS, NASBERTOperation

SPACE = spaces.NASBERT()
PUBLISHED = "192:S3,S7,M|192:S7,S7,M|192:S3,M,S7|192:S5,M,S3"
"""The network of 5 million parameters that ML.NET runs."""
TINY = spaces.NASBERTSize(width=16, embedding=4, positions=12)
STATES = np.random.default_rng(0).normal(size=(3, 9, 6))
MASK = jnp.arange(9)[None] < jnp.array([[9], [5], [1]])


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def tokens(seed=0, targets=None):
    x = data.RandomTokens(12, 30).batch(jax.random.key(seed), 3).x
    return x if targets is None else x.replace(targets=jnp.asarray(targets, jnp.int32))


def shapes(text, size=TINY, outputs=2, x=None):
    network = SPACE.network(SPACE.parse(text), size, outputs)
    return jax.eval_shape(network.init, jax.random.key(0), tokens() if x is None else x)["params"]


def test_a_layer_has_26_candidates_and_a_block_97650():
    widths, operations = SPACE.candidates
    assert 1 + len(SPACE.widths) * len(OPERATIONS) == 26
    assert len(widths) == 5 * sum(5**n for n in range(1, 7)) == 97_650
    assert len(np.unique(np.column_stack([widths, operations]), axis=0)) == 97_650
    assert SPACE.cardinality == 97_650**4
    assert math.log10(SPACE.cardinality) == pytest.approx(19.96, abs=0.01)


def test_the_candidates_of_a_block_are_all_sequences_with_identities_at_the_end_alone():
    widths, operations = SPACE.candidates
    listed = {
        (width, *names, *[0] * (6 - n))
        for width in range(5)
        for n in range(1, 7)
        for names in itertools.product(range(1, 6), repeat=n)
    }
    assert {(width, *row) for width, row in zip(widths.tolist(), operations.tolist(), strict=True)} == listed


def test_blocks_are_joined_by_their_numbers():
    numbers = [0, 97_649, 12_345, 54_321]
    genotype = SPACE.joined(numbers)
    widths, operations = SPACE.candidates
    np.testing.assert_array_equal(genotype.widths, widths[numbers])
    np.testing.assert_array_equal(genotype.operations, operations[numbers])
    assert SPACE.format(genotype).startswith("128:M|512:S7,S7,S7,S7,S7,S7|")
    assert SPACE.parse(SPACE.format(genotype)) == genotype


@pytest.mark.parametrize(("operation", "expected"), [("S3", 76_416), ("S5", 77_184), ("S7", 77_952), ("M", 148_608)])
def test_operations_have_the_parameters_of_the_published_network(operation, expected):
    module = NASBERTOperation(operation, 3)
    states = jax.ShapeDtypeStruct((2, 4, 192), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), states, jax.ShapeDtypeStruct((2, 4), bool))
    assert count(variables) == expected


def test_the_published_network_has_its_parameters():
    """Blocks of 1,212,672; with embedding, positions, norm and map 4.48 million."""
    size = spaces.NASBERTSize()
    found = shapes(PUBLISHED, size, x=data.RandomTokens(64, 50_265).batch(jax.random.key(0), 2).x)
    assert count([part for name, part in found.items() if name.startswith("block")]) == 1_212_672
    assert count(found["stem"]["embedding"]) == (50_265 + 512 + 2) * 64
    assert count(found["stem"]["map"]) == 64 * 192 + 192
    around = sum(count(part) for name, part in found.items() if name != "head")
    assert round(around / 1e6, 2) == 4.48


def test_there_are_maps_only_where_widths_differ():
    def maps(text):
        found = shapes(text)
        return {name for name in found if name.startswith("map") or (name == "stem" and "map" in found[name])}

    assert maps("128:M|128:F,S3|512:S3|512:M") == {"map_2"}  # the embedding has 4 channels, as the first block
    assert maps("192:M|128:F|128:S3|192:M") == {"stem", "map_1", "map_3"}


def test_the_classification_head_reads_the_first_token_and_the_masked_one_is_tied():
    plain, masked = shapes(PUBLISHED), shapes(PUBLISHED, outputs=2 * 30, x=tokens(targets=[[0, 1]] * 3))
    assert count(plain["head"]) == 6 * 2 + 2
    assert count(masked["head"]) == (6 * 4 + 4) + 2 * 4 + 30
    network = SPACE.network(SPACE.parse("128:F|128:F|128:F|128:F"), TINY, 2)
    x = tokens()
    params, apply = jax.jit(network.init)(jax.random.key(0), x), jax.jit(network.apply)
    others = x.replace(ids=x.ids.at[:, 1:].set(5))
    np.testing.assert_allclose(apply(params, x), apply(params, others), rtol=1e-5)


def test_identities_at_the_end_change_nothing(x64):
    texts = "192:F,I,I|192:F,M,I|192:F|128:F,I,I,I,I,I", "192:F|192:F,M|192:F|128:F"
    assert SPACE.parse(texts[0]) == SPACE.parse(texts[1])
    networks = [SPACE.network(SPACE.parse(text), TINY, 3) for text in texts]
    params = jax.jit(networks[0].init)(jax.random.key(0), tokens())
    outputs = [jax.jit(network.apply)(params, tokens()) for network in networks]
    np.testing.assert_array_equal(*outputs)


def test_padding_changes_nothing_at_other_places(x64):
    x = tokens(targets=[[0, 3, 5]] * 3)
    network = SPACE.network(SPACE.parse("192:S3,M|192:F|192:S5|192:M"), TINY, 3 * 30)
    params, apply = jax.jit(network.init)(jax.random.key(0), x), jax.jit(network.apply)
    other = x.replace(ids=jnp.where(x.mask, x.ids, 7))
    assert (other.ids != x.ids).any()
    np.testing.assert_allclose(apply(params, x), apply(params, other), rtol=1e-12)


def reference(operation, heads, params, x, convolutions):
    """An operation in layers of Flax."""
    norm = flax_nn.LayerNorm(epsilon=1e-12)
    gelu = lambda y: flax_nn.gelu(y, approximate=False)  # noqa: E731
    dense = lambda name, y, p: flax_nn.Dense(p[name]["bias"].size).apply({"params": p[name]}, y)  # noqa: E731
    if operation == "M":
        p, width = params["attention"], x.shape[-1]
        split = {
            theirs: {"kernel": p[mine]["kernel"].reshape(*shape), "bias": p[mine]["bias"].reshape(shape[1:])}
            for mine, theirs in (("query", "query"), ("key", "key"), ("value", "value"))
            for shape in [(width, heads, width // heads)]
        }
        split["out"] = {
            "kernel": p["output"]["kernel"].reshape(heads, width // heads, width),
            "bias": p["output"]["bias"],
        }
        y = flax_nn.MultiHeadDotProductAttention(heads).apply({"params": split}, x, mask=MASK[:, None, None])
        return norm.apply({"params": params["norm_0"]}, x + y)
    if operation == "F":
        p = params["forward"]
        return norm.apply({"params": params["norm_0"]}, x + dense("output", gelu(dense("inner_0", x, p)), p))
    for i in range(convolutions):
        p = params[f"convolution_{i}"]
        layer = flax_nn.Conv(x.shape[-1], (int(operation[1:]),), padding="SAME", feature_group_count=x.shape[-1])
        kernel = {"kernel": p["depthwise"][:, None], "bias": p["bias"]}
        y = dense("pointwise", layer.apply({"params": kernel}, x * MASK[..., None]), p)
        x = norm.apply({"params": params[f"norm_{i}"]}, x + gelu(y))
    return x


@pytest.mark.parametrize(("operation", "convolutions"), [*((name, 2) for name in OPERATIONS), ("S5", 1)])
def test_operations_are_those_of_flaxs_layers(operation, convolutions):
    x = jnp.asarray(STATES, jnp.float32)
    module = NASBERTOperation(operation, 3, convolutions)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(module.init)(jax.random.key(0), x, MASK)["params"])
    found = module.apply({"params": params}, x, MASK)
    expected = reference(operation, 3, params, x, convolutions)
    np.testing.assert_allclose(found[MASK], expected[MASK], rtol=1e-5, atol=1e-5)


def test_dropout_is_drawn_by_its_key():
    network, x = SPACE.network(SPACE.parse("192:M|192:F|192:S3|192:F"), TINY, 2), tokens()
    params, apply = jax.jit(network.init)(jax.random.key(0), x), jax.jit(network.apply, static_argnums=2)
    drawn = [apply(params, x, 0.5, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    assert not np.allclose(drawn[0], apply(params, x, 0.0))


def test_widths_keep_their_heads_at_every_size():
    assert spaces.NASBERTSize().widths == SPACE.widths == (128, 192, 256, 384, 512)
    assert [width // heads for width, heads in zip(SPACE.widths, HEADS, strict=True)] == [64] * 5
    with pytest.raises(ValueError, match="width: expected a multiple of 8, the number of heads, got 100"):
        spaces.NASBERTSize(width=100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192:M|192:M|192:M", "expected 4 blocks with | between them, got 3"),
        ("192:M|192:M|192:M|100:M", r"expected a width of \(128, 192, 256, 384, 512\), got 100 of block 3"),
        ("192:M|192:S4|192:M|192:M", "operation of block 1: expected one of .*got 'S4'"),
        ("192:M|192:M|192:M,I,F|192:M", "identities at the end alone, got .* in block 2"),
        ("192:M|192:M|192:M|192:I", "expected an operation first"),
        ("192:M|192:M,M,M,M,M,M,M|192:M|192:M", "expected at most 6 operations, got 7 in block 1"),
        ("192|192:M|192:M|192:M", "expected blocks 'width:S3,M,...', got '192'"),
    ],
)
def test_malformed_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|") if "blocks with" in message else message):
        SPACE.parse(text)


def test_arrays_with_an_identity_between_operations_are_refused():
    genotype = SPACE.parse(PUBLISHED)
    bad = genotype.replace(operations=np.where(np.arange(6) == 1, 0, np.asarray(genotype.operations)))
    with pytest.raises(ValueError, match="operations: expected an operation first and identities at the end alone"):
        SPACE.format(bad)


def test_sequences_longer_than_the_positions_are_refused():
    network = SPACE.network(SPACE.parse(PUBLISHED), TINY, 2)
    with pytest.raises(ValueError, match="x: expected at most 12 tokens, the network's positions, got 13"):
        jax.eval_shape(network.init, jax.random.key(0), data.RandomTokens(13, 30).batch(jax.random.key(0), 2).x)


def test_multiply_adds_are_those_of_the_layers():
    """By hand: maps, and of every operation its products, for 12 tokens."""
    x = data.RandomTokens(12, 30).batch(jax.random.key(0), 2).x
    counted = scores.Counter(SPACE, x, TINY, 2)(SPACE.parse("128:F|512:S3|512:M|512:M"))
    length, attention = 12, lambda w: 4 * 12 * w * w + 2 * 12 * 12 * w
    blocks = 2 * length * 4 * 16 + 2 * length * (3 * 16 + 16 * 16) + 2 * attention(16)
    assert counted["flops"] == blocks + length * 4 * 16 + 16 * 2
