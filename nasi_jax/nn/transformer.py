"""Parts of transformers: embeddings, self-attention, feed-forward layers and heads, all of which leave padding out."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.data import TokenInput
from nasi_jax.nn.graphs import dropped
from nasi_jax.nn.linear import Dense, parameter, weight
from nasi_jax.nn.style import FEATURES, PREACTIVATIONS, Style, handed_on, observe

LAYER_NORM_EPSILON = 1e-12  # BERT's
_SEGMENTS = 2


def check_tokens(x: Any, positions: int) -> None:
    """Checks the input of a network.

    Args:
        x: should be a `nasi_jax.data.TokenInput`.
        positions: tokens of the longest sequence that it reads.

    Raises:
        ValueError: `x` is something else, or its sequences are longer.
    """
    if not isinstance(x, TokenInput):
        raise ValueError(f"x: expected token ids, a nasi_jax.data.TokenInput, got {jax.tree.map(jnp.shape, x)}")
    if x.ids.shape[1] > positions:
        raise ValueError(f"x: expected at most {positions} tokens, the network's positions, got {x.ids.shape[1]}")


class LayerNorm(nn.Module):
    """Normalises the channels of every token (Ba, Kiros and Hinton, 2016).

    Attributes:
        style: see `Style`; where normalisation is "fixed", mean and variance are 0 and 1.
    """

    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., channels) to the same shape."""
        y = x
        if self.style.normalisation != "fixed":
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
            y = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        if self.style.affine:
            along = (1,) * (x.ndim - 1) + (-1,)
            scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:], x.dtype)
            bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], x.dtype)
            y = y * scale.reshape(along) + bias.reshape(along)
        return y.astype(x.dtype)


class Embedding(nn.Module):
    """The sum of a vector for each token, one for its position and one for its segment, normalised.

    Vectors are drawn with a mean square of 1 over all channels, so that their products with normalised states, the
    logits of `TokenHead`, are of the order of 1. There is one for each id of the data's vocabulary.

    Attributes:
        features: channels.
        positions: tokens of the longest sequence.
        segmented: whether there are vectors of segments.
        style: see `Style`.
    """

    features: int
    positions: int
    segmented: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(self, x: TokenInput) -> tuple[jax.Array, jax.Array]:
        """Returns the states of all tokens, (batch, length, features), and the vectors of all ids, for the head."""
        check_tokens(x, self.positions)
        table = self._vectors("tokens", x.vocabulary)
        states = table[x.ids] + self._vectors("positions", self.positions)[None, : x.ids.shape[1]]
        if self.segmented:
            states = states + self._vectors("segments", _SEGMENTS)[x.segments]
        return LayerNorm(self.style, name="norm")(states), table

    def _vectors(self, name: str, count: int) -> jax.Array:
        shape, gain = (count, self.features), count / self.features
        kind = self.style.parameterisation
        return weight(self, shape, jnp.result_type(float), gain=gain, parameterisation=kind, name=name)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, heads: int, drop: Any = None
) -> jax.Array:
    r"""Lets every token attend to all tokens that are no padding, by several heads.

    .. math:: \mathrm{softmax}(Q_h K_h^\top / \sqrt{d}) V_h

    Args:
        query: (batch, length, channels).
        key: likewise.
        value: likewise.
        mask: (batch, length) bool, which tokens are no padding; at least one of each sequence.
        heads: number of heads, which divides the channels into parts of d.
        drop: function of the shares of attention, for dropout; None for none.

    Returns:
        The heads' values side by side, (batch, length, channels).

    References:
        Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1.
    """
    q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in (query, key, value))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    shares = jax.nn.softmax(jnp.where(mask[:, None, None], scores, jnp.finfo(scores.dtype).min), axis=-1)
    shares = shares if drop is None else drop(shares)
    return jnp.einsum("bhqk,bkhd->bqhd", shares, v).reshape(query.shape)


class SelfAttention(nn.Module):
    """Attention of tokens to each other, with a linear layer before and after it.

    Attributes:
        heads: number of heads; of several numbers, which share all weights, a mixture.
        style: see `Style`.
    """

    heads: tuple[int, ...]
    style: Style = Style()

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, weights: jax.Array | None = None, dropout: float = 0.0
    ) -> jax.Array:
        """Computes what is added to the states.

        Args:
            x: states, (batch, length, channels).
            mask: (batch, length), which tokens are no padding.
            weights: (numbers of heads,), of a mixture.
            dropout: share of the entries of the attention that are dropped.

        Returns:
            An array like `x`.

        Raises:
            ValueError: the heads do not divide the channels.
        """
        width = x.shape[-1]
        for heads in self.heads:
            if width % heads:
                raise ValueError(f"heads: expected a number that divides {width} channels, got {heads}")
        query, key, value = (Dense(width, self.style, name=name)(x) for name in ("query", "key", "value"))
        drop = (lambda shares: dropped(self, shares, dropout)) if dropout else None
        found = [attention(query, key, value, mask, heads, drop) for heads in self.heads]
        if weights is not None:
            found = [part * weight for part, weight in zip(found, weights, strict=True)]
        return Dense(width, self.style, name="output")(sum(found[1:], found[0]))


