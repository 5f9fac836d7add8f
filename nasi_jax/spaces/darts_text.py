"""The text forms of DARTS cells: the authors' genotype and its variants, and tuples of numbers."""

from __future__ import annotations

import ast
from typing import Any

from nasi_jax.spaces import nasbench301_text
from nasi_jax.spaces import text as text_form
from nasi_jax.spaces.darts_network import NODES, OPERATIONS

Cell = list[list[tuple[str, int]]]
"""For each node (operation, input) of its two edges."""

NONE = "none"
_CELL_KEYS = ("normal", "reduce")
_TEXT_KEYS = ("normal", "normal_concat", "reduce", "reduce_concat", "connectN", "connects")
"""The last two are None in the genotypes of AutoDL-Projects."""
_CONCAT = range(2, 2 + NODES)


def genotype_text(normal: Cell, reduction: Cell) -> str:
    """Writes the authors' text form of a normal and a reduction cell."""
    edges = [[edge for node in cell for edge in node] for cell in (normal, reduction)]
    return f"Genotype(normal={edges[0]}, normal_concat={_CONCAT}, reduce={edges[1]}, reduce_concat={_CONCAT})"


def naslib(cells: list[Cell]) -> str:
    """Writes NASLib's tuples of NAS-Bench-301: (input, operation) of the edges of both cells, as numbers."""
    return str([[(source, OPERATIONS.index(name)) for node in cell for name, source in node] for cell in cells])


def parse(text: str, *, free: bool = False) -> list[Cell]:
    """Reads a normal and a reduction cell, without evaluating them.

    Args:
        text: see `nasi_jax.spaces.DARTS.parse`.
        free: whether a node may read one input twice, an operation may be "none", and edges stay in their order; else
            the inputs of a node are brought into rising order.

    Returns:
        Both cells.

    Raises:
        ValueError: `text` is malformed.
    """
    pair = text_form.expression(text, "Genotype")
    if (configured := nasbench301_text.cells(pair)) is not None:
        written = [ast.parse(str(edges), mode="eval").body for edges in configured]
        cells, numbers = dict(zip(_CELL_KEYS, written, strict=True)), False
    elif isinstance(pair, ast.List | ast.Tuple) and len(pair.elts) == 2:
        cells, numbers = dict(zip(_CELL_KEYS, pair.elts, strict=True)), True
    else:
        optional = tuple(key for key in _TEXT_KEYS if key not in _CELL_KEYS)
        parts = text_form.arguments(text, "Genotype", _TEXT_KEYS, optional)
        cells, numbers = {name: parts.pop(name) for name in _CELL_KEYS}, False
        for name, value in parts.items():
            _check_fixed(name, value)
    return [_parse_cell(name, cell, numbers, free) for name, cell in cells.items()]


def _check_fixed(name: str, node: ast.expr) -> None:
    """Checks what is the same for all genotypes of the space."""
    expected = _CONCAT if name.endswith("concat") else None
    listed = text_form.literal(name, node, f"to be {expected}")
    if expected is None:
        if listed is not None:
            raise ValueError(f"genotype: expected {name} to be None, got {ast.unparse(node)}")
    elif not isinstance(listed, list | tuple) or sorted(listed, key=str) != list(_CONCAT):
        raise ValueError(f"genotype: expected {name} to be {_CONCAT}, got {ast.unparse(node)}")


def _parse_cell(name: str, node: ast.expr, numbers: bool, free: bool) -> Cell:
    edges = text_form.literal(name, node, "as a list of (operation, input)")
    if isinstance(edges, list | tuple) and len(edges) == NODES and not any(map(_is_edge, edges)):
        for target, node_edges in enumerate(edges, start=2):
            if not isinstance(node_edges, list | tuple) or len(node_edges) != 2:
                raise ValueError(f"genotype: expected two edges of node {target} of {name}, got {node_edges!r}")
        edges = [edge for node_edges in edges for edge in node_edges]
    if not isinstance(edges, list | tuple) or len(edges) != 2 * NODES:
        got = f"{len(edges)}" if isinstance(edges, list | tuple) else ast.unparse(node)
        raise ValueError(f"genotype: expected {2 * NODES} edges in {name}, two for each of {NODES} nodes, got {got}")
    nodes = []
    for target in range(2, NODES + 2):
        found = [_parse_edge(name, target, edge, numbers, free) for edge in edges[2 * target - 4 : 2 * target - 2]]
        if not free:
            if found[0][1] == found[1][1]:
                raise ValueError(
                    f"genotype: expected node {target} of {name} to read two different inputs, got {found[0][1]} "
                    f"twice, as cells of the space darts-nds may"
                )
            found.sort(key=lambda edge: edge[1])
        nodes.append(found)
    return nodes


def _is_edge(value: Any) -> bool:
    """Whether a value is two entries, or three where the last is the weight that a search gave the edge."""
    if not isinstance(value, list | tuple) or any(isinstance(entry, list | tuple) for entry in value):
        return False
    return len(value) == 2 or (len(value) == 3 and isinstance(value[2], float))


def _parse_edge(name: str, target: int, edge: Any, numbers: bool, free: bool) -> tuple[str, int]:
    """Returns (operation, input)."""
    if not _is_edge(edge):
        raise ValueError(f"genotype: expected edges (operation, input) in {name}, got {edge!r}")
    edge = edge[:2]
    swapped = type(edge[0]) is int and (numbers or isinstance(edge[1], str))
    source, operation = edge if swapped else reversed(edge)
    if type(operation) is int:
        if not numbers:
            raise ValueError(
                f"genotype: expected names of operations in {name}, got {edge!r}, which may be (operation, input) or "
                f"(input, operation)"
            )
        if not 0 <= operation < len(OPERATIONS):
            raise ValueError(
                f"genotype: expected edges (input, operation) in {name} with operations 0 to {len(OPERATIONS) - 1}, "
                f"which are {OPERATIONS}, got {edge!r}"
            )
        operation = OPERATIONS[operation]
    if operation == NONE and not free:
        raise ValueError(
            f"genotype: expected an operation on every edge of {name}, got 'none' into node {target}, as cells of the "
            f"space darts-nds may have"
        )
    if operation not in (NONE, *OPERATIONS):
        raise ValueError(f"genotype: {text_form.unknown(f'operation of {name}', operation, OPERATIONS)}")
    if type(source) is not int or not 0 <= source < target:
        raise ValueError(
            f"genotype: expected node {target} of {name} to read an earlier one, 0 to {target - 1}, got {source!r}"
        )
    return operation, source
