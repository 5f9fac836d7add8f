"""Writes the pictures and the report of a run."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import nasi_jax
from nasi_jax.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    folder: RunFolder,
    title: str,
    lead: str,
    pictures: dict[str, tuple[str, str, Figure]],
    tables: dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]],
    settings: dict[str, dict[str, Any]],
) -> None:
    """Writes each picture as a file, and all of them with the tables as report.html.

    Args:
        folder: the run folder.
        title: heading of the report.
        lead: a line below it.
        pictures: for each heading a file name, a caption and a figure.
        tables: for each heading the column names and the rows.
        settings: for each heading a tree of names and values, shown as a table.
    """
    shown = {}
    for heading, (name, caption, figure) in pictures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        folder.write(name, buffer.getvalue())
        shown[heading] = (caption, buffer.getvalue())
    listed = {heading: (("name", "value"), _flat(tree)) for heading, tree in settings.items()}
    folder.write("report.html", nasi_jax.report.html_report(title, lead, shown, tables | listed))


def _flat(tree: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        pair
        for name, value in tree.items()
        for pair in (_flat(value) if isinstance(value, dict) else [(name, "default" if value is None else value)])
    ]
