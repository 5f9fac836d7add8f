"""Examples in memory: images, or what is known by a number, a graph or a part of one, or a sequence of token ids."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch


class InMemory:
    """What such examples have in common; for a `flax.struct` dataclass with these fields and `prepare`.

    Attributes:
        x: what is stored of each, (examples, ...).
        y: what outputs are compared with, (examples, ...).
        outputs: number of outputs of a network.
        labels: "random" where labels or targets are drawn.
        loss: see `nasi_jax.data.Source`.
    """

    x: jax.Array
    y: jax.Array
    outputs: int
    labels: Any
    loss: Loss

    def prepare(self, x: jax.Array) -> Any:
        """Returns what a network reads for some of `self.x`."""
        raise NotImplementedError

    def redrawn(self, key: jax.Array, x: jax.Array, y: jax.Array) -> Batch:
        """Returns what a network reads, and what its outputs are compared with; nothing is drawn anew."""
        return Batch(self.prepare(x), y)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.x)

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct examples cannot be drawn."""
        check_batch(size, len(self))

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws distinct examples; works under `jit`, `vmap` and `scan`.

        Args:
            key: a typed random key.
            size: number of examples.

        Returns:
            What a network reads, and what its outputs are compared with, (size, ...).
        """
        x, y = self.drawn(key, size)
        return Batch(self.prepare(x), y) if self.labels == "random" else self.redrawn(jax.random.split(key)[1], x, y)

    def drawn(self, key: jax.Array, size: int) -> Batch:
        """Draws the examples of `batch` as they are stored."""
        index_key, label_key = jax.random.split(key)
        index = jax.random.choice(index_key, self.x.shape[0], (size,), replace=False)
        if self.labels == "random":
            return Batch(self.x[index], random_labels(label_key, size, self.outputs, self.loss))
        return Batch(self.x[index], self.y[index])

    def stored(self, size: int) -> Batch:
        """Returns the shapes and types of a batch before `prepare`."""
        x, y = (jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype) for array in (self.x, self.y))
        return Batch(x, y)

    def batches(self, size: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Goes once through all examples, in order.

        Args:
            size: examples in a batch; the last one may have fewer.

        Yields:
            Examples as they are stored, for `prepare`, and what outputs are compared with.
        """
        for start in range(0, len(self), size):
            yield _slice((self.x, self.y), start, size=min(size, len(self) - start))

    def part(self, index: np.ndarray) -> Self:
        """Returns some of the examples."""
        return self.replace(x=self.x[index], y=self.y[index])  # type: ignore[attr-defined]


@functools.partial(jax.jit, static_argnames="size")
def _slice(arrays: tuple[jax.Array, jax.Array], start: jax.Array, *, size: int) -> tuple[jax.Array, jax.Array]:
    x, y = (jax.lax.dynamic_slice_in_dim(array, start, size) for array in arrays)
    return x, y


def check_batch(size: int, examples: int) -> None:
    """Raises ValueError if a batch of `size` distinct examples cannot be drawn from so many."""
    if not 1 <= size <= examples:
        raise ValueError(f"batch: expected 1 to {examples}, the number of examples, got {size}")


def random_labels(key: jax.Array, size: int, outputs: int, loss: Loss) -> jax.Array:
    """Draws uniform labels (size,), or standard Gaussian targets (size, outputs) where the loss is of a regression."""
    if loss is cross_entropy:
        return jax.random.randint(key, (size,), 0, outputs)
    return jax.random.normal(key, (size, outputs), jnp.result_type(float))
