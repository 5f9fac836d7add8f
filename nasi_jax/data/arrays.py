"""Batches from arrays in memory."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Protocol, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data.in_memory import InMemory
from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Examples

Labels = Literal["true", "random"]
"""Which labels a batch carries: the data set's own, or uniformly random ones."""


class _Pictures(Examples, Protocol):
    """Images in memory or on disk, with the mean and deviation of each colour."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def mean(self) -> jax.Array: ...

    @property
    def deviation(self) -> jax.Array: ...


PicturesT = TypeVar("PicturesT", bound=_Pictures)
ExamplesT = TypeVar("ExamplesT", bound=Examples)

WHITENED = 4096
"""Numbers of the largest images that are whitened; the matrix has this square."""


@struct.dataclass
class Images(InMemory):
    """Images and labels in memory, drawn in random batches; made by `from_arrays`.

    Images leave as (x - mean) / deviation, with both taken for each colour over the whole data set, so that each
    colour has mean 0 and variance 1. Arrays of bytes stay bytes until then. See `whitened` for what may follow.

    Attributes:
        x: images, (examples, height, width, colours), uint8 or floating.
        y: labels, (examples,) int32; not used when labels are random.
        mean: (colours,), in the units of `x`.
        deviation: (colours,), in the units of `x`; 1 where the data set is constant.
        outputs: number of labels.
        labels: see `Labels`.
        image_size: height and width that batches are resized to, or None.
        loss: see `nasi_jax.data.Source`.
        whitening: mean image (1, numbers) and matrix (numbers, numbers) that make pixels uncorrelated, or None.
    """

    x: jax.Array
    y: jax.Array
    mean: jax.Array
    deviation: jax.Array
    outputs: int = struct.field(pytree_node=False)
    labels: Labels = struct.field(pytree_node=False)
    image_size: int | None = struct.field(pytree_node=False, default=None)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)
    whitening: tuple[jax.Array, jax.Array] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, colours) of an image, after resizing."""
        height, width, colours = self.x.shape[1:]
        return self.image_size or height, self.image_size or width, colours

    def prepare(self, x: jax.Array) -> jax.Array:
        """Normalises images (size, height, width, colours), in the type of `self.x`, resizes and whitens them."""
        images = normalised(x, self.mean, self.deviation)
        if images.shape[1:] != self.image_shape:
            images = jax.image.resize(images, (len(x), *self.image_shape), "linear")
        if self.whitening is not None:
            centre, matrix = self.whitening
            flat = jnp.matmul(images.reshape(len(x), -1) - centre, matrix, precision="highest")
            images = flat.reshape(images.shape)
        return images

    def part(self, index: np.ndarray) -> Images:
        """Returns some of the examples, normalised by their own mean and deviation, and whitened as all of them."""
        x, y = np.asarray(self.x)[index], np.asarray(self.y)[index]
        images = from_arrays(x, y, labels=self.labels, classes=self.outputs, image_size=self.image_size)
        return dataclasses.replace(images, whitening=self.whitening)

    def like(self, training: Images) -> Images:
        """Returns the images normalised like training images; see `nasi_jax.data.Examples`."""
        return normalised_like(self, training)


