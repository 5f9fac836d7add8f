"""The contract of a space whose architectures are blocks in a row that can be valued apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from flax import linen as nn

from nasi_jax.spaces.base import SearchSpace

Piece = tuple[nn.Module, tuple[Any, ...]]
"""A module, and the shapes of what it is called with."""


class SharedBlock(Protocol):
    """All candidates of a block of one width: they share weights, and their operations are an input of the program."""

    @property
    def width(self) -> int:
        """Channels of the states."""
        ...

    def init(self, key: jax.Array) -> Any:
        """Draws the weights of all operations at all layers."""
        ...

    def __call__(self, params: Any, states: jax.Array, mask: jax.Array, operations: jax.Array) -> jax.Array:
        """Computes one candidate.

        Args:
            params: from `init`.
            states: (batch, length, width).
            mask: (batch, length), which tokens are no padding.
            operations: (layers,) integers, as of `BlockSpace.candidates`; may be traced.

        Returns:
            An array like `states`.
        """
        ...


class BlockSpace(SearchSpace):
    """A space of blocks in a row, each of one width, which have the same candidates.

    Attributes:
        blocks: number of blocks.
        widths: the widths that a block may have, at the published size.
    """

    blocks: ClassVar[int]
    widths: ClassVar[tuple[int, ...]]

    @property
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Every candidate of a block: the place of its width, (candidates,), and its operations, (candidates, layers).

        Operations count from 1 on, and 0 is no operation.
        """
        raise NotImplementedError

    @property
    def reference(self) -> int:
        """The number of the candidate that every block of a large network made by hand has."""
        raise NotImplementedError

    def joined(self, candidates: Sequence[int]) -> Any:
        """Returns the genotype of the candidates of all blocks, by their numbers."""
        raise NotImplementedError

    def block_text(self, candidate: int) -> str:
        """Writes a candidate of a block, as the text form of a genotype does."""
        raise NotImplementedError

    def block(self, size: Any, port: int) -> SharedBlock:
        """Returns all candidates of a block whose width has a place."""
        raise NotImplementedError

    def operation_piece(self, size: Any, port: int, operation: int, x: Any) -> Piece:
        """Returns an operation, by its number, at a width, by its place.

        Args:
            size: of the network.
            port: place of the width.
            operation: number of the operation.
            x: what the network reads, as arrays or shapes.

        Returns:
            The module, and the shapes of what it reads.
        """
        raise NotImplementedError

    def joint_piece(self, size: Any, outputs: int, before: int | None, after: int | None, x: Any) -> Piece | None:
        """Returns what stands between two widths.

        Args:
            size: of the network.
            outputs: number of outputs.
            before: place of the width before it; None at the beginning of the network.
            after: place of the width after it; None at the end.
            x: see `operation_piece`.

        Returns:
            The module, and the shapes of what it reads; None where there is nothing.
        """
        raise NotImplementedError
