"""A source whose images are changed at random each time that they are drawn."""

from __future__ import annotations

import jax
from flax import struct

from nasi_jax.data import augment
from nasi_jax.data.arrays import Images
from nasi_jax.data.losses import Loss
from nasi_jax.data.source import Batch, Source


@struct.dataclass
class Augmented:
    """Images in memory, changed at random in every batch; made by `augmented`.

    Attributes:
        images: the images.
        crop: pixels of black around an image, from which one of the same size is cut; 0 is none.
        flip: whether half of the images are mirrored.
        cutout: side of the square that is set to the mean, in pixels of the images before they are resized; 0 is none.
    """

    images: Images
    crop: int = struct.field(pytree_node=False, default=0)
    flip: bool = struct.field(pytree_node=False, default=False)
    cutout: int = struct.field(pytree_node=False, default=0)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.images)

    @property
    def outputs(self) -> int:
        """Number of labels."""
        return self.images.outputs

    @property
    def loss(self) -> Loss:
        """Loss of each example."""
        return self.images.loss

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct images cannot be drawn."""
        self.images.check_batch(size)

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws distinct examples and changes them; see `Images.batch`."""
        key, crop_key, flip_key, cutout_key = jax.random.split(key, 4)
        x, y = self.images.drawn(key, size)
        if self.crop:
            x = augment.crop(crop_key, x, self.crop)
        if self.flip:
            x = augment.flip(flip_key, x)
        height = x.shape[1]
        x = self.images.prepare(x)
        if self.cutout:
            x = augment.cutout(cutout_key, x, max(1, round(self.cutout * x.shape[1] / height)))
        return Batch(x, y)


def augmented(source: Source, *, crop: int = 0, flip: bool = False, cutout: int = 0) -> Source:
    """Makes a source change its images at random each time that they are drawn.

    Args:
        source: images in memory; or what draws new examples each time, which stays as it is.
        crop: see `Augmented`.
        flip: see `Augmented`.
        cutout: see `Augmented`.

    Returns:
        The source; the same one where nothing is asked for.

    Raises:
        ValueError: something is asked for, and the examples are no images.
    """
    asked = {"crop": crop, "flip": flip, "cutout": cutout}
    if not any(asked.values()) or not hasattr(source, "part"):
        return source
    if not isinstance(source, Images):
        name, value = next((name, value) for name, value in asked.items() if value)
        raise ValueError(f"{name}: expected {type(value)(0)} with inputs that are no images, got {value}")
    return Augmented(source, crop, flip, cutout)
