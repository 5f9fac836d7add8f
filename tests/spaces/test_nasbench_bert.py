"""NAS-Bench-BERT: parameters, notations, padding, and what a mixture of architectures is."""

import csv
import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import data, spaces
from nasi_jax.scores import Counter

SPACE = spaces.NASBenchBERT()
SMALL = spaces.NASBenchBERTSize(8, 4, 8)
NOISE = data.RandomTokens(6, 30, 3)


def small(text):
    return SPACE.network(SPACE.parse(text), SMALL, 3)


def parameters(text):
    """The encoder's, by a formula of the layers' shapes."""
    width, layers = spaces.nasbench_bert_text.parse(text)
    h = spaces.nasbench_bert_text.WIDTHS[width]
    total = 30522 * 128 + 512 * 128 + 2 * 128 + 2 * 128 + (0 if h == 128 else 128 * h + h)
    for layer in layers:
        feed = spaces.nasbench_bert_text.LAYERS[layer].partition("ff")[2]
        total += 4 * (h**2 + h) + 4 * h + 4 * h**2 + 4 * h
        f = int(feed.split("-")[1]) if feed else 0
        total += 4 * h * f + f + f**2 + f + f * h + h if f else 4 * h**2 + h
    return total


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("h256|sdp-4-ff1024-1024-1024|sdp-2-ff1024-512-512|sdp-4-ff1024-512-512|sdp-4-ff1024", 10576896),
        ("h256|sdp-4-ff1024-1024-1024|sdp-2-ff1024|sdp-4-ff1024-512-512|sdp-2-ff1024", 9920512),
        ("h128|sdp-4-ff512|sdp-2-ff512|sdp-4-ff512-512-512|sdp-4-ff512", 5291264),
    ],
)
def test_parameters_are_those_of_the_benchmark_and_a_head(text, count):
    """Against figures of the benchmark's table, whose networks have no head."""
    width = int(text[1:4])
    counter = Counter(SPACE, data.shapes(SPACE.noise(10), 2).x, SPACE.Size(), 10)
    assert counter(SPACE.parse(text))["params"] - 10 * (width + 1) == count == parameters(text)


def test_parameters_of_the_whole_table_are_those_of_the_benchmark():
    with gzip.open(shared_file("transformers/nasbench_bert.csv.gz"), "rt") as file:
        rows = list(csv.DictReader(file))
    counter, counted = Counter(SPACE, data.shapes(SPACE.noise(1), 2).x, SPACE.Size(), 1), {}
    for row in rows:
        genotype = SPACE.parse(row["trained"])
        assert SPACE.format(genotype) == row["trained"]
        assert SPACE.parse(row["arch"]) == genotype
        assert parameters(row["trained"]) == int(row["params_trained"])
        kind = tuple(sorted(row["trained"].replace("sdp-4", "sdp-2").split("|")))
        if kind not in counted:  # neither heads nor the order of layers are counted
            counted[kind] = counter(genotype)["params"] - int(row["hidden"]) - 1
        assert counted[kind] == int(row["params_trained"])
    assert len(rows) == 500
    assert len({row["trained"] for row in rows}) == 301


def test_padding_changes_no_output(x64):
    x, _ = NOISE.batch(jax.random.key(0), 5)
    module = small("h128|sdp-4-ff512|sdp-2-ff512-512-512")
    variables = module.init(jax.random.key(1), x)
    other = x.replace(ids=jnp.where(x.mask, x.ids, 7))
    longer = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, 2))), x)
    expected = module.apply(variables, x)
    for changed in (other, longer):
        np.testing.assert_allclose(module.apply(variables, changed), expected, rtol=1e-9, atol=1e-12)


