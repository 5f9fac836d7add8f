"""Inputs for a search or a training: Gaussian noise, arrays, .npz files, TensorFlow Datasets, images on disk."""

import pathlib
from typing import Any, Protocol

import jax

from nasi_jax.data._stream import Records, Stream, stream
from nasi_jax.data.arrays import Examples, Images, Labels, from_arrays, from_npz, hold_out, normalised_like
from nasi_jax.data.gaussian import Gaussian
from nasi_jax.data.tfds import from_tfds


class Source(Protocol):
    """Where batches come from: a pytree with a pure `batch`, so that it may be used inside `jit`, `vmap` and `scan`.

    Attributes:
        image_shape: (height, width, colours) of an image.
        classes: number of labels.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def classes(self) -> int: ...  # noqa: D102

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` cannot be drawn."""
        ...

    def batch(self, key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        """Draws images (size, height, width, colours) and labels (size,)."""
        ...


def load(
    name: str,
    *,
    split: str = "train",
    labels: Labels | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    directory: str | pathlib.Path | None = None,
    download: bool = False,
) -> Source:
    """Opens a source of batches by name.

    Args:
        name: "gaussian", the path of an .npz file, the name of a TensorFlow data set, or the folder of a prepared one.
        split: which part, of an .npz file (see `from_npz`) or a TensorFlow data set.
        labels: "true" or "random"; by default true where there are labels. Gaussian inputs have random labels only.
        image_size: height and width of the images: of Gaussian ones 32 by default, others are resized to it.
        classes: number of labels of Gaussian inputs (10 by default) or of an .npz file; a TensorFlow data set knows.
        directory: where prepared TensorFlow data sets are.
        download: whether a TensorFlow data set may be downloaded.

    Returns:
        The source.

    Raises:
        FileNotFoundError: there is no such file or data set.
        ValueError: an option does not go with the data; see also the loaders of this package.
    """
    if name == "gaussian":
        if labels == "true":
            raise ValueError("labels: expected 'random' with Gaussian inputs, which have no true labels, got 'true'")
        size = 32 if image_size is None else image_size
        return Gaussian((size, size, 3), 10 if classes is None else classes)
    if name.endswith(".npz"):
        return from_npz(name, split=split, labels=labels or "true", classes=classes, image_size=image_size)
    if classes is not None:
        raise ValueError(f"classes: expected with Gaussian inputs or an .npz file, got {classes} with data {name!r}")
    options: dict[str, Any] = {"split": split, "labels": labels or "true", "image_size": image_size}
    return from_tfds(name, directory=directory, download=download, **options)


__all__ = [
    "Examples",
    "Gaussian",
    "Images",
    "Labels",
    "Records",
    "Source",
    "Stream",
    "from_arrays",
    "from_npz",
    "from_tfds",
    "hold_out",
    "load",
    "normalised_like",
    "stream",
]
