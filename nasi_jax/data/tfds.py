"""Images from TensorFlow Datasets, read without TensorFlow."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from nasi_jax.data.arrays import Images, Labels, from_arrays


def from_tfds(
    name: str,
    *,
    split: str = "train",
    directory: str | pathlib.Path | None = None,
    download: bool = False,
    labels: Labels = "true",
    image_size: int | None = None,
) -> Images:
    """Loads a data set of labelled images of one size, such as `cifar10` or `cifar100`.

    Args:
        name: see `open_records`.
        split: which part to load.
        directory: where prepared data sets are; the library's default when None.
        download: whether to download and prepare the set if it is not there.
        labels: see `nasi_jax.data.from_arrays`.
        image_size: likewise.

    Returns:
        The source of batches, with all images in memory as bytes.

    Raises:
        FileNotFoundError: the set cannot be loaded; the message gives the library's reason.
        ValueError: the set has no `image` and `label`, or its images differ in size.
    """
    source, features = open_records(name, split=split, directory=directory, download=download)
    shape = features["image"].shape
    if None in shape:
        raise ValueError(
            f"data: expected images of one size in {name!r}, got shape {shape}; a training recipe with resized_crop "
            "takes images of any size"
        )
    x, y = np.empty((len(source), *shape), np.uint8), np.empty(len(source), np.int32)
    for i, example in enumerate(source):
        x[i], y[i] = example["image"], example["label"]
    return from_arrays(x, y, labels=labels, classes=features["label"].num_classes, image_size=image_size)


def open_records(
    name: str, *, split: str, directory: str | pathlib.Path | None = None, download: bool = False
) -> tuple[Any, Any]:
    """Opens a data set of labelled images without reading them.

    The set is read through `tfds.data_source`, which does not import TensorFlow and needs the set prepared in the
    `array_record` format.

    Args:
        name: name of the data set in TensorFlow Datasets, or the folder of a version of a prepared one.
        split: see `from_tfds`.
        directory: likewise.
        download: likewise.

    Returns:
        The examples by index, mappings with "image" and "label", and the features that describe them.

    Raises:
        FileNotFoundError: the set cannot be loaded; the message gives the library's reason.
        ValueError: the set has no `image` and `label`.
    """
    import tensorflow_datasets as tfds

    try:
        if (pathlib.Path(name) / "dataset_info.json").is_file():
            builder: Any = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=directory, file_format="array_record")
        if download:
            builder.download_and_prepare()
        source = builder.as_data_source(split=split)
    except Exception as error:  # the library raises a dozen unrelated types here
        where = directory if directory is not None else "its default directory"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"data: TensorFlow Datasets cannot load {name!r} ({split}) from {where}: {reason}. "
            "Pass the directory of a prepared set, or allow the download."
        ) from error
    features = builder.info.features
    if features is None or not {"image", "label"} <= set(features):
        raise ValueError(f"data: expected features 'image' and 'label' in {name!r}, got {sorted(features or ())}")
    return source, features
