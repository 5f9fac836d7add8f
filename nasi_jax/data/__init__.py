"""Inputs for a search or a training: noise, images, graphs and texts in memory and in files, TensorFlow Datasets."""

import pathlib
from typing import Any

from nasi_jax.data import augment
from nasi_jax.data._stream import Records, Stream, stream
from nasi_jax.data.arrays import WHITENED, Images, Labels, from_arrays, hold_out, whitened
from nasi_jax.data.augmented import Augmented, augmented
from nasi_jax.data.files import READERS, from_hdf5, from_npz
from nasi_jax.data.folder import from_folder, is_folder
from nasi_jax.data.gaussian import Gaussian
from nasi_jax.data.graph_files import from_graph_files, holds_graphs
from nasi_jax.data.graphs import Graph, GraphData, GraphInput, Graphs, Level, from_graphs
from nasi_jax.data.halves import Halves, halves
from nasi_jax.data.losses import Loss, absolute_error, cross_entropy, masked_cross_entropy
from nasi_jax.data.random_graphs import RandomGraphs
from nasi_jax.data.random_tokens import RandomTokens
from nasi_jax.data.source import (
    Batch,
    Examples,
    Shared,
    Source,
    example_arrays,
    inputs,
    is_shared,
    map_examples,
    shapes,
)
from nasi_jax.data.tfds import from_tfds
from nasi_jax.data.token_files import from_token_files, holds_tokens
from nasi_jax.data.tokens import TokenData, TokenInput, TokenLabels, Vocabulary, from_tokens
from nasi_jax.data.wordpiece import WordPiece


def load(
    name: str,
    *,
    split: str = "train",
    labels: TokenLabels | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    fold: int | None = None,
    length: int | None = None,
    vocabulary: str | pathlib.Path | None = None,
    directory: str | pathlib.Path | None = None,
    download: bool = False,
) -> Source:
    """Opens a source of batches by name.

    Args:
        name: "gaussian", the path of an .npz or HDF5 file, a folder of pictures (see `from_folder`), the name of a
            TensorFlow data set, or the folder of a prepared one; graphs (see `from_graph_files`); or token ids and
            texts (see `from_token_files`).
        split: which part, of a file (see `from_npz`), a folder of pictures or a TensorFlow data set.
        labels: "true" or "random"; by default true where there are labels. Gaussian inputs have random labels only.
            "masked" of texts: the words that are masked out.
        image_size: height and width of the images: of Gaussian ones 32 by default, others are resized to it.
        classes: number of labels of Gaussian inputs (10 by default) or of a file; other data know it.
        fold: of graphs in folds, the one that is the test set; 0 by default.
        length: of token ids, tokens of a sequence.
        vocabulary: of token ids, a file with a piece on each line.
        directory: where prepared TensorFlow data sets are.
        download: whether a TensorFlow data set may be downloaded.

    Returns:
        The source.

    Raises:
        FileNotFoundError: there is no such file or data set.
        ValueError: an option does not go with the data; see also the loaders of this package.
    """
    if classes is not None and classes < 1:
        raise ValueError(f"classes: expected a positive integer, got {classes}")
    if holds_tokens(name):
        for option, given in (("image_size", image_size), ("fold", fold)):
            if given is not None:
                raise ValueError(f"{option}: expected none, {name!r} holds token ids, got {given}")
        return from_token_files(name, split=split, labels=labels, classes=classes, length=length, vocabulary=vocabulary)
    for option, given in (("length", length), ("vocabulary", vocabulary)):
        if given is not None:
            raise ValueError(f"{option}: expected with token ids alone, got {given} with data {name!r}")
    if labels == "masked":
        raise ValueError(f"labels: expected 'true' or 'random' without token ids, got 'masked' with data {name!r}")
    if name == "gaussian":
        if labels == "true":
            raise ValueError("labels: expected 'random' with Gaussian inputs, which have no true labels, got 'true'")
        size = 32 if image_size is None else image_size
        return Gaussian((size, size, 3), 10 if classes is None else classes)
    if holds_graphs(name):
        if image_size is not None:
            raise ValueError(f"image_size: expected none, {name!r} holds graphs, got {image_size}")
        return from_graph_files(name, split=split, labels=labels or "true", classes=classes, fold=fold or 0)
    if fold is not None:
        raise ValueError(f"fold: expected with graphs alone, got {fold} with data {name!r}")
    options: dict[str, Any] = {"split": split, "labels": labels or "true", "image_size": image_size}
    path = pathlib.Path(name)
    if path.suffix.lower() in READERS:
        return READERS[path.suffix.lower()](path, classes=classes, **options)
    if classes is not None:
        raise ValueError(f"classes: expected with Gaussian inputs or a file, got {classes} with data {name!r}")
    if is_folder(path):
        return from_folder(path, **options)
    if path.is_file():
        raise ValueError(f"data: expected a file {', '.join(READERS)}, a folder or a data set's name, got {name!r}")
    return from_tfds(name, directory=directory, download=download, **options)


__all__ = [
    "WHITENED",
    "Augmented",
    "Batch",
    "Examples",
    "Gaussian",
    "Graph",
    "GraphData",
    "GraphInput",
    "Graphs",
    "Halves",
    "Images",
    "Labels",
    "Level",
    "Loss",
    "RandomGraphs",
    "RandomTokens",
    "Records",
    "Shared",
    "Source",
    "Stream",
    "TokenData",
    "TokenInput",
    "TokenLabels",
    "Vocabulary",
    "WordPiece",
    "absolute_error",
    "augment",
    "augmented",
    "cross_entropy",
    "example_arrays",
    "from_arrays",
    "from_folder",
    "from_graph_files",
    "from_graphs",
    "from_hdf5",
    "from_npz",
    "from_tfds",
    "from_token_files",
    "from_tokens",
    "halves",
    "hold_out",
    "holds_graphs",
    "holds_tokens",
    "inputs",
    "is_shared",
    "load",
    "map_examples",
    "masked_cross_entropy",
    "shapes",
    "stream",
    "whitened",
]
