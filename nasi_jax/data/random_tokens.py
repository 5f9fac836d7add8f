"""Random token ids with random labels: a search for a network of text without a text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data.in_memory import random_labels
from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch
from nasi_jax.data.tokens import TokenInput, Vocabulary


@struct.dataclass
class RandomTokens:
    """A stream of sequences of uniformly random ids, with uniformly random labels.

    Sequences have between half of the tokens and all of them, and padding after these.

    Attributes:
        length: tokens of the longest sequence.
        vocabulary: number of ids, of which the first, 0, is the padding.
        outputs: number of labels.
        loss: see `nasi_jax.data.Source`.

    Raises:
        ValueError: a number is out of range.
    """

    length: int = struct.field(pytree_node=False, default=64)
    vocabulary: int = struct.field(pytree_node=False, default=Vocabulary.size)
    outputs: int = struct.field(pytree_node=False, default=10)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name, bound in {"length": 1, "vocabulary": 2, "outputs": 1}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected an integer of at least {bound}, got {getattr(self, name)!r}")

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` cannot be drawn."""
        if size < 1:
            raise ValueError(f"batch: expected a positive integer, got {size}")

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws a batch; works under `jit`, `vmap` and `scan`.

        Args:
            key: a typed random key.
            size: number of sequences.

        Returns:
            A `TokenInput`, and labels (size,) int32, or targets (size, outputs) where the loss is of a regression.
        """
        id_key, length_key, label_key = jax.random.split(key, 3)
        drawn = jax.random.randint(id_key, (size, self.length), 1, self.vocabulary, jnp.int32)
        lengths = jax.random.randint(length_key, (size, 1), (self.length + 1) // 2, self.length + 1)
        mask = jnp.arange(self.length)[None] < lengths
        ids = jnp.where(mask, drawn, 0)
        x = TokenInput(ids, mask, jnp.zeros_like(ids), None, self.vocabulary)
        return Batch(x, random_labels(label_key, size, self.outputs, self.loss))