def normalised(x: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    """Returns (x - mean) / deviation for each colour, the last axis, in JAX's default float type."""
    mean, deviation = (value.reshape((1,) * (x.ndim - 1) + (-1,)) for value in (mean, deviation))
    return (x.astype(jnp.result_type(float)) - mean) / deviation


def from_arrays(
    x: np.ndarray,
    y: np.ndarray | None,
    *,
    labels: Labels = "true",
    classes: int | None = None,
    image_size: int | None = None,
) -> Images:
    """Makes a source of batches from arrays.

    Args:
        x: images, (examples, height, width, colours), uint8 or floating; of one colour where the last axis is missing.
        y: labels, (examples,) or (examples, 1) integers from 0, or (examples, classes) of any type with a single 1 in a
            row of zeros; may be None when labels are random.
        labels: "true" for `y`, "random" for labels drawn anew with every batch.
        classes: number of labels; by default the length of the rows of `y`, or the largest label plus one, or 10
            without labels.
        image_size: height and width that batches are resized to, by linear interpolation that averages where it
            shrinks; None leaves them as they are.

    Returns:
        The source. Statistics for the normalisation leave NaN out, so that a NaN stays in its own image.

    Raises:
        ValueError: shapes disagree, there are no examples, colours seem to stand before height and width, or a label
            is out of range.
        TypeError: `x` or `y` has the wrong dtype.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels: expected one of {get_args(Labels)}, got {labels!r}")
    x = np.asarray(x)
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x: expected images (examples, height, width, colours), none empty, got shape {x.shape}")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"x: expected dtype uint8 or floating, got {x.dtype}")
    if _colours_first(x.shape):
        raise ValueError(
            f"x: expected images (examples, height, width, colours), got shape {x.shape}, which looks like (examples, "
            "colours, height, width); pass x.transpose(0, 2, 3, 1)"
        )
    for name, value in (("classes", classes), ("image_size", image_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value}")
    if y is None:
        if labels == "true":
            raise ValueError("y: expected labels, because labels='true', got none; labels='random' needs none")
        y = np.zeros(len(x), np.int32)
        classes = 10 if classes is None else classes
    y, classes = _indices(np.asarray(y), len(x), classes)
    mean, deviation = _statistics(x)
    return Images(
        x=jnp.asarray(x),
        y=jnp.asarray(y, jnp.int32),
        mean=jnp.asarray(mean, jnp.result_type(float)),
        deviation=jnp.asarray(deviation, jnp.result_type(float)),
        outputs=classes,
        labels=labels,
        image_size=image_size,
    )


def whitened(images: Images) -> Images:
    """Makes the pixels of images uncorrelated, with variance 1 (ZCA).

    Neighbouring pixels of photographs are alike, so that a batch has few directions and the neural tangent kernel tells
    architectures apart less well than on noise (experiments/README.md, "Images and noise").

    Args:
        images: a source of at most `WHITENED` numbers an image, after resizing.

    Returns:
        The source. Directions in which the images hardly differ keep a smaller variance.

    Raises:
        ValueError: an image has more numbers.

    References:
        Bell and Sejnowski, "The independent components of natural scenes are edge filters", Vision Research 37, 1997.
    """
    numbers = math.prod(images.image_shape)
    if numbers > WHITENED:
        raise ValueError(f"images: expected at most {WHITENED} numbers each to whiten, got {images.image_shape}")
    plain = dataclasses.replace(images, whitening=None)
    pixels = np.concatenate([np.asarray(plain.prepare(x), np.float64) for x, _ in plain.batches(1000)])
    pixels = pixels.reshape(len(images), -1)
    centre = pixels.mean(axis=0)
    covariance = (pixels - centre).T @ (pixels - centre) / len(pixels)
    values, vectors = np.linalg.eigh(covariance)
    # a thousandth of a pixel's variance: what lies below is noise of compression and rounding
    matrix = (vectors / np.sqrt(np.maximum(values, 0) + 1e-3)) @ vectors.T
    dtype = jnp.result_type(float)
    return dataclasses.replace(images, whitening=(jnp.asarray(centre[None], dtype), jnp.asarray(matrix, dtype)))


def _colours_first(shape: tuple[int, ...]) -> bool:
    """Whether images look like (examples, colours, height, width); 1, 3 and 4 are the usual numbers of colours."""
    usual = (1, 3, 4)
    return shape[1] in usual and shape[3] not in usual and shape[1] < min(shape[2:])


def _indices(y: np.ndarray, examples: int, classes: int | None) -> tuple[np.ndarray, int]:
    """Returns labels (examples,) and their number."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and _one_hot(y):
        classes = y.shape[1] if classes is None else classes
        y = y.argmax(axis=1)
    if y.shape != (examples,):
        raise ValueError(
            f"y: expected one label for each of the {examples} images, or for each a row with a single 1 among zeros, "
            f"got shape {y.shape}"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y: expected an integer dtype, got {y.dtype}")
    classes = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y: expected labels from 0 to {classes - 1}, got {y.min()} to {y.max()}")
    return y, classes


def _one_hot(y: np.ndarray) -> bool:
    """Whether every row has a single 1 among zeros."""
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        return False
    return bool((np.isin(y, (0, 1)).all(axis=1) & ((y == 1).sum(axis=1) == 1)).all())


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if x.dtype == np.uint8:  # by counting, because a float copy of a data set of bytes may not fit
        counts = np.stack([np.bincount(x[..., c].ravel(), minlength=256) for c in range(x.shape[-1])])
        values, counts = np.arange(256.0), counts / counts.sum(axis=1, keepdims=True)
        mean = counts @ values
        deviation = np.sqrt(counts @ values**2 - mean**2)
    else:
        finite = np.isfinite(x)
        mean = np.asarray(np.mean(x, axis=(0, 1, 2), dtype=np.float64, where=finite))
        deviation = np.std(x, axis=(0, 1, 2), dtype=np.float64, where=finite)
    return mean, np.where(deviation > 0, deviation, 1.0)


def hold_out(examples: ExamplesT, share: float) -> tuple[ExamplesT, ExamplesT]:
    """Splits examples at random, always in the same way.

    Args:
        examples: all examples.
        share: share of them that is held out.

    Returns:
        The examples that are left, and those held out; both are normalised by the statistics of the former.

    Raises:
        ValueError: one of the parts would be empty.
    """
    count = round(share * len(examples))
    if not 0 < count < len(examples):
        raise ValueError(f"holdout: expected a share that splits {len(examples)} examples, got {share}")
    order = np.random.default_rng(0).permutation(len(examples))
    kept = examples.part(order[count:])
    return kept, examples.part(order[:count]).like(kept)


def normalised_like(images: PicturesT, training: PicturesT) -> PicturesT:
    """Gives images the normalisation and the labels of training images.

    Args:
        images: for example those of a test set.
        training: the training images.

    Returns:
        The images.

    Raises:
        ValueError: shapes differ, or a label is not among those of the training images.
    """
    if images.image_shape != training.image_shape:
        raise ValueError(
            f"x: expected images of shape {training.image_shape}, as for training, got {images.image_shape}"
        )
    if images.outputs > training.outputs:
        raise ValueError(
            f"y: expected labels from 0 to {training.outputs - 1}, as for training, got {images.outputs - 1}"
        )
    changes = {"mean": training.mean, "deviation": training.deviation, "outputs": training.outputs}
    return images.replace(**changes)  # type: ignore[attr-defined]
