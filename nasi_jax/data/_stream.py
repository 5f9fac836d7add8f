"""Images of any size, read and cropped on the host while a network trains."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data.arrays import normalised, normalised_like
from nasi_jax.data.files import READERS
from nasi_jax.data.folder import Folder, is_folder
from nasi_jax.data.in_memory import check_batch
from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch
from nasi_jax.data.tfds import open_records

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours between 0 and 1, in general use for photographs."""
_ATTEMPTS = 10
_LONGEST_SIDE, _SHORTEST_SIDE = 4 / 3, 3 / 4
_SEEN = 7 / 8
"""224 of 256 pixels: the share of the shorter side that the crop in the middle has."""


class Records(Protocol):
    """Examples by their index; they pass to worker processes by pickling."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns ``"image"``, (height, width, 3) bytes, and ``"label"``, an integer."""
        ...


class _Arrays:
    def __init__(self, x: np.ndarray, y: np.ndarray):
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self._x[index], "label": self._y[index]}


class _Part:
    """Some of the records; equal to itself alone, and so hashable whatever the records are."""

    def __init__(self, records: Records, index: np.ndarray):
        self._records, self._index = records, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._records[int(self._index[index])]


@struct.dataclass
class Stream:
    """Images of any size on disk, from which batches of crops of one size are made; opened by `stream`.

    Attributes:
        mean: (3,), of the colours in bytes.
        deviation: (3,), likewise.
        records: the examples.
        outputs: number of labels.
        image_size: height and width of the crops.
        workers: processes that read and crop; none reads in threads of this process.
        loss: see `nasi_jax.data.Source`.
    """

    mean: jax.Array
    deviation: jax.Array
    records: Records = struct.field(pytree_node=False)
    outputs: int = struct.field(pytree_node=False)
    image_size: int = struct.field(pytree_node=False)
    workers: int = struct.field(pytree_node=False, default=0)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.records)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, colours) of a crop."""
        return self.image_size, self.image_size, 3

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct images cannot be drawn."""
        check_batch(size, len(self))

    def stored(self, size: int) -> Batch:
        """Returns the shapes and types of a batch before `prepare`."""
        crops = jax.ShapeDtypeStruct((size, *self.image_shape), np.dtype(np.uint8))
        return Batch(crops, jax.ShapeDtypeStruct((size,), np.dtype(np.int32)))

    def prepare(self, x: jax.Array) -> jax.Array:
        """Normalises crops (size, height, width, 3) of bytes."""
        return normalised(x, self.mean, self.deviation)

    def redrawn(self, key: jax.Array, x: jax.Array, y: jax.Array) -> Batch:
        """Returns what a network reads, and labels; crops are drawn where images are read."""
        return Batch(self.prepare(x), y)

    def part(self, index: np.ndarray) -> Stream:
        """Returns the stream of some of the examples."""
        return self.replace(records=_Part(self.records, index))  # type: ignore[attr-defined]

    def like(self, training: Stream) -> Stream:
        """Returns the images normalised like training images; see `nasi_jax.data.Examples`."""
        return normalised_like(self, training)

    def shuffled(
        self, seed: int, batch: int, epochs: int, start: int = 0, smallest: float = 0.08
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reads random crops of random size and shape, in another order in every epoch.

        A batch follows from the seed and its number alone, whatever the number of workers, so that a stream that starts
        later goes on as if it had never stopped.

        Args:
            seed: 0 to 2**32 - 1.
            batch: images in a batch; the last ones of an epoch, fewer than that, are left out.
            epochs: number of passes.
            start: batches that are left out at the beginning.
            smallest: smallest share of an image's area that a crop takes.

        Yields:
            Bytes (batch, image_size, image_size, 3) and labels (batch,) int32.

        References:
            Szegedy et al., "Going deeper with convolutions", 2015, section 6.
        """
        import grain

        crop = functools.partial(_random_crop, size=self.image_size, smallest=smallest)
        whole = len(self) // batch * batch
        examples = grain.MapDataset.source(self.records).seed(seed).shuffle()[:whole].random_map(crop)
        yield from self._read(examples.batch(batch).repeat(epochs)[start:])

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reads the middle of every image once, in order: a square with 7/8 of the shorter side.

        Args:
            size: images in a batch; the last one may have fewer.

        Yields:
            Bytes (size, image_size, image_size, 3) and labels (size,) int32.
        """
        import grain

        crop = functools.partial(_middle, size=self.image_size)
        yield from self._read(grain.MapDataset.source(self.records).map(crop).batch(size, drop_remainder=False))

    def _read(self, batches: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        import grain
        from absl import flags

        flow = batches.to_iter_dataset()
        if self.workers:
            if not flags.FLAGS.is_parsed():  # which grain's workers ask for, though this is no absl program
                flags.FLAGS.mark_as_parsed()
            flow = flow.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2))
        iterator = iter(flow)
        try:
            yield from iterator
        finally:
            iterator.close()


