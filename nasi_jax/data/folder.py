"""Images from folders of pictures."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nasi_jax.data.arrays import Images, Labels, from_arrays

_ENDINGS = (".png", ".jpg", ".jpeg")
_PREPARED = ("dataset_info.json", "*/dataset_info.json")
_GREY = ("1", "L", "LA")
_WIDE = ("I", "F")
"""Pillow's modes of more than 8 bits a colour begin so."""


class Folder:
    """Pictures in folders of the names of their classes, as records for `Stream`.

    Attributes:
        path: the folder.
        classes: names of the classes, sorted; a label is a place among them.
        files: the pictures, sorted, of one class after the other.
        labels: (examples,) int32.
    """

    def __init__(self, path: str | pathlib.Path, split: str = "train"):
        """Lists the pictures.

        Args:
            path: the folder. It holds a folder for each class, or folders "train" and "test" or "val" that do.
            split: which of these; "test" is "val" where there is no folder of that name.

        Raises:
            ValueError: there are no pictures, or no such split, or it has another class than "train" has.
        """
        self.path = pathlib.Path(path)
        training = self.path / "train"
        # a class may be named train; it has pictures instead of folders
        training = training if training.is_dir() and _folders(training) else self.path
        self.classes = [entry.name for entry in _folders(training)]
        of_class = [_pictures(training / name) for name in self.classes]
        for name, files in zip(self.classes, of_class, strict=True):
            if not files:
                raise ValueError(f"data: expected .png or .jpg files in {str(training / name)!r}, there are none")
        if not self.classes:
            raise ValueError(f"data: expected a folder of pictures for each class in {str(training)!r}, there is none")
        self._training = [file for files in of_class for file in files]
        if split != "train":
            of_class = self._other(split, training)
        self.files = [file for files in of_class for file in files]
        self.labels = np.repeat(np.arange(len(of_class), dtype=np.int32), [len(files) for files in of_class])

    def _other(self, split: str, training: pathlib.Path) -> list[list[pathlib.Path]]:
        names = ("test", "val") if split == "test" else (split,)
        found = [self.path / name for name in names if (self.path / name).is_dir()]
        if training == self.path or not found:
            raise ValueError(
                f"data: expected folders 'train' and {' or '.join(map(repr, names))} in {str(self.path)!r}, "
                f"found {[entry.name for entry in _folders(self.path)]}"
            )
        strange = {entry.name for entry in _folders(found[0])} - set(self.classes)
        if strange:
            raise ValueError(
                f"data: expected the classes of {str(training)!r} in {str(found[0])!r}, found {min(strange)!r} too"
            )
        files = [_pictures(found[0] / name) for name in self.classes]
        if not any(files):
            raise ValueError(f"data: expected .png or .jpg files in folders of {str(found[0])!r}, there are none")
        return files

    @functools.cached_property
    def grey(self) -> bool:
        """Whether all pictures of the training split are grey, so that they have one colour instead of three."""
        return all(_header(file).mode in _GREY for file in self._training)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns `image`, (height, width, 3) bytes, and `label`."""
        return {"image": _picture(self.files[index], "RGB"), "label": self.labels[index]}


def is_folder(path: pathlib.Path) -> bool:
    """Whether a path is a folder, and not one of a data set that TensorFlow Datasets prepared."""
    return path.is_dir() and not any(next(path.glob(where), None) for where in _PREPARED)


def from_folder(
    path: str | pathlib.Path, *, split: str = "train", labels: Labels = "true", image_size: int | None = None
) -> Images:
    """Reads .png and .jpg pictures from folders of the names of their classes, `path/class/picture.png`.

    Args:
        path: see `Folder`.
        split: likewise.
        labels: see `from_arrays`.
        image_size: height and width that pictures are resized to as they are read; None leaves them as they are.

    Returns:
        The source of batches, of bytes in memory: of three colours, or one where all pictures are grey.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: see `Folder`; a picture cannot be read, or sizes differ and there is no `image_size`.
    """
    if not pathlib.Path(path).is_dir():
        raise FileNotFoundError(f"data: expected a folder of pictures, there is none at {str(path)!r}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size: expected a positive integer, got {image_size}")
    folder = Folder(path, split)
    size = _one_size(folder) if image_size is None else (image_size, image_size)
    mode = "L" if folder.grey else "RGB"
    x = np.empty((len(folder), size[1], size[0], len(mode)), np.uint8)
    for i, file in enumerate(folder.files):
        x[i] = _picture(file, mode, size).reshape(x.shape[1:])
    return from_arrays(x, folder.labels, labels=labels, classes=len(folder.classes), image_size=image_size)


def _one_size(folder: Folder) -> tuple[int, int]:
    """Returns width and height that all pictures have."""
    size = _header(folder.files[0]).size
    for file in folder.files:
        if (other := _header(file).size) != size:
            raise ValueError(
                f"image_size: expected the size that pictures are resized to, because they differ: {size[0]}x{size[1]} "
                f"in {str(folder.files[0])!r}, {other[0]}x{other[1]} in {str(file)!r}"
            )
    return size


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures(path: pathlib.Path) -> list[pathlib.Path]:
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(e for e in entries if e.suffix.lower() in _ENDINGS and not e.name.startswith("."))


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Any]:
    import PIL.Image

    try:
        with PIL.Image.open(file) as image:
            yield image
    except Exception as error:  # Pillow raises several types on what is no picture, a SyntaxError among them
        raise ValueError(f"data: cannot read the picture {str(file)!r}: {error}") from error


def _header(file: pathlib.Path) -> Any:
    with _opened(file) as image:
        return image


def _picture(file: pathlib.Path, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    import PIL.Image

    with _opened(file) as image:
        if image.mode.startswith(_WIDE):
            raise ValueError(f"expected 8 bits a colour, got mode {image.mode!r}")
        image = image.convert(mode)
        return np.asarray(image if size is None else image.resize(size, PIL.Image.Resampling.BILINEAR))
