"""The network of NAS-BERT: an embedding, four blocks of sub-layers with maps between widths, a head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from nasi_jax.nn import Dense, Style, as_block
from nasi_jax.nn.graphs import dropped
from nasi_jax.nn.separable import SeparableConv
from nasi_jax.nn.transformer import (
    Embedding,
    FeedForward,
    LayerNorm,
    SelfAttention,
    TokenHead,
    tokens_handed_on,
)
from nasi_jax.programs import Execution
from nasi_jax.spaces.base import Network, check_positive

WIDTHS = (128, 192, 256, 384, 512)
"""Of the blocks at the published size."""
HEADS = (2, 3, 4, 6, 8)
OPERATIONS = ("M", "F", "S3", "S5", "S7")
BLOCKS, LAYERS = 4, 6


@dataclasses.dataclass(frozen=True)
class NASBERTSize:
    """Sizes of a network; its vocabulary is that of the data, of the published networks 50,265 ids.

    Attributes:
        width: the largest width, 8 heads; the others are 1/4, 3/8, 1/2 and 3/4 of it, with 2, 3, 4 and 6 heads.
        embedding: channels of the embedding; of the published networks of 5, 10, 30 and 60 million parameters 64, 128,
            256 and 512.
        positions: tokens of the longest sequence.
        convolutions: how many separable convolutions "S3", "S5" and "S7" are, one after the other.

    Raises:
        ValueError: a number is out of range, or the heads do not divide the widths.
    """

    width: int = 512
    embedding: int = 64
    positions: int = 512
    convolutions: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_positive(self, width=1, embedding=1, positions=1, convolutions=1)
        if self.width % HEADS[-1]:
            raise ValueError(f"width: expected a multiple of {HEADS[-1]}, the number of heads, got {self.width}")

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of blocks at this size."""
        return tuple(heads * self.width // HEADS[-1] for heads in HEADS)


class NASBERTOperation(nn.Module):
    """One sub-layer: the states plus what the operation makes of them, normalised.

    Attributes:
        operation: one of `OPERATIONS`.
        heads: number of heads of self-attention.
        convolutions: see `NASBERTSize`.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    operation: str
    heads: int
    convolutions: int = 2
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, states: jax.Array, mask: jax.Array, dropout: float = 0.0) -> jax.Array:
        """Maps states (batch, length, width) of tokens, where `mask` (batch, length) is true, to the same shape."""
        added: list[Callable[[jax.Array], jax.Array]]
        if self.operation == "M":
            attention = SelfAttention((self.heads,), self.style, name="attention")
            added = [lambda states: attention(states, mask, dropout=dropout)]
        elif self.operation == "F":
            forward = FeedForward(states.shape[-1], (4 * states.shape[-1],), self.style, name="forward")
            added = [lambda states: forward(states, mask)]
        else:
            window, names = int(self.operation[1:]), [f"convolution_{i}" for i in range(self.convolutions)]
            added = [functools.partial(SeparableConv(window, self.style, name=name), mask=mask) for name in names]
        for i, of_states in enumerate(added):
            states = LayerNorm(self.style, name=f"norm_{i}")(states + dropped(self, of_states(states), dropout))
        return states


class NASBERTStem(nn.Module):
    """The embedding of tokens, with a map to the width of the first block where that is another one.

    Attributes:
        size: see `NASBERTSize`.
        width: of the first block.
        style: see `nasi_jax.nn.Style`.
    """

    size: NASBERTSize
    width: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Any, dropout: float = 0.0) -> tuple[jax.Array, jax.Array]:
        """Returns the states of all tokens, (batch, length, width), and the vectors of all ids, for the head.

        Raises:
            ValueError: `x` is no `nasi_jax.data.TokenInput`, or does not fit the network.
        """
        size = self.size
        embedding = Embedding(size.embedding, size.positions, segmented=False, style=self.style, name="embedding")
        states, table = embedding(x)
        if size.embedding != self.width:
            states = Dense(self.width, self.style, name="map")(states)
        return dropped(self, states, dropout), table


class NASBERTNetwork(Network):
    """The network of an encoder.

    Attributes:
        size: see `NASBERTSize`.
        outputs: number of outputs, see `nasi_jax.nn.TokenHead`.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        blocks: for each block the place of its width, and its operations.
    """

    capabilities = frozenset({"blocks", "features", "dropout"})

    blocks: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @nn.compact
    def __call__(self, x: Any, dropout: float = 0.0) -> jax.Array:
        """Computes the outputs.

        Args:
            x: a `nasi_jax.data.TokenInput`.
            dropout: share of the entries that are dropped everywhere.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is something else, or does not fit the network.
        """
        size: NASBERTSize = self.size
        widths = [size.widths[place] for place, _ in self.blocks]
        states, table = NASBERTStem(size, widths[0], self.style, name="stem")(x, dropout)
        states, number = tokens_handed_on(self, 0, states, x.mask), 0
        for block, (place, operations) in enumerate(self.blocks):
            if states.shape[-1] != widths[block]:
                states = Dense(widths[block], self.style, name=f"map_{block}")(states)
            for layer, operation in enumerate(operations):
                attributes = {
                    "operation": operation,
                    "heads": HEADS[place],
                    "convolutions": size.convolutions,
                    "style": self.style,
                    "execution": self.execution,
                }
                name, number = f"block_{block}_{layer}_{operation}", number + 1
                if dropout:
                    states = NASBERTOperation(**attributes, name=name)(states, x.mask, dropout)
                else:
                    states = as_block(self, NASBERTOperation, name, attributes, states, x.mask)
                states = tokens_handed_on(self, number, states, x.mask)
        return TokenHead(self.outputs, self.style, name="head")(states, x, table, dropout)