class FeedForward(nn.Module):
    """Linear layers of every token, with GELU between them.

    Attributes:
        features: channels of the last layer.
        inner: channels of those before it.
        style: see `Style`.
    """

    features: int
    inner: tuple[int, ...]
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, uses: jax.Array | float = 1.0) -> jax.Array:
        """Computes what is added to the states.

        Args:
            x: (batch, length, channels).
            mask: (batch, length), which tokens are no padding.
            uses: whether the result is read at all, see `nasi_jax.nn.observe`.

        Returns:
            (batch, length, features).
        """
        for i, channels in enumerate(self.inner):
            x = Dense(channels, self.style, name=f"inner_{i}")(x)
            observe_tokens(self, f"activation_{i}", x, mask, uses)
            x = gelu(x)
        return Dense(self.features, self.style, name="output")(x)


def gelu(x: jax.Array) -> jax.Array:
    """Returns x times the normal distribution's share below x (Hendrycks and Gimpel, 2016), without approximation."""
    return nn.gelu(x, approximate=False)


class TokenHead(nn.Module):
    """The outputs of an encoder: logits of a sequence's class, or of the ids at places that are masked out.

    A sequence is classified by the state of its first token, which is [CLS]. Ids are predicted by a layer and the
    vectors of the embedding, which are the weights of the last layer too, with a bias for each.

    Attributes:
        outputs: number of labels; or the number of ids times the places that are predicted.
        style: see `Style`.
    """

    outputs: int
    style: Style = Style()

    @nn.compact
    def __call__(self, states: jax.Array, x: TokenInput, table: jax.Array, dropout: float = 0.0) -> jax.Array:
        """Computes the logits.

        Args:
            states: of the encoder, (batch, length, channels).
            x: what the network read.
            table: vectors of all ids, (ids, features), from `Embedding`.
            dropout: share of the entries of the first state that are dropped.

        Returns:
            Logits, (batch, outputs); of several places one after the other.

        Raises:
            ValueError: the outputs are not as many as the ids at all places.
        """
        if x.targets is None:
            return Dense(self.outputs, self.style, name="classes")(dropped(self, states[:, 0], dropout))
        if self.outputs != x.targets.shape[1] * len(table):
            raise ValueError(f"outputs: expected {x.targets.shape[1]} places of {len(table)} ids, got {self.outputs}")
        read = jnp.take_along_axis(states, x.targets[..., None], axis=1)
        hidden = gelu(Dense(table.shape[1], self.style, name="words")(read))
        logits = LayerNorm(self.style, name="norm")(hidden) @ table.T
        bias = parameter(self, "bias", nn.initializers.zeros, (len(table),), logits.dtype)
        return (logits + bias[None, None]).reshape(len(logits), self.outputs)


def without_padding(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Sets what padding has to the mean over all other tokens of the batch.

    Then mean and covariance over all places are, up to a factor of the latter, those over the tokens that are there.

    Args:
        values: (batch, length, channels).
        mask: (batch, length), which tokens are no padding.

    Returns:
        An array like `values`.
    """
    there = mask[..., None]
    mean = jnp.sum(jnp.where(there, values, 0), axis=(0, 1), keepdims=True) / jnp.sum(mask).astype(values.dtype)
    return jnp.where(there, values, mean)


def observe_tokens(
    module: nn.Module, name: str, values: jax.Array, mask: jax.Array, uses: jax.Array | float = 1.0
) -> None:
    """Sows the input of an activation (batch, length, channels) `without_padding`; see `nasi_jax.nn.observe`."""
    if module.is_mutable_collection(PREACTIVATIONS):
        observe(module, name, without_padding(values, mask), uses)


def tokens_handed_on(module: nn.Module, number: int, states: jax.Array, mask: jax.Array) -> jax.Array:
    """Shows states (batch, length, channels) `without_padding`, which no other token reads; see `handed_on`."""
    if module.is_mutable_collection(FEATURES):
        states = without_padding(states, mask)
    return handed_on(module, number, states)
