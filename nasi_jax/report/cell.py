"""Draws the cells of a genotype as graphs."""

from __future__ import annotations

import pathlib
import textwrap

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from nasi_jax.spaces import Edge

_INCHES = 2.3
_LETTERS_PER_INCH = 10
_FADED = "0.75"
_NODE_COLOUR = "0.25"


def cell_figure(graph: dict[str, list[Edge]], operations: tuple[str, ...], title: str = "") -> Figure:
    """Draws each kind of cell as a graph, one beside the other.

    Nodes stand in a row; an edge that passes over others is an arc, coloured and labelled by its operation. An
    edge without one is a dark line, and one whose operation is "none" a dotted grey one.

    Args:
        graph: edges of each kind of cell, as `SearchSpace.graph` gives them.
        operations: all operations of the space, so that a colour means the same in every drawing.
        title: text above the drawing.

    Returns:
        The figure.
    """
    figure = _drawn([(name if len(graph) > 1 else "", edges) for name, edges in graph.items()], operations)
    figure.suptitle(textwrap.fill(title, max(40, int(_LETTERS_PER_INCH * figure.get_figwidth()))), fontsize=10)
    return figure


def cells_figure(graphs: dict[str, dict[str, list[Edge]]], operations: tuple[str, ...]) -> Figure:
    """Draws several genotypes one below the other, such as those of a search over time.

    Args:
        graphs: under the title of each genotype its edges, see `cell_figure`.
        operations: see `cell_figure`.

    Returns:
        The figure.
    """
    listed = [
        (f"{title}: {name}" if len(graph) > 1 else title, edges)
        for title, graph in graphs.items()
        for name, edges in graph.items()
    ]
    return _drawn(listed, operations)


def _drawn(listed: list[tuple[str, list[Edge]]], operations: tuple[str, ...]) -> Figure:
    """Draws graphs with their titles one below the other."""
    figure = Figure(layout="constrained")
    width = height = 0.0
    for row, (title, edges) in enumerate(listed):
        axes = figure.add_subplot(len(listed), 1, row + 1)
        _draw(axes, edges, operations)
        width = max(width, _INCHES * np.ptp(axes.get_xlim()))
        height += _INCHES * np.ptp(axes.get_ylim())
        if title:
            axes.set_title(title)
    figure.set_size_inches(width, height + 0.3)
    return figure


def save_cell(
    path: str | pathlib.Path, graph: dict[str, list[Edge]], operations: tuple[str, ...], title: str = ""
) -> None:
    """Writes the drawing of `cell_figure` to a file, in the format that its ending names.

    Args:
        path: the file, for example `cell.png` or `cell.svg`; its folder is made where it is missing.
        graph: see `cell_figure`.
        operations: see `cell_figure`.
        title: see `cell_figure`.

    Raises:
        ValueError: the ending names no format that can be written, or the file cannot be written.
    """
    path, figure = pathlib.Path(path), cell_figure(graph, operations, title)
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix[1:] not in formats:
        raise ValueError(f"out: expected a file ending in one of {formats}, got {str(path)!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # text stays text in vector formats, and files of one genotype are equal
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "nasi_jax"}):
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise ValueError(f"out: cannot write {str(path)!r}: {error.strerror or error}") from error


def _nodes(edges: list[Edge]) -> list[str]:
    """Returns the nodes, inputs first."""
    targets = list(dict.fromkeys(edge.target for edge in edges))
    inputs = list(dict.fromkeys(edge.source for edge in edges if edge.source not in targets))
    return inputs + targets


def _draw(axes: Axes, edges: list[Edge], operations: tuple[str, ...]) -> None:
    colours = {operation: colormaps["tab10"](i % 10) for i, operation in enumerate(operations)}
    nodes = _nodes(edges)
    place = {node: float(i) for i, node in enumerate(nodes)}
    highest = lowest = 0.0
    for i, edge in enumerate(edges):
        start, end = place[edge.source], place[edge.target]
        span = end - start
        # arcs alternate above and below the row, so that edges of one length do not cover each other
        height = 0.0 if span == 1 else 0.45 * (span - 1) * (1 if i % 2 else -1)
        colour, style = (_FADED, ":") if edge.operation == "none" else (colours.get(edge.operation, _NODE_COLOUR), "-")
        axes.add_patch(
            FancyArrowPatch(
                (start, 0),
                (end, 0),
                connectionstyle=f"arc3,rad={-2 * height / span}",
                arrowstyle="-|>",
                mutation_scale=16,
                shrinkA=18,
                shrinkB=18,
                linewidth=2,
                linestyle=style,
                color=colour,
            )
        )
        if edge.operation:
            axes.text(
                (start + end) / 2,
                height,
                edge.operation,
                ha="center",
                va="center",
                fontsize=8,
                color="0.5" if edge.operation == "none" else "black",
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "linestyle": style},
            )
        highest, lowest = max(highest, height), min(lowest, height)
    for node, x in place.items():
        axes.scatter([x], [0], s=900, color=_NODE_COLOUR, zorder=3)
        size = 10 if len(node) < 4 else 8
        axes.text(x, 0, node, ha="center", va="center", color="white", fontsize=size, zorder=4)
    axes.set_aspect("equal")  # arc heights are relative to arc lengths as drawn
    axes.set_xlim(-0.4, len(nodes) - 0.6)
    axes.set_ylim(lowest - 0.35, highest + 0.35)
    axes.set_axis_off()
