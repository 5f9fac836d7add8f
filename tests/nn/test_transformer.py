"""Parts of transformers, against Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax import data, nn
from nasi_jax.nn import transformer

MASK = jnp.arange(7)[None] < jnp.array([[7], [4], [1]])
STATES = np.random.default_rng(0).normal(size=(3, 7, 12))


def tokens(ids, mask=None, **options):
    ids = jnp.asarray(ids, jnp.int32)
    mask = jnp.ones(ids.shape, bool) if mask is None else mask
    return data.TokenInput(ids, mask, jnp.zeros_like(ids), **({"vocabulary": 11} | options))


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention_is_that_of_flax(heads, x64):
    x, key = jnp.asarray(STATES), jax.random.key(0)
    reference = flax_nn.MultiHeadDotProductAttention(heads, param_dtype=jnp.float64)
    attended = MASK[:, None, None]
    variables = reference.init(key, x, mask=attended)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    own = {
        mine: {"kernel": part["kernel"].reshape(12, 12), "bias": part["bias"].reshape(12)}
        for mine, theirs in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "out"))
        for part in [variables["params"][theirs]]
    }
    module = transformer.SelfAttention((heads,))
    np.testing.assert_allclose(
        module.apply({"params": own}, x, MASK), reference.apply(variables, x, mask=attended), rtol=1e-9, atol=1e-9
    )


def test_layer_norm_is_that_of_flax(x64):
    x = 3 + jnp.asarray(STATES)
    reference = flax_nn.LayerNorm(epsilon=1e-12, param_dtype=jnp.float64)
    params = {"scale": jnp.linspace(1, 2, 12), "bias": jnp.linspace(-1, 1, 12)}
    found = transformer.LayerNorm().apply({"params": params}, x)
    np.testing.assert_allclose(found, reference.apply({"params": params}, x), rtol=1e-9, atol=1e-9)
    fixed = transformer.LayerNorm(nn.Style(affine=False, normalisation="fixed"))
    np.testing.assert_array_equal(fixed.apply({}, x), x)


def test_gelu_is_the_exact_one(x64):
    from scipy.stats import norm

    x = np.linspace(-4, 4, 50)
    np.testing.assert_allclose(transformer.gelu(jnp.asarray(x)), x * norm.cdf(x), rtol=1e-10, atol=1e-12)


def test_padding_changes_nothing_at_other_places(x64):
    x = jnp.asarray(STATES)
    other = jnp.where(MASK[..., None], x, 99.0)
    module = transformer.SelfAttention((2, 4))
    weights = jnp.array([0.3, 0.7])
    variables = module.init(jax.random.key(0), x, MASK, weights)
    first, second = (np.asarray(module.apply(variables, states, MASK, weights)) for states in (x, other))
    np.testing.assert_array_equal(first[np.asarray(MASK)], second[np.asarray(MASK)])
    parts = [transformer.SelfAttention((heads,)).apply(variables, x, MASK) for heads in (2, 4)]
    np.testing.assert_allclose(first, 0.3 * parts[0] + 0.7 * parts[1], atol=1e-12)


def test_what_is_shown_has_the_moments_of_what_is_no_padding(x64):
    filled = np.asarray(transformer.without_padding(jnp.asarray(STATES), MASK)).reshape(-1, 12)
    there = STATES[np.asarray(MASK)]
    np.testing.assert_allclose(filled.mean(axis=0), there.mean(axis=0), atol=1e-12)
    covariance = np.cov(there.T, bias=True) * len(there) / len(filled)
    np.testing.assert_allclose(np.cov(filled.T, bias=True), covariance, atol=1e-12)


def test_words_are_predicted_by_the_vectors_of_the_embedding(x64):
    x = tokens([[1, 2, 3], [4, 5, 6]], targets=jnp.array([[0, 2], [1, 0]]))
    embedding = transformer.Embedding(4, 3)
    variables = embedding.init(jax.random.key(0), x)
    states, table = embedding.apply(variables, x)
    np.testing.assert_allclose(states.mean(axis=-1), 0, atol=1e-9)
    head = transformer.TokenHead(22)
    own = head.init(jax.random.key(1), states, x, table)
    logits = np.asarray(head.apply(own, states, x, table)).reshape(2, 2, 11)
    dense = own["params"]["words"]
    hidden = transformer.gelu(states[1, 1] @ dense["kernel"] + dense["bias"])
    normalised = (hidden - hidden.mean()) / hidden.std()
    np.testing.assert_allclose(logits[1, 0], normalised @ table.T, rtol=1e-9)
    with pytest.raises(ValueError, match="outputs: expected 2 places of 11 ids"):
        transformer.TokenHead(23).init(jax.random.key(1), states, x, table)
    plain = tokens([[1, 2, 3], [4, 5, 6]])
    classes = transformer.TokenHead(3)
    own = classes.init(jax.random.key(1), states, plain, table)
    expected = states[:, 0] @ own["params"]["classes"]["kernel"]
    np.testing.assert_allclose(classes.apply(own, states, plain, table), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (tokens([[1, 2, 3, 4]]), "x: expected at most 3 tokens, the network's positions, got 4"),
        (jnp.zeros((2, 3)), "x: expected token ids"),
    ],
)
def test_what_does_not_fit_the_embedding_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        transformer.Embedding(4, 3).init(jax.random.key(0), x)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="heads: expected a number that divides 12 channels, got 5"):
        transformer.SelfAttention((5,)).init(jax.random.key(0), jnp.asarray(STATES), MASK)


def test_attention_and_the_first_state_are_dropped_by_key():
    x = jnp.asarray(STATES, jnp.float32)
    module = transformer.SelfAttention((2,))
    variables = module.init(jax.random.key(0), x, MASK)
    first, again, second = (
        module.apply(variables, x, MASK, dropout=0.5, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
