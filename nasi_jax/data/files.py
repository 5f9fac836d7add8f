"""Images and labels from .npz and HDF5 files."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nasi_jax.data.arrays import Images, Labels, from_arrays


def from_npz(
    path: str | pathlib.Path,
    *,
    split: str = "train",
    labels: Labels = "true",
    classes: int | None = None,
    image_size: int | None = None,
) -> Images:
    """Reads images and labels from an .npz file.

    Args:
        path: the file, with arrays `x` and, unless labels are random, `y`, or `x_train` and `y_train`, as
            `from_arrays` takes them. Capital letters do not count.
        split: "train" for these, another name for arrays such as `x_test` and `y_test`.
        labels: see `from_arrays`.
        classes: see `from_arrays`.
        image_size: see `from_arrays`.

    Returns:
        The source of batches.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an .npz, lacks the images, or its arrays do not fit (see `from_arrays`).
        TypeError: an array has the wrong dtype.
    """

    def read(path: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it holds a single array without a name, as an .npy file does")
        with loaded as file:
            return _chosen(file.files, lambda name: file[name], split)

    return _from_file(
        path, "an .npz file", read, split, {"labels": labels, "classes": classes, "image_size": image_size}
    )


def from_hdf5(
    path: str | pathlib.Path,
    *,
    split: str = "train",
    labels: Labels = "true",
    classes: int | None = None,
    image_size: int | None = None,
) -> Images:
    """Reads images and labels from an HDF5 file, whose datasets are named as the arrays of `from_npz`.

    Args:
        path: the file.
        split: see `from_npz`.
        labels: see `from_arrays`.
        classes: see `from_arrays`.
        image_size: see `from_arrays`.

    Returns:
        The source of batches.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the extra `hdf5` is not installed, the file is not of HDF5, lacks the images, or its arrays do not
            fit (see `from_arrays`).
        TypeError: an array has the wrong dtype.
    """
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(f"data: reading {str(path)!r} needs h5py; pip install 'nasi_jax[hdf5]'") from error

    def read(path: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        with h5py.File(path, "r") as file:
            arrays = {name: entry for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
            return _chosen(list(arrays), lambda name: np.asarray(arrays[name][()]), split)

    return _from_file(
        path, "an HDF5 file", read, split, {"labels": labels, "classes": classes, "image_size": image_size}
    )


class _NamesError(ValueError):
    """A file lacks the arrays that are asked for; the message is whole but for the file's name."""


def _from_file(
    path: str | pathlib.Path,
    kind: str,
    read: Callable[[pathlib.Path, str], tuple[np.ndarray, np.ndarray | None]],
    split: str,
    options: dict[str, Any],
) -> Images:
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data: expected {kind}, there is none at {str(path)!r}")
    try:
        x, y = read(path, split)
    except _NamesError as error:
        raise ValueError(f"data: {error} in {str(path)!r}") from error
    except Exception as error:  # NumPy, zipfile, zlib and h5py raise a dozen types on what is no such file
        raise ValueError(f"data: expected {kind} of plain arrays, cannot read {str(path)!r}: {error}") from error
    with _naming(path):
        return from_arrays(x, y, **options)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Gives the errors of `from_arrays` the name of the file or folder."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} (in {str(path)!r})") from error


def _chosen(
    names: Sequence[str], read: Callable[[str], np.ndarray], split: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the images and labels of a split, of arrays known by their names."""
    known = {name.lower(): name for name in names}
    endings = ("", "_train") if split == "train" else (f"_{split.lower()}",)
    present = [ending for ending in endings if f"x{ending}" in known]
    if len(present) != 1:
        wanted = " or ".join(f"'x{ending}'" for ending in endings)
        raise _NamesError(f"expected an array {wanted}{', not both,' if present else ''}, found {list(names)}")
    y = known.get(f"y{present[0]}")
    return read(known[f"x{present[0]}"]), None if y is None else read(y)


READERS: dict[str, Callable[..., Images]] = {".npz": from_npz, ".h5": from_hdf5, ".hdf5": from_hdf5}
"""What reads a file, by how its name ends."""
