"""Batches from arrays in memory, and the arrays of an .npz file."""

from __future__ import annotations

import functools
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Labels = Literal["true", "random"]
"""Which labels a batch carries: the data set's own, or uniformly random ones."""


class Examples(Protocol):
    """What a network is trained and judged on: `Images` in memory, or a `Stream` from disk; a pytree.

    Attributes:
        image_shape: (height, width, colours) of an image.
        classes: number of labels.
        mean: of each colour.
        deviation: likewise.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def classes(self) -> int: ...  # noqa: D102

    @property
    def mean(self) -> jax.Array: ...  # noqa: D102

    @property
    def deviation(self) -> jax.Array: ...  # noqa: D102

    def __len__(self) -> int: ...

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct images cannot be drawn."""
        ...

    def prepare(self, x: jax.Array) -> jax.Array:
        """Normalises images as they are stored."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Any, Any]]:
        """Goes once through all images and labels, in order; the last batch may have fewer than `size`."""
        ...

    def part(self: ExamplesT, index: np.ndarray) -> ExamplesT:
        """Returns some of the examples."""
        ...


ExamplesT = TypeVar("ExamplesT", bound=Examples)


@struct.dataclass
class Images:
    """Images and labels in memory, drawn in random batches; made by `from_arrays`.

    Images leave as (x - mean) / deviation, with both taken for each colour over the whole data set, so that each
    colour has mean 0 and variance 1. Arrays of bytes stay bytes until then.

    Attributes:
        x: images, (examples, height, width, colours), uint8 or floating.
        y: labels, (examples,) int32; not used when labels are random.
        mean: (colours,), in the units of `x`.
        deviation: (colours,), in the units of `x`; 1 where the data set is constant.
        classes: number of labels.
        labels: see `Labels`.
        image_size: height and width that batches are resized to, or None.
    """

    x: jax.Array
    y: jax.Array
    mean: jax.Array
    deviation: jax.Array
    classes: int = struct.field(pytree_node=False)
    labels: Labels = struct.field(pytree_node=False)
    image_size: int | None = struct.field(pytree_node=False, default=None)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.x)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, colours) of an image, after resizing."""
        height, width, colours = self.x.shape[1:]
        return self.image_size or height, self.image_size or width, colours

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct images cannot be drawn."""
        check_batch(size, len(self))

    def batch(self, key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        """Draws distinct examples; works under `jit`, `vmap` and `scan`.

        Args:
            key: a typed random key.
            size: number of images.

        Returns:
            Normalised images (size, height, width, colours) in JAX's default float type and labels (size,) int32.
        """
        index_key, label_key = jax.random.split(key)
        index = jax.random.choice(index_key, self.x.shape[0], (size,), replace=False)
        images = self.prepare(self.x[index])
        if self.labels == "random":
            return images, jax.random.randint(label_key, (size,), 0, self.classes)
        return images, self.y[index]

    def prepare(self, x: jax.Array) -> jax.Array:
        """Normalises images (size, height, width, colours), in the type of `self.x`, and resizes them."""
        images = normalised(x, self.mean, self.deviation)
        if images.shape[1:] != self.image_shape:
            images = jax.image.resize(images, (len(x), *self.image_shape), "linear")
        return images

    def batches(self, size: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Goes once through all images, in order.

        Args:
            size: images in a batch; the last one may have fewer.

        Yields:
            Images as they are stored, for `prepare`, and labels (size,) int32.
        """
        for start in range(0, len(self), size):
            yield _slice((self.x, self.y), start, size=min(size, len(self) - start))

    def part(self, index: np.ndarray) -> Images:
        """Returns some of the examples, normalised by their own mean and deviation."""
        x, y = np.asarray(self.x)[index], np.asarray(self.y)[index]
        return from_arrays(x, y, labels=self.labels, classes=self.classes, image_size=self.image_size)


@functools.partial(jax.jit, static_argnames="size")
def _slice(arrays: tuple[jax.Array, jax.Array], start: jax.Array, *, size: int) -> tuple[jax.Array, jax.Array]:
    x, y = (jax.lax.dynamic_slice_in_dim(array, start, size) for array in arrays)
    return x, y


