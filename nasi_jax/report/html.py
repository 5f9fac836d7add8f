"""A run as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code { background: #f3f3f3; padding: .15rem .35rem; border-radius: .25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption { color: #555; font-size: .9rem; }
"""


def html_report(
    title: str,
    lead: str,
    pictures: Mapping[str, tuple[str, bytes]],
    tables: Mapping[str, tuple[tuple[str, ...], list[tuple[object, ...]]]],
) -> str:
    """Puts pictures and tables into one HTML page without outside references.

    Args:
        title: heading of the page.
        lead: a line below it, shown as code.
        pictures: for each heading a caption and a PNG's bytes.
        tables: for each heading the column names and the rows.

    Returns:
        The page.
    """
    parts = [f"<h1>{html.escape(title)}</h1><p><code>{html.escape(lead)}</code></p>"]
    for heading, (caption, png) in pictures.items():
        data = base64.b64encode(png).decode()
        parts.append(
            f'<h2>{html.escape(heading)}</h2><figure><img alt="{html.escape(heading)}" '
            f'src="data:image/png;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        )
    for heading, (columns, rows) in tables.items():
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{head}</tr>{body}</table>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
