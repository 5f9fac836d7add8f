"""Options that several verbs share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from nasi_jax import data


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where batches come from.

    Attributes:
        data: "gaussian", the path of an .npz file with x and y, or the name of a TensorFlow data set.
        labels: the data's own labels or random ones; by default true where there are labels.
        image_size: height and width that images are brought to; 0 leaves them as they are (Gaussian: 32).
        classes: number of labels of Gaussian inputs or of an .npz file; by default 10, or as many as its labels say.
        data_dir: folder of prepared TensorFlow data sets.
        download: allow TensorFlow Datasets to download the data set.
    """

    data: str = "gaussian"
    labels: Literal["true", "random"] | None = None
    image_size: int = 16
    classes: int | None = None
    data_dir: pathlib.Path | None = None
    download: bool = False

    def source(self) -> data.Source:
        """Opens the data.

        Returns:
            The source of batches.

        Raises:
            ValueError: an option is out of range or does not go with the data.
            FileNotFoundError: there is no such file or data set.
        """
        if self.image_size < 0:
            raise ValueError(f"image_size: expected 0 or a positive integer, got {self.image_size}")
        return data.load(
            self.data,
            labels=self.labels,
            image_size=self.image_size or None,
            classes=self.classes,
            directory=self.data_dir,
            download=self.download,
        )


def named_in(arguments: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """Reads options that decide the defaults of others, before the command line is parsed.

    Args:
        arguments: command line without the program's name.
        defaults: for each option, such as "--preset", what it is where the command line does not name it.

    Returns:
        The options' values.
    """
    named = dict(defaults)
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option in named:
            named[option] = value if equals else following
    return named
