"""Reads a genotype as an option of a command."""

from __future__ import annotations

from typing import Any

from nasi_jax import spaces
from nasi_jax.runs.files import read_json


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
    record = read_json(text, "genotype")
    named = {"space": space_name, "genotype": ""} | (record if isinstance(record, dict) else {})
    if not isinstance(named["space"], str) or not isinstance(named["genotype"], str):
        raise ValueError(f"genotype: expected texts 'space' and 'genotype' in {text!r}")
    try:
        space = spaces.get(named["space"])
        return space, spaces.from_json(space, record)
    except ValueError as error:
        raise ValueError(f"genotype: {text!r}: {error}") from error
