"""Reads a genotype as an option of a command."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from nasi_jax import spaces


def read(text: str, space_name: str) -> tuple[spaces.SearchSpace, Any]:
    """Reads a genotype.json or a text form.

    Args:
        text: path of a file that ends in .json, or the text form itself.
        space_name: search space of a text form; a genotype.json names its own.

    Returns:
        The search space and the genotype.

    Raises:
        FileNotFoundError: there is no such genotype.json.
        ValueError: the genotype is malformed, or the space unknown.
    """
    if not text.endswith(".json"):
        space = spaces.get(space_name)
        return space, space.parse(text)
    path = pathlib.Path(text)
    if not path.is_file():
        raise FileNotFoundError(f"genotype: expected a genotype.json, there is none at {text!r}")
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"genotype: {text!r} is not JSON: {error}") from error
    space = spaces.get(record.get("space", space_name) if isinstance(record, dict) else space_name)
    return space, spaces.from_json(space, record)
