"""A run as one self-contained HTML file."""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Sequence

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code, pre { font-size: .9rem; background: #f3f3f3; border-radius: .25rem; overflow-wrap: anywhere; }
code { padding: .15rem .35rem; }
pre { padding: .7rem .9rem; white-space: pre-wrap; user-select: all; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
td.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.settings td { overflow-wrap: anywhere; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption { color: #555; font-size: .9rem; }
summary { font-size: 1.15rem; font-weight: bold; margin-top: 2.2rem; cursor: pointer; }
"""
Rows = Sequence[Sequence[object]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report, under a heading; what it has of these stands there in their order.

    Attributes:
        heading: its heading.
        picture: a PNG's bytes.
        text: a paragraph.
        columns: names of a table's columns.
        rows: the table's rows.
        command: a command line, which a click selects whole.
        folded: whether it shows its heading alone until it is opened.
    """

    heading: str
    picture: bytes = b""
    text: str = ""
    columns: Sequence[str] = ()
    rows: Rows = ()
    command: str = ""
    folded: bool = False


def html_report(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Puts the sections of a report into one HTML page without outside references.

    Args:
        title: heading of the page.
        lead: a line below it, shown as code.
        sections: what follows.

    Returns:
        The page.
    """
    body = "".join(map(_shown, sections))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1><p><code>{html.escape(lead)}</code></p>"
        f"{body}</body></html>\n"
    )


def _shown(section: Section) -> str:
    heading, parts = html.escape(section.heading), []
    if section.picture:
        data = base64.b64encode(section.picture).decode()
        caption = f"<figcaption>{html.escape(section.text)}</figcaption>" if section.text else ""
        parts.append(f'<figure><img alt="{heading}" src="data:image/png;base64,{data}">{caption}</figure>')
    elif section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.columns:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in section.columns)
        rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in section.rows)
        kind = "wide settings" if section.folded else "wide"
        parts.append(f'<div class="{kind}"><table><tr>{head}</tr>{rows}</table></div>')
    if section.command:
        parts.append(f"<pre>{html.escape(section.command)}</pre>")
    inside = "".join(parts)
    if section.folded:
        return f"<details><summary>{heading}</summary>{inside}</details>"
    return f"<h2>{heading}</h2>{inside}"


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape(str(value))}</td>"
    whole = float(value).is_integer() and abs(value) < 1e15
    return f'<td class="figure">{int(value):,}</td>' if whole else f'<td class="figure">{value:.6g}</td>'