def test_a_layer_is_attention_and_feed_forward_each_added_and_normalised(x64):
    """Against the layers written out."""
    x, _ = NOISE.batch(jax.random.key(0), 3)
    module = small("h256|sdp-2-ff1024-512-512|sdp-4-ff1024")
    variables = module.init(jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: leaf + 0.05 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), variables)
    p = jax.tree.map(np.asarray, params["params"])

    def dense(name, h):
        return h @ name["kernel"] + name["bias"]

    def norm(name, h):
        return (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True) * name["scale"] + name["bias"]

    def gelu(h):
        from scipy.special import ndtr

        return h * ndtr(h)

    table = p["embedding"]
    h = table["tokens"][x.ids] + table["positions"][:6] + table["segments"][0]
    h = dense(p["h256_map"], norm(table["norm"], h))
    for number, heads in ((1, 2), (2, 4)):
        layer = p[f"h256_layer_{number}"]
        attention, d = layer["attention"], 8 // heads
        q, k, v = (dense(attention[name], h) for name in ("query", "key", "value"))
        parts = []
        for i in range(heads):
            own = slice(i * d, (i + 1) * d)
            scores = np.einsum("bqc,bkc->bqk", q[..., own], k[..., own]) / np.sqrt(d)
            scores = np.exp(scores) * np.asarray(x.mask)[:, None]
            parts.append(scores / scores.sum(-1, keepdims=True) @ v[..., own])
        h = norm(layer["attention_norm"], h + dense(attention["output"], np.concatenate(parts, axis=-1)))
        z = gelu(dense(layer["inner"], h))
        feed = layer["deep_512"] if number == 1 else layer["shallow"]
        for name in ("inner_0", "inner_1", "output") if number == 1 else ("output",):
            z = dense(feed[name], z) if name == "output" else gelu(dense(feed[name], z))
        h = norm(layer["norm"], h + z)
    expected = dense(p["h256_head"]["classes"], h[:, 0])
    np.testing.assert_allclose(module.apply(params, x), expected, rtol=1e-8, atol=1e-10)


def test_words_are_predicted_by_every_architecture(x64):
    ids = np.random.default_rng(0).integers(5, 30, (4, 7))
    source = data.from_tokens(ids, vocabulary=data.Vocabulary(30, 0, 1, 2, 3, 4))
    (x, y), genotype = source.batch(jax.random.key(0), 4), SPACE.sample(jax.random.key(1))
    whole, derived = (SPACE.network(g, SMALL, source.outputs) for g in (None, genotype))
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), SPACE.encode(genotype))
    params = whole.init(jax.random.key(2), x, weights)["params"]
    like = jax.eval_shape(derived.init, jax.random.key(2), x)["params"]
    outputs = derived.apply({"params": spaces.restrict(params, like)}, x)
    np.testing.assert_allclose(whole.apply({"params": params}, x, weights), outputs, rtol=1e-9, atol=1e-9)
    assert source.loss(outputs, y).shape == (4,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h256|sdp-4-ff512|sdp-2-ff1024", "expected first 1024 channels"),
        ("h256|sdp-4-ff1024|sdp-2-ff1024|sdp-2-ff1024", "2 or 4 layers"),
        ("h192|sdp-4-ff1024|sdp-2-ff1024", "a width of 128 or 256"),
        ("h256|sdp-3-ff1024|sdp-2-ff1024", "expected a layer such as"),
        ("h256|sdp-4-ff1024-512-1024|sdp-2-ff1024", "expected a layer such as"),
        ("h256|rnn-4-ff512x3|sdp-2-ff1024", "expected a layer such as"),
    ],
)
def test_what_is_no_encoder_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_sequences_longer_than_the_positions_are_refused():
    with pytest.raises(ValueError, match="x: expected at most 8 tokens, the network's positions, got 9"):
        jax.eval_shape(
            small("h128|sdp-4-ff512|sdp-2-ff512").init, jax.random.key(0), data.shapes(data.RandomTokens(9, 30), 2).x
        )
    with pytest.raises(ValueError, match="hidden: expected a multiple of 8"):
        spaces.NASBenchBERTSize(12)
