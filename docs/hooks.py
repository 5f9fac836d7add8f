"""What the site takes from the repository: results, pictures, tables, lists of what is registered.

A page writes ``{{ table("experiments/results/...", ...) }}`` and the like; nothing that was measured is typed by hand.
"""

import html
import inspect
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import jinja2
import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = (
    "experiments/README.md",
    "experiments/results/**/*.md",
    "experiments/results/**/*.png",
    "experiments/results/**/*.json",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "examples/*.ipynb",
)
"""What the site has besides the files of this folder, at the same paths as in the repository."""

_FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the results and notebooks of the repository."""
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what a page takes from the repository, to which its links lead as in the repository itself."""
    if page.file.src_dir != config.docs_dir:
        return markdown
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.globals.update(include=include, prose=prose, table=table, value=value, **LISTS)
    above = "../" * page.file.src_uri.count("/")
    return environment.from_string(markdown).render().replace(f"]({above}../", f"]({above}")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes formulas as MathML, which browsers show by themselves."""
    return _FORMULA.sub(lambda found: _mathml(found[2], "block" if found[1] == "div" else "inline"), content)


def _mathml(formula: str, display: str) -> str:
    text = html.unescape(formula).strip().replace("\\|", "\\Vert ")  # the name that the converter knows
    return latex2mathml.converter.convert(text, display=display)


def include(path: str) -> str:
    """Returns a text file of the repository."""
    return (ROOT / path).read_text()


def table(
    path: str,
    rows: dict[str, str | list[str]] | None = None,
    columns: list[str] | None = None,
    number: int = 0,
    sort: str | None = None,
) -> str:
    """Returns a table of a committed Markdown file.

    Args:
        path: of the file, from the root of the repository.
        rows: for a column, by its header, the text that it has in the rows wanted, or several; all rows when None.
        columns: headers of the columns wanted, in their order; all of them when None.
        number: which table of the file.
        sort: header of a column whose leading number orders the rows, the largest first.

    Returns:
        The table, as Markdown.

    Raises:
        ValueError: the file has no such table, column or row.
    """
    header, *body = _tables(path)[number]
    named = [dict(zip(header, row, strict=True)) for row in body]
    for column, wanted in (rows or {}).items():
        texts = [wanted] if isinstance(wanted, str) else wanted
        if absent := set(texts) - {row[column] for row in named}:
            raise ValueError(f"rows: {path} has no {column} {sorted(absent)}")
        named = [row for row in named if row[column] in texts]
    if sort is not None:
        named.sort(key=lambda row: float(row[sort].split()[0]), reverse=True)
    chosen = header if columns is None else columns
    return _written(chosen, ([row[name] for name in chosen] for row in named))


def value(path: str, column: str, number: int = 0, **row: str) -> str:
    """Returns one cell of a table of a committed Markdown file.

    Args:
        path: of the file, from the root of the repository.
        column: header of its column.
        number: which table of the file.
        **row: headers, and the text that only its row has there.

    Returns:
        The text of the cell.

    Raises:
        ValueError: there is no such cell, or several.
    """
    header, *body = _tables(path)[number]
    named = [dict(zip(header, cells, strict=True)) for cells in body]
    (found,) = [cells for cells in named if row.items() <= cells.items()]
    return found[column]


def prose(path: str, line: int = 0) -> str:
    """Returns a line of a committed Markdown file, such as the one above a table that says how it was measured."""
    return (ROOT / path).read_text().splitlines()[line]


def _tables(path: str) -> list[list[list[str]]]:
    """Returns the tables of a Markdown file, each as rows of cells, the header first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in (ROOT / path).read_text().splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not inside:
                found.append([])
            if set("".join(cells)) != {"-"}:
                found[-1].append(cells)
        inside = line.startswith("| ")
    return found


def _written(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _first(described: Any) -> str:
    """Returns the first paragraph of a docstring."""
    return _cell((inspect.getdoc(described) or "").split("\n\n")[0])


def _source(described: Any) -> str:
    """Returns the references of a docstring."""
    found = re.search(r"References:\n((?:    .+\n?)+)", inspect.getdoc(described) or "")
    return _cell(found[1]) if found else ""


def list_of_scores() -> str:
    """Returns every registered score: what it computes, what it needs, where it is from."""
    from nasi_jax import scores

    rows = []
    for name, score in scores.SCORES.items():
        needs = [word for word, needed in (("inputs", score.data), ("labels", score.labels)) if needed]
        better = "higher" if score.higher_is_better else "lower"
        rows.append([f"`{name}`", _cell(score.formula), better, " and ".join(needs) or "neither", _cell(score.paper)])
    return _written(["name", "what it computes", "better", "needs", "paper"], rows)


def list_of_spaces() -> str:
    """Returns every registered space: what it is, how many architectures it has, where it is from."""
    from nasi_jax import spaces

    rows = []
    for name, space in spaces.SPACES.items():
        count = space.cardinality
        shown = f"{count:,}" if count < 10**9 else f"{count:.1e}".replace("e+", " · 10^").replace("^0", "^")
        one_shot = "yes" if space.one_shot else "no"
        rows.append([f"`{name}`", shown, one_shot, _source(type(space)) or _first(type(space))])
    return _written(["name", "architectures", "one-shot network", "paper"], rows)


def list_of_strategies() -> str:
    """Returns every strategy of the command: its presets, what it does, where it is from."""
    from nasi_jax import search
    from nasi_jax.cli.search import STRATEGIES, presets

    rows = []
    for name in STRATEGIES:
        strategy = search.STRATEGIES[name] if name in search.STRATEGIES else type(search.METHODS[name]["default"])
        named = ", ".join(f"`{preset}`" for preset in presets(name))
        rows.append([f"`{name}`", named, _first(strategy), _source(strategy)])
    return _written(["`--strategy`", "`--preset`", "what it does", "paper"], rows)


def list_of_recipes() -> str:
    """Returns every training recipe with its main settings."""
    from nasi_jax import train

    rows = [
        [f"`{name}`", f"{r.epochs}", f"{r.batch}", f"{r.channels}", f"{r.cells}", f"{r.learning_rate:g}"]
        for name, r in train.RECIPES.items()
    ]
    return _written(["`--recipe`", "epochs", "batch", "channels", "cells", "learning rate"], rows)


LISTS = {
    function.__name__: function for function in (list_of_scores, list_of_spaces, list_of_strategies, list_of_recipes)
}