def stream(
    name: str,
    *,
    image_size: int,
    split: str = "train",
    directory: str | pathlib.Path | None = None,
    download: bool = False,
    workers: int = 0,
) -> Stream:
    """Opens images that are read while a network trains, by name.

    Args:
        name: see `nasi_jax.data.load`; a file of bytes, a folder of pictures, or a TensorFlow data set of colour images
            of any size.
        image_size: height and width of the crops.
        split: see `nasi_jax.data.load`.
        directory: likewise.
        download: likewise.
        workers: see `Stream`.

    Returns:
        The stream.

    Raises:
        FileNotFoundError: there is no such file or data set.
        ValueError: an option is out of range, or the images are not bytes in three colours.
    """
    if image_size < 1:
        raise ValueError(f"image_size: expected a positive integer, got {image_size}")
    if workers < 0:
        raise ValueError(f"workers: expected an integer of at least 0, got {workers}")
    path = pathlib.Path(name)
    if path.suffix.lower() in READERS:
        images = READERS[path.suffix.lower()](path, split=split)
        records, shape, kind, classes = (
            _Arrays(np.asarray(images.x), np.asarray(images.y)), images.x.shape[1:], images.x.dtype, images.outputs,
        )  # fmt: skip
    elif is_folder(path):
        records = Folder(path, split)
        shape, kind, classes = (None, None, 3), np.dtype(np.uint8), len(records.classes)
    else:
        opened, features = open_records(name, split=split, directory=directory, download=download)
        image, classes = features["image"], features["label"].num_classes
        records, shape, kind = _Part(opened, np.arange(len(opened))), image.shape, np.dtype(image.np_dtype)
    if shape[-1] != 3 or kind != np.uint8:
        raise ValueError(f"data: expected images of bytes in three colours in {name!r}, got {kind} of shape {shape}")
    mean, deviation = (jnp.asarray(v, jnp.result_type(float)) * 255 for v in (_MEAN, _DEVIATION))
    return Stream(mean, deviation, records, int(classes), image_size, workers)


def _random_crop(
    example: Mapping[str, Any], rng: np.random.Generator, *, size: int, smallest: float
) -> tuple[np.ndarray, np.int32]:
    height, width = example["image"].shape[:2]
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(math.log(_SHORTEST_SIDE), math.log(_LONGEST_SIDE)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = rng.integers(width - across + 1), rng.integers(height - down + 1)
            break
    else:
        across = min(width, max(1, round(height * _LONGEST_SIDE)))
        down = min(height, max(1, round(width / _SHORTEST_SIDE)))
        left, top = (width - across) // 2, (height - down) // 2
    return _resized(example, (left, top, left + across, top + down), size)


def _middle(example: Mapping[str, Any], *, size: int) -> tuple[np.ndarray, np.int32]:
    height, width = example["image"].shape[:2]
    side = _SEEN * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return _resized(example, (left, top, left + side, top + side), size)


def _resized(
    example: Mapping[str, Any], box: tuple[float, float, float, float], size: int
) -> tuple[np.ndarray, np.int32]:
    import PIL.Image

    image = PIL.Image.fromarray(example["image"]).resize((size, size), PIL.Image.Resampling.BILINEAR, box=box)
    return np.asarray(image), np.int32(example["label"])