def normalised(x: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    """Returns (x - mean) / deviation for each colour, the last axis, in JAX's default float type."""
    mean, deviation = (value.reshape((1,) * (x.ndim - 1) + (-1,)) for value in (mean, deviation))
    return (x.astype(jnp.result_type(float)) - mean) / deviation


def check_batch(size: int, examples: int) -> None:
    """Raises ValueError if a batch of `size` distinct images cannot be drawn from so many."""
    if not 1 <= size <= examples:
        raise ValueError(f"batch: expected 1 to {examples}, the number of examples, got {size}")


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
        x: images, (examples, height, width, colours), uint8 or floating.
        y: labels, (examples,) integers from 0; may be None when labels are random.
        labels: "true" for `y`, "random" for labels drawn anew with every batch.
        classes: number of labels; by default the largest label plus one, or 10 without labels.
        image_size: height and width that batches are resized to, by linear interpolation that averages where it
            shrinks; None leaves them as they are.

    Returns:
        The source. Statistics for the normalisation leave NaN out, so that a NaN stays in its own image.

    Raises:
        ValueError: shapes disagree, there are no examples, or a label is out of range.
        TypeError: `x` or `y` has the wrong dtype.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels: expected one of {get_args(Labels)}, got {labels!r}")
    x = np.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x: expected images (examples, height, width, colours), none empty, got shape {x.shape}")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"x: expected dtype uint8 or floating, got {x.dtype}")
    for name, value in (("classes", classes), ("image_size", image_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value}")
    if y is None:
        if labels == "true":
            raise ValueError("y: expected labels, because labels='true', got none; labels='random' needs none")
        y = np.zeros(len(x), np.int32)
        classes = 10 if classes is None else classes
    y = np.asarray(y)
    if y.shape != x.shape[:1]:
        raise ValueError(f"y: expected one label for each of the {len(x)} images, got shape {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y: expected an integer dtype, got {y.dtype}")
    classes = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y: expected labels from 0 to {classes - 1}, got {y.min()} to {y.max()}")
    mean, deviation = _statistics(x)
    return Images(
        x=jnp.asarray(x),
        y=jnp.asarray(y, jnp.int32),
        mean=jnp.asarray(mean, jnp.result_type(float)),
        deviation=jnp.asarray(deviation, jnp.result_type(float)),
        classes=classes,
        labels=labels,
        image_size=image_size,
    )


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


def hold_out(images: ExamplesT, share: float) -> tuple[ExamplesT, ExamplesT]:
    """Splits images or a stream of them at random, always in the same way.

    Args:
        images: all images.
        share: share of them that is held out.

    Returns:
        The images that are left, and those held out; both are normalised by the statistics of the former.

    Raises:
        ValueError: one of the parts would be empty.
    """
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise ValueError(f"holdout: expected a share that splits {len(images)} images, got {share}")
    order = np.random.default_rng(0).permutation(len(images))
    kept = images.part(order[count:])
    return kept, normalised_like(images.part(order[:count]), kept)


def normalised_like(images: ExamplesT, training: ExamplesT) -> ExamplesT:
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
    if images.classes > training.classes:
        raise ValueError(
            f"y: expected labels from 0 to {training.classes - 1}, as for training, got {images.classes - 1}"
        )
    changes = {"mean": training.mean, "deviation": training.deviation, "classes": training.classes}
    return images.replace(**changes)  # type: ignore[attr-defined]


def from_npz(
    path: str | pathlib.Path,
    *,
    split: str = "train",
    labels: Labels = "true",
    classes: int | None = None,
    image_size: int | None = None,
) -> Images:
    """Reads images `x` and labels `y` from an .npz file.

    Args:
        path: the file, with an array `x` (examples, height, width, colours) and, unless labels are random, `y`.
        split: "train" for `x` and `y`, another name for arrays such as `x_test` and `y_test`.
        labels: see `from_arrays`.
        classes: see `from_arrays`.
        image_size: see `from_arrays`.

    Returns:
        The source of batches.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an .npz, lacks the images, or its arrays do not fit (see `from_arrays`).
    """
    path = pathlib.Path(path)
    images, own_labels = ("x", "y") if split == "train" else (f"x_{split}", f"y_{split}")
    if not path.is_file():
        raise FileNotFoundError(f"data: expected an .npz file, there is none at {str(path)!r}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (images, own_labels) if name in file}
            names = file.files
    except (zipfile.BadZipFile, ValueError, OSError, AttributeError) as error:
        raise ValueError(f"data: expected an .npz file of plain arrays, cannot read {str(path)!r}: {error}") from error
    if images not in arrays:
        raise ValueError(f"data: expected an array {images!r} in {str(path)!r}, found {names}")
    return from_arrays(arrays[images], arrays.get(own_labels), labels=labels, classes=classes, image_size=image_size)
