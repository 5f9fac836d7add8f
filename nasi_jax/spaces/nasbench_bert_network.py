"""The networks of NAS-Bench-BERT: BERT's layers, of which each chooses its heads and its feed-forward part."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.data import TokenInput
from nasi_jax.nn import Dense, Style, as_block
from nasi_jax.nn.graphs import dropped
from nasi_jax.nn.transformer import (
    Embedding,
    FeedForward,
    LayerNorm,
    SelfAttention,
    TokenHead,
    gelu,
    observe_tokens,
    tokens_handed_on,
)
from nasi_jax.programs import Execution
from nasi_jax.spaces.base import Network, Weights, check_positive
from nasi_jax.spaces.nasbench_bert_text import DEEP, HEADS, LAYERS, WIDTHS

_FEEDS = (None, *DEEP)
_INNER = 4


@dataclasses.dataclass(frozen=True)
class NASBenchBERTSize:
    """Size of the networks; the defaults are the benchmark's.

    Attributes:
        hidden: channels of the wide networks, divisible by 8; the narrow ones have half of them, and deep feed-forward
            parts two or four times as many.
        embedding: channels of the embedding, brought to those of the network by a linear layer where they differ.
        positions: tokens of the longest sequence.

    Raises:
        ValueError: one of them is no integer or too small, or the heads do not divide the channels.
    """

    hidden: int = 256
    embedding: int = 128
    positions: int = 512

    def __post_init__(self) -> None:
        """Checks all of them."""
        check_positive(self, hidden=8, embedding=1, positions=1)
        if self.hidden % 8:
            raise ValueError(f"hidden: expected a multiple of 8, for four heads of half as many, got {self.hidden}")

    def channels(self, width: int) -> int:
        """Returns the channels of the networks of a width, by its index."""
        return self.hidden * WIDTHS[width] // WIDTHS[-1]

    def deep(self, feed: int) -> int:
        """Returns the channels of the layers of a deep feed-forward part, by those that are published."""
        return self.hidden * feed // WIDTHS[-1]


class Layer(nn.Module):
    """Attention and a feed-forward part, each added to what it reads, and normalised.

    Attributes:
        size: see `NASBenchBERTSize`.
        choices: indices into `LAYERS`: one, or those of a mixture, all.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    size: NASBenchBERTSize
    choices: tuple[int, ...]
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        weights: jax.Array | None = None,
        uses: jax.Array | float = 1.0,
        dropout: float = 0.0,
    ) -> jax.Array:
        """Computes the states behind the layer.

        Args:
            x: states, (batch, length, channels).
            mask: (batch, length), which tokens are no padding.
            weights: (6,), of a mixture.
            uses: whether the result is read at all, see `nasi_jax.nn.observe`.
            dropout: share of the entries of both parts, and of the attention, that are dropped.

        Returns:
            An array like `x`.
        """
        width, style = x.shape[-1], self.style
        several = None if weights is None else weights.reshape(len(HEADS), len(_FEEDS))
        heads = sorted({HEADS[i // len(_FEEDS)] for i in self.choices})
        attended = SelfAttention(tuple(heads), style, name="attention")(
            x, mask, None if several is None else jnp.sum(several, axis=1), dropout
        )
        x = LayerNorm(style, name="attention_norm")(x + dropped(self, attended, dropout))
        z = Dense(_INNER * width, style, name="inner")(x)
        observe_tokens(self, "activation", z, mask, uses)
        z, terms = gelu(z), []
        for place, feed in enumerate(_FEEDS):
            if all(i % len(_FEEDS) != place for i in self.choices):
                continue
            inner = () if feed is None else 2 * (self.size.deep(feed),)
            share = 1.0 if several is None else jnp.sum(several[:, place])
            name = "shallow" if feed is None else f"deep_{feed}"
            terms.append(share * FeedForward(width, inner, style, name=name)(z, mask, uses * share))
        total = sum(terms[1:], terms[0])
        return LayerNorm(style, name="norm")(x + dropped(self, total, dropout))


class NASBenchBERTNetwork(Network):
    """Embedding, two or four layers of one width, and a head.

    Attributes:
        size: see `NASBenchBERTSize`.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        choices: index of the width and those of the layers, or None for the one-shot network.
    """

    capabilities = frozenset({"blocks", "dropout", "features", "depth"})

    choices: tuple[int, tuple[int, ...]] | None = None

    @nn.compact
    def __call__(self, x: Any, weights: Weights | None = None, dropout: float = 0.0) -> jax.Array:
        """Computes the logits.

        Args:
            x: a `nasi_jax.data.TokenInput`.
            weights: of the one-shot network, see `NASBenchBERT.alphas`; None for a derived one.
            dropout: share of the entries that are dropped, of the embedding, of the attention, and behind each part.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is something else, or its sequences are longer than the positions.
        """
        size: NASBenchBERTSize = self.size
        states, table = Embedding(size.embedding, size.positions, style=self.style, name="embedding")(x)
        states = dropped(self, states, dropout)
        if self.choices is not None:
            width, layers = self.choices
            h = tokens_handed_on(self, 0, self._brought(width, states), x.mask)
            for number, layer in enumerate(layers, start=1):
                h = self._layer(width, number, (layer,), h, x, None, 1.0, dropout)
                h = tokens_handed_on(self, number, h, x.mask)
            return self._head(width)(h, x, table, dropout)
        assert weights is not None
        pair = weights["layers 3 and 4"][0]
        four, both = jnp.sum(pair[1:]), pair[1:].reshape(len(LAYERS), len(LAYERS))
        rows = [*weights["layers"], jnp.sum(both, axis=1), jnp.sum(both, axis=0)]
        total = jnp.zeros((), states.dtype)
        for width in range(len(WIDTHS)):
            share, h, second = weights["width"][0, width], self._brought(width, states), states
            for number, row in enumerate(rows, start=1):
                uses = share * (four if number > 2 else jnp.ones_like(four))
                h = self._layer(width, number, tuple(range(len(LAYERS))), h, x, row, uses, dropout)
                second = h if number == 2 else second
            h = pair[0] * second + four * h
            total = total + share * self._head(width)(h, x, table, dropout)
        return total

    def _brought(self, width: int, states: jax.Array) -> jax.Array:
        """Brings the embedding to the channels of a width."""
        channels = self.size.channels(width)
        if channels == states.shape[-1]:
            return states
        return Dense(channels, self.style, name=f"h{WIDTHS[width]}_map")(states)

    def _layer(
        self,
        width: int,
        number: int,
        choices: tuple[int, ...],
        h: jax.Array,
        x: TokenInput,
        weights: jax.Array | None,
        uses: Any,
        dropout: float,
    ) -> jax.Array:
        name = f"h{WIDTHS[width]}_layer_{number}"
        attributes: dict[str, Any] = {"size": self.size, "choices": choices}
        attributes |= {"style": self.style, "execution": self.execution}
        if dropout:
            return Layer(**attributes, name=name)(h, x.mask, weights, uses, dropout)
        return as_block(self, Layer, name, attributes, h, x.mask, *(() if weights is None else (weights, uses)))

    def _head(self, width: int) -> TokenHead:
        return TokenHead(self.outputs, self.style, name=f"h{WIDTHS[width]}_head")
