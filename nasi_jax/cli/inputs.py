"""What the inputs of a command are by what they hold."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from nasi_jax.runs.files import identity


def data_identity(name: str, directory: pathlib.Path | None) -> Any:
    """Says which data a run reads, so that it continues with the same ones wherever they lie, and with no others.

    Args:
        name: as of `nasi_jax.data.load`.
        directory: folder of prepared TensorFlow data sets.

    Returns:
        The `nasi_jax.runs.identity` of the file or the prepared set; the name itself where there is neither.

    Raises:
        OSError: they cannot be read.
    """
    if name == "gaussian":
        return name
    if pathlib.Path(name).exists():
        return identity(name)
    home = directory or pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    prepared = home / name.partition(":")[0]
    return identity(prepared) | {"path": name} if prepared.is_dir() else name
