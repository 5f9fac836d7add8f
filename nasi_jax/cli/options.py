"""Options that several verbs share."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from nasi_jax import data, spaces
from nasi_jax.cli.inputs import data_identity
from nasi_jax.runs.files import identity
from nasi_jax.scores import Limits
from nasi_jax.spaces import SearchSpace

_IMAGE_SIZE = 16
_SPACE = "nasbench201"


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where batches come from.

    Attributes:
        name: "gaussian" for random inputs that suit the space, an .npz or HDF5 file with x and y or x_train and
            y_train, a folder with a folder of .png or .jpg pictures for each class, or the name of a TensorFlow data
            set; graphs are in an .npz file, or a folder of .npy files, with edge_index, x and y; token ids in an .npz
            file with ids or tokens; a text ends in .txt, one with a label and a tab before each sentence in .tsv.
        labels: the data's own labels or random ones, or of token ids the words that are masked out; by default true
            where there are labels, and masked of token ids without.
        image_size: height and width that images are brought to, 16 by default; 0 leaves them as they are.
        whiten: whether pixels of images are made uncorrelated; auto does so in searches by NASI, of images of up to
            4,096 numbers.
        classes: number of labels of random inputs or of a file; by default 10, or as many as its labels say.
        fold: of graphs in folds, the one that is the test set; 0 by default.
        length: of token ids, tokens of a sequence; by default those of the longest sentence, or 128 of a running text.
        vocabulary: of a text, file with a piece on each line; by default vocab.txt beside it.
        data_dir: folder of prepared TensorFlow data sets.
        download: allow TensorFlow Datasets to download the data set.
    """

    name: Annotated[str, tyro.conf.arg(name="data")] = "gaussian"
    labels: data.TokenLabels | None = None
    image_size: int | None = None
    whiten: Literal["auto", "yes", "no"] = "auto"
    classes: int | None = None
    fold: int | None = None
    length: int | None = None
    vocabulary: pathlib.Path | None = None
    data_dir: pathlib.Path | None = None
    download: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns what decides the batches, as JSON values.

        Raises:
            OSError: the data cannot be read.
        """
        names = ("labels", "image_size", "classes")
        chosen = {"data": data_identity(self.name, self.data_dir)} | {name: getattr(self, name) for name in names}
        if self.whiten != "auto":
            chosen["whiten"] = self.whiten
        for name in ("fold", "length"):
            if getattr(self, name) is not None:
                chosen[name] = getattr(self, name)
        return chosen if self.vocabulary is None else chosen | {"vocabulary": identity(self.vocabulary)}

    def source(self, space: SearchSpace, whiten: bool = False) -> data.Source:
        """Opens the data.

        Args:
            space: gives random inputs.
            whiten: whether images small enough are whitened where the user does not say.

        Returns:
            The source of batches.

        Raises:
            ValueError: an option is out of range or does not go with the data.
            FileNotFoundError: there is no such file or data set.
        """
        if self.image_size is not None and self.image_size < 0:
            raise ValueError(f"image_size: expected 0 or a positive integer, got {self.image_size}")
        size = _IMAGE_SIZE if self.image_size is None else self.image_size or None
        if _own_inputs(self.name):
            size = self.image_size
        if self.name == "gaussian":
            if self.labels not in (None, "random"):
                raise ValueError(
                    f"labels: expected 'random' with random inputs, which have no others, got {self.labels!r}"
                )
            noise = space.noise(10 if self.classes is None else self.classes)
            if self.length is not None and not isinstance(noise, data.RandomTokens):
                raise ValueError(f"length: expected none, {space.name} does not read token ids, got {self.length}")
            if self.whiten == "yes":
                raise ValueError("whiten: expected images, got random inputs")
            if isinstance(noise, data.Gaussian):
                return noise if size is None else noise.resized(size)
            if self.image_size is not None:
                raise ValueError(f"image_size: expected none, {space.name} does not read images, got {self.image_size}")
            return noise if self.length is None else noise.replace(length=self.length)  # type: ignore[attr-defined]
        opened = data.load(
            self.name,
            labels=self.labels,
            image_size=size,
            classes=self.classes,
            fold=self.fold,
            length=self.length,
            vocabulary=self.vocabulary,
            directory=self.data_dir,
            download=self.download,
        )
        if not isinstance(opened, data.Images):
            if self.whiten == "yes":
                raise ValueError(f"whiten: expected images, got {self.name!r}")
            return opened
        small = math.prod(opened.image_shape) <= data.WHITENED
        wanted = self.whiten == "yes" or (self.whiten == "auto" and whiten and small)
        return data.whitened(opened) if wanted else opened

    def cost_inputs(self, space: SearchSpace) -> Any:
        """Returns the inputs on which costs are counted: the data's own, but None, for those of the space, of images.

        Images are brought to a small size for a search, so that costs are not those of the images at hand; networks of
        graphs have layers of the width of the data's features, and those of texts a head for what is predicted.
        """
        return data.shapes(self.source(space), 2).x if _own_inputs(self.name) else None


def _own_inputs(name: str) -> bool:
    """Whether data are no images, and decide what the layers of a network are."""
    return data.holds_graphs(name) or data.holds_tokens(name)


@dataclasses.dataclass(frozen=True)
class SpaceOptions:
    """Which architectures there are.

    Attributes:
        name: search space; all are listed below.
        forbid: choices that no architecture is to have, such as none or avg_pool_3x3.
        fix: edges that are to have one choice, as edge=choice, such as "1->3=nor_conv_3x3"; kind/edge=choice where it
            is the edge of one kind of cell alone.
    """

    name: Annotated[str, tyro.conf.arg(name="space")] = _SPACE
    forbid: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Returns the options as JSON values."""
        return {"space": self.name, "forbid": self.forbid, "fix": self.fix}

    def opened(self) -> SearchSpace:
        """Returns the space without what is left out.

        Raises:
            ValueError: a name is unknown, or too little is left.
        """
        return spaces.restricted(spaces.get(self.name), self.forbid, self.fix)


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """What an architecture may cost when it is trained, such as 60e6.

    Attributes:
        max_params: number of parameters.
        max_flops: multiply-adds of convolutions and products for one example.
        max_latency_ms: milliseconds that one example takes on the device at hand.
    """

    max_params: float | None = None
    max_flops: float | None = None
    max_latency_ms: float | None = None

    def opened(self) -> Limits:
        """Returns the limits.

        Raises:
            ValueError: a bound is no positive number.
        """
        return Limits(**dataclasses.asdict(self))


def load_settings(files: Sequence[pathlib.Path]) -> dict[str, Any]:
    """Returns what the files of --load hold, as JSON values, for a command that depends on them."""
    return {"load": {file.stem: identity(file) for file in files}} if files else {}


def files_in(arguments: list[str]) -> list[str]:
    """Returns the files that a command line has after --load, which are loaded before it is parsed."""
    files, after = [], False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if argument.startswith("--"):
            after = option == "--load" and not equals
            files += [value] if option == "--load" and equals else []
        elif after:
            files.append(argument)
    return files


def named_in(arguments: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """Reads options that decide the defaults of others, before the command line is parsed.

    Args:
        arguments: command line without the program's name.
        defaults: for each option, such as "--preset", what it is where the command line does not name it.

    Returns:
        The options' values.
    """
    named = dict(defaults)
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        if option in named:
            named[option] = value if equals else following
    return named


def named_space(arguments: list[str]) -> SearchSpace:
    """Returns the space that a command line names, whose sizes are options; what is wrong with it is said later."""
    name = named_in(arguments, {"--space": _SPACE})["--space"]
    try:
        return spaces.get(name)
    except ValueError:
        return spaces.SPACES[_SPACE]
