"""Reads cells of the DARTS space as configurations of NAS-Bench-301 write them."""

from __future__ import annotations

import ast
import re

_KEY = re.compile(r"(?:.*(?::|_COLON_))?(edge|inputs_node)_(normal|reduce)_(\d+)", re.DOTALL)
"""A parameter that decides an architecture; the module's name before it may be left out."""
_FIRST_EDGE = {2: 0, 3: 2, 4: 5, 5: 9}
"""Number of the edge from input 0 to each node."""


def cells(node: ast.expr | None) -> list[list[tuple[str, int]]] | None:
    """Reads a configuration: an operation for each edge that is there, and the two inputs of nodes 3 to 5.

    Edges are numbered from 0 to 13, node after node; node 2 reads inputs 0 and 1. Other parameters have no part in the
    architecture.

    Args:
        node: a dictionary, as `nasi_jax.spaces.text.expression` reads it, or anything else.

    Returns:
        (operation, input) of the eight edges of the normal and of the reduction cell, or None where there is no
        parameter of a cell.

    Raises:
        ValueError: a parameter of a cell is missing, too much, or no text.
    """
    if not isinstance(node, ast.Dict):
        return None
    found: dict[str, str] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        match = _KEY.fullmatch(key.value) if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
        if match is not None:
            name = "_".join(match.groups())
            if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
                raise ValueError(f"genotype: expected a text for {name}, got {ast.unparse(value)}")
            found[name] = value.value
    if not found:
        return None
    read = []
    for kind in ("normal", "reduce"):
        edges = []
        for target, first in _FIRST_EDGE.items():
            inputs = "0_1" if target == 2 else _taken(found, f"inputs_node_{kind}_{target}")
            pair = inputs.split("_")
            if len(pair) != 2 or not all(entry.isascii() and entry.isdigit() and len(entry) == 1 for entry in pair):
                raise ValueError(f"genotype: expected two inputs, such as '0_1', of node {target}, got {inputs!r}")
            edges += [(_taken(found, f"edge_{kind}_{first + int(entry)}"), int(entry)) for entry in pair]
        read.append(edges)
    if found:
        raise ValueError(f"genotype: expected operations of edges that the nodes read, got {sorted(found)} too")
    return read


def _taken(found: dict[str, str], name: str) -> str:
    if name not in found:
        raise ValueError(f"genotype: expected {name} in a configuration of NAS-Bench-301")
    return found.pop(name)
