"""Notations of NAS-Bench-201's cells: the benchmark's string and index, NASLib's tuple, and lists of edges.

References:
    Dong and Yang, "NAS-Bench-201", ICLR 2020, and the authors' code, which shuffles the list of all cells with Python's
    generator at seed 88, for the index; the conversions of NASLib for its tuple.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Sequence
from typing import Any

from nasi_jax.spaces import text as text_form

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The benchmark's operations, in its order."""

EDGES = tuple((source, target) for target in range(1, 4) for source in range(target))
"""(source, target) of each edge, in the order of the benchmark's arch string."""

_NASLIB_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_NASLIB_EDGES = tuple(sorted(EDGES))
_SEED = 88
_EXPECTED = (
    "genotype: expected an arch string such as '|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|', the "
    "benchmark's index, or NASLib's tuple of six numbers"
)
_Cell = tuple[str, ...]
"""For each of `EDGES` its operation."""


def arch_string(operations: Sequence[str]) -> str:
    """Writes the benchmark's arch string of the operations of `EDGES`."""
    nodes: dict[int, list[str]] = {}
    for (source, target), operation in zip(EDGES, operations, strict=True):
        nodes.setdefault(target, []).append(f"{operation}~{source}")
    return "+".join("|" + "|".join(parts) + "|" for parts in nodes.values())


def index(operations: Sequence[str]) -> int:
    """Returns the benchmark's index of the cell with these operations of `EDGES`."""
    return _indices()[tuple(operations)]


def naslib(operations: Sequence[str]) -> str:
    """Writes NASLib's tuple of the operations of `EDGES`."""
    placed = dict(zip(EDGES, operations, strict=True))
    return str(tuple(_NASLIB_OPERATIONS.index(placed[edge]) for edge in _NASLIB_EDGES))


def parse(text: str) -> _Cell:
    """Reads a cell.

    An arch string may have spaces, and the edges of a node in any order. A number is the benchmark's index, which is
    NATS-Bench's too. Six numbers in parentheses are NASLib's, whose operations and edges are in another order than the
    benchmark's; in brackets they may be either's, and so may six names. Three lists of (operation, source) are the
    benchmark's nodes. A name, and what a logger writes, may come before.

    Args:
        text: the text.

    Returns:
        The operation of each of `EDGES`.

    Raises:
        ValueError: `text` is something else, or has two readings.
    """
    start = re.search(r"\|\s*\w*\s*~", text)
    if start and not re.search(r"~|\|\s*\+", text[: start.start()]):
        return _of_string(text[start.start() : text.rindex("|") + 1])
    expression = text_form.expression(text, "Structure")
    if "~" in text or expression is None:
        return _of_string(text_form.unquoted(text))
    value = text_form.literal("a cell", expression, "as an arch string, an index or six numbers")
    if type(value) is int:
        return _of_index(value)
    if isinstance(value, list | tuple) and len(value) == len(EDGES):
        return _of_row(value)
    if isinstance(value, list | tuple) and len(value) == len({target for _, target in EDGES}):
        return _of_nodes([_pairs(target, node) for target, node in enumerate(value, start=1)], text)
    raise ValueError(f"{_EXPECTED}, got {text!r}")


def _of_string(text: str) -> _Cell:
    parts = re.sub(r"\s", "", text).split("+")
    if len(parts) == 1 and "|" not in text:
        raise ValueError(f"{_EXPECTED}, got {text!r}")
    if len(parts) != 3:
        raise ValueError(f"arch string: expected 3 nodes joined by '+', got {len(parts)} in {text!r}")
    nodes = []
    for target, part in enumerate(parts, start=1):
        entries = part[1:-1].split("|") if re.fullmatch(r"\|.*\|", part) else []
        if len(entries) != target:
            expected = "|" + "|".join(f"operation~{i}" for i in range(target)) + "|"
            raise ValueError(f"arch string: expected node {target} as {expected!r}, got {part!r} in {text!r}")
        pairs = [entry.rpartition("~")[::2] for entry in entries]
        nodes.append([(operation, int(source) if source.isdecimal() else source) for operation, source in pairs])
    return _of_nodes(nodes, text)


def _pairs(target: int, node: Any) -> list[tuple[Any, Any]]:
    if not isinstance(node, list | tuple) or any(not isinstance(p, list | tuple) or len(p) != 2 for p in node):
        raise ValueError(f"genotype: expected node {target} as a list of (operation, source), got {node!r}")
    return [tuple(pair) for pair in node]


def _of_nodes(nodes: list[list[tuple[Any, Any]]], text: str) -> _Cell:
    """Returns the cell of (operation, source) of each node's edges, in any order."""
    cell = []
    for target, pairs in enumerate(nodes, start=1):
        for source in range(target):
            operations = [operation for operation, origin in pairs if origin == source]
            if len(operations) != 1 or len(pairs) != target:
                raise ValueError(f"arch string: expected 'operation~{source}' once in node {target}, in {text!r}")
            if operations[0] not in OPERATIONS:
                raise ValueError(f"arch string: {text_form.unknown('operation', operations[0], OPERATIONS)}")
            cell += operations
    return tuple(cell)


def _of_index(index: int) -> _Cell:
    cells = _cells()
    if not 0 <= index < len(cells):
        raise ValueError(f"genotype: expected an index of the benchmark from 0 to {len(cells) - 1}, got {index}")
    return cells[index]


@functools.cache
def _cells() -> Sequence[_Cell]:
    """Returns all cells in the benchmark's order."""
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    random.Random(_SEED).shuffle(cells)
    return cells


@functools.cache
def _indices() -> dict[_Cell, int]:
    return {cell: index for index, cell in enumerate(_cells())}


def _of_row(row: Sequence[Any]) -> _Cell:
    """Returns the cell of six numbers or names, one for each edge."""
    names = all(isinstance(entry, str) for entry in row)
    known = OPERATIONS if names else range(len(OPERATIONS))
    if any(type(entry) not in (int, str) or entry not in known for entry in row):
        expected = f"names of {OPERATIONS}" if names else f"numbers from 0 to {len(OPERATIONS) - 1}"
        raise ValueError(f"genotype: expected six {expected}, got {row!r}")
    benchmark = tuple(row if names else (OPERATIONS[entry] for entry in row))
    placed = dict(zip(_NASLIB_EDGES, row if names else (_NASLIB_OPERATIONS[entry] for entry in row), strict=True))
    naslib = tuple(placed[edge] for edge in EDGES)
    if naslib == benchmark or (isinstance(row, tuple) and not names):
        return naslib
    raise ValueError(
        f"genotype: expected one reading, {row!r} has two: {arch_string(benchmark)!r} in the benchmark's order, "
        f"{arch_string(naslib)!r} in NASLib's"
    )
