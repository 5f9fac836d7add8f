"""Examples in two parts: weights are trained on one of them, architectures are judged by the other."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import struct

from nasi_jax.data.arrays import hold_out
from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch, Source


@struct.dataclass
class Halves:
    """Two sources, of which the first stands for both where a single one is asked for; made by `halves`.

    Attributes:
        training: what weights are trained on.
        validation: what architectures are judged by.
    """

    training: Any
    validation: Any

    @property
    def outputs(self) -> int:
        """Number of outputs of a network."""
        return self.training.outputs

    @property
    def loss(self) -> Loss:
        """Loss of each example."""
        return self.training.loss

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` cannot be drawn from each part."""
        for part in (self.training, self.validation):
            part.check_batch(size)

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws training examples."""
        return self.training.batch(key, size)


def halves(source: Source, share: float, batch: int) -> Halves:
    """Splits a source at random, always in the same way.

    Args:
        source: images in memory; or what draws new examples each time, of which both parts are the whole.
        share: share of the examples for validation.
        batch: examples that are drawn from each part at a time.

    Returns:
        The parts, both normalised by the statistics of the training examples.

    Raises:
        ValueError: a part is smaller than a batch, or all examples have the same label.
    """
    if source.loss is cross_entropy and source.outputs < 2:
        raise ValueError(f"labels: expected at least two to train weights on, got {source.outputs}")
    if not hasattr(source, "part"):
        source.check_batch(batch)
        return Halves(source, source)
    images: Any = source
    held = round(share * len(images))
    if min(held, len(images) - held) < batch:
        raise ValueError(
            f"validation: expected a share that leaves a batch of {batch} in both parts of {len(images)} examples, got "
            f"{share}, which makes them {len(images) - held} and {held}"
        )
    labels = np.unique(np.asarray(images.y))
    if source.loss is cross_entropy and getattr(source, "labels", "true") == "true" and len(labels) < 2:
        raise ValueError(f"labels: expected at least two to train weights on, all examples have label {labels[0]}")
    return Halves(*hold_out(images, share))
