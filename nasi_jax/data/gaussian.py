"""Inputs from a standard Gaussian with random labels: a search without a data set."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch


@struct.dataclass
class Gaussian:
    """A stream of standard Gaussian images with uniformly random labels.

    The method is label- and data-agnostic (NASI, Proposition 2), so these inputs serve for a search as well.

    Attributes:
        image_shape: (height, width, colours) of an image.
        outputs: number of labels.
        loss: see `nasi_jax.data.Source`.
    """

    image_shape: tuple[int, int, int] = struct.field(pytree_node=False, default=(32, 32, 3))
    outputs: int = struct.field(pytree_node=False, default=10)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def __post_init__(self) -> None:
        """Checks the sizes."""
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape: expected (height, width, colours), all positive, got {self.image_shape}")
        if self.outputs < 1:
            raise ValueError(f"outputs: expected a positive integer, got {self.outputs}")

    def resized(self, size: int) -> Gaussian:
        """Returns images of another height and width."""
        return Gaussian((size, size, self.image_shape[-1]), self.outputs, self.loss)

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` cannot be drawn."""
        if size < 1:
            raise ValueError(f"batch: expected a positive integer, got {size}")

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws a batch; works under `jit`, `vmap` and `scan`.

        Args:
            key: a typed random key.
            size: number of images.

        Returns:
            Images (size, height, width, colours) in JAX's default float type and labels (size,) int32.
        """
        image_key, label_key = jax.random.split(key)
        # drawn along one axis, which XLA compiles for a CPU in a fifth of the time
        pixels = jax.random.normal(image_key, (size * math.prod(self.image_shape),), jnp.result_type(float))
        images = pixels.reshape(size, *self.image_shape)
        return Batch(images, jax.random.randint(label_key, (size,), 0, self.outputs))
