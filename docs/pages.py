"""Writes into README.md and the pages of the site what they take from the repository: ``python docs/pages.py``.

A page says ``<!-- table("experiments/results/...", ...) -->``, and what stands between that and ``<!-- end -->`` is
written by this script: results from committed files, and lists of what is registered. Nothing that was measured is
typed into a page, and a test holds the pages to what the script writes.
"""

import ast
import inspect
import itertools
import pathlib
import re
from collections.abc import Iterable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "experiments" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)

_BETWEEN_FIGURES = re.compile(
    r" (?=± )|(?<=±) |(?<=\d) (?=[\[(]-?[\d.])|(?<=[\d.],) (?=-?[\d.]+\])|(?<=\d) (?=to -?[\d.]+\))"
)
"""Spaces at which a line does not break: between a figure and its spread or interval."""

HEADING = "heading"
"""What `pivot` calls the line above a table."""

_BLOCK = re.compile(r"<!-- (\w+\(.*?\)) -->.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """Returns a page with the present output of every call in it."""

    def written(found: re.Match[str]) -> str:
        output = _called(found[1])
        around = "\n" if output.startswith(("|", "`")) else ""
        return f"<!-- {found[1]} -->{around}{output}{around}<!-- end -->"

    return _BLOCK.sub(written, text)


def _called(text: str) -> str:
    call: Any = ast.parse(text, mode="eval").body
    arguments = [ast.literal_eval(argument) for argument in call.args]
    return FUNCTIONS[call.func.id](*arguments, **{word.arg: ast.literal_eval(word.value) for word in call.keywords})


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
    found = _tables(path)[number]
    named = _chosen(path, found, rows or {})
    if sort is not None:
        named.sort(key=lambda row: float(row[sort].split()[0]), reverse=True)
    chosen = [name for name in found[0] if name != HEADING] if columns is None else columns
    return _written(chosen, dict.fromkeys(tuple(row[name] for name in chosen) for row in named))


def pivot(
    path: str,
    row: str,
    column: str,
    cell: str,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    where: dict[str, str | list[str]] | None = None,
) -> str:
    """Returns a table of a committed Markdown file turned round, or several tables of it in one.

    Args:
        path: of the file, from the root of the repository.
        row: header of the column whose texts name the rows. ``"heading"`` stands for the line above a table.
        column: header of the column whose texts name the columns, or ``"heading"``.
        cell: header of the column that is shown.
        rows: texts of the rows wanted, in their order; all of them when None.
        columns: texts of the columns wanted, in their order; all of them when None.
        where: for other columns, the text or texts that they have in what is wanted.

    Returns:
        The table, as Markdown; cells that the file lacks are empty.

    Raises:
        ValueError: the file has no such rows or columns.
    """
    records = [record for found in _tables(path) for record in found if {row, column, cell} <= set(record)]
    wanted = {row: rows, column: columns} | (where or {})
    named = _chosen(path, records, {name: texts for name, texts in wanted.items() if texts is not None})
    cells = {(record[row], record[column]): record[cell] for record in named}
    down, across = (
        list(dict.fromkeys(record[name] for record in named)) if texts is None else texts
        for name, texts in ((row, rows), (column, columns))
    )
    first = "" if row == HEADING else row
    return _written([first, *across], ([name, *(cells.get((name, other), "") for other in across)] for name in down))


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
    (found,) = [record for record in _tables(path)[number] if row.items() <= record.items()]
    return found[column]


def code(path: str) -> str:
    """Returns a Python file of the repository as a block of code."""
    return f"```python\n{(ROOT / path).read_text()}```"


def prose(path: str, line: int = 0) -> str:
    """Returns a line of a committed Markdown file, such as the one above a table that says how it was measured."""
    return (ROOT / path).read_text().splitlines()[line]


def _tables(path: str) -> list[list[dict[str, str]]]:
    """Returns the tables of a Markdown file, each as rows of texts by header, with the line above the table."""
    found: list[list[dict[str, str]]] = []
    header, heading = None, ""
    for line in (ROOT / path).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            header, heading = None, line.strip().removesuffix(":") or heading
        elif header is None:
            header = cells
            if len(set(header)) < len(header):
                raise ValueError(f"{path}: expected columns of different names, got {header}")
            found.append([])
        elif set("".join(cells)) != {"-"}:
            found[-1].append({HEADING: heading} | dict(zip(header, cells, strict=True)))
    return found


def _chosen(path: str, records: list[dict[str, str]], wanted: dict[str, str | list[str]]) -> list[dict[str, str]]:
    """Returns the records that have one of the texts wanted in each column."""
    for column, given in wanted.items():
        texts = [given] if isinstance(given, str) else given
        if absent := set(texts) - {record[column] for record in records}:
            raise ValueError(f"rows: {path} has no {column} {sorted(absent)}")
        records = [record for record in records if record[column] in texts]
    return list(records)


def _written(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _BETWEEN_FIGURES.sub("\N{NO-BREAK SPACE}", text)


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
        better = "higher" if score.higher_is_better else "lower"
        rows.append([f"`{name}`", _cell(score.formula), better, _looks_at(score), _cell(score.paper)])
    return _written(["name", "what it computes", "better", "looks at", "paper"], rows)


def list_of_spaces() -> str:
    """Returns every registered space: what it is, how many architectures it has, where it is from."""
    from nasi_jax import spaces

    rows = []
    for name, space in spaces.SPACES.items():
        one_shot = "yes" if space.one_shot else "no"
        rows.append([f"`{name}`", _count(space.cardinality), one_shot, _source(type(space)) or _first(type(space))])
    return _written(["name", "architectures", "one-shot network", "paper"], rows)


def list_of_strategies() -> str:
    """Returns every strategy of the command: its presets, what it does, where it is from."""
    from nasi_jax.cli.search import presets, strategies

    rows = []
    for name in strategies():
        named = ", ".join(f"`{preset}`" for preset in presets(name))
        rows.append([f"`{name}`", named, *_strategy(name)])
    return _written(["`--strategy`", "`--preset`", "what it does", "paper"], rows)


def list_of_recipes() -> str:
    """Returns every training recipe with its main settings."""
    from nasi_jax import train

    rows = [
        [f"`{name}`", f"{r.epochs}", f"{r.batch}", r.optimizer, f"{r.learning_rate:g}"]
        for name, r in train.RECIPES.items()
    ]
    return _written(["`--recipe`", "epochs", "batch", "optimiser", "learning rate"], rows)


def names_of_strategies() -> str:
    """Returns every strategy of the command: what it does, its first paper, its name."""
    from nasi_jax.cli.search import strategies

    described = ((name, *_strategy(name)) for name in strategies())
    rows = ([_sentence(what), _citation(source), f"`{name}`"] for name, what, source in described)
    return _written(["strategy", "paper", "`--strategy`"], rows)


def names_of_spaces() -> str:
    """Returns the registered spaces, those of one class in one row: how many architectures, its first paper, names."""
    from nasi_jax import spaces

    rows = []
    for kind, group in itertools.groupby(spaces.SPACES.values(), type):
        members = list(group)
        counts = dict.fromkeys(_count(space.cardinality) for space in members)
        names = ", ".join(f"`{space.name}`" for space in members)
        rows.append([" / ".join(counts), _citation(_source(kind)), names])
    return _written(["architectures", "paper", "`--space`"], rows)


def names_of_scores() -> str:
    """Returns the registered scores with their papers, by what they look at."""
    from nasi_jax import scores

    looks: dict[str, dict[str, list[str]]] = {}
    for name, score in scores.SCORES.items():
        papers = looks.setdefault(_looks_at(score), {})
        papers.setdefault(re.split(r", eq\. |; ", score.paper)[0], []).append(f"`{name}`")
    rows = []
    for look, papers in looks.items():
        shown = [", ".join(names) + (f" ({_cell(paper)})" if paper else "") for paper, names in papers.items()]
        rows.append([look, "; ".join(shown)])
    return _written(["looks at", "`--score` (paper)"], rows)


def _strategy(name: str) -> tuple[str, str]:
    """Returns what a strategy does, and its references."""
    from nasi_jax.cli.help import described
    from nasi_jax.cli.search import strategy_class

    return _cell(described(name)), _SETTINGS_OF_ANOTHER.get(name) or _source(strategy_class(name))


_SETTINGS_OF_ANOTHER = {
    "gdas": 'Dong and Yang, "Searching for a robust neural architecture in four GPU hours", CVPR 2019.',
}
"""References of strategies without a class of their own, whose docstring would have them."""


def _looks_at(score: Any) -> str:
    seen = [word for word, needed in (("inputs", score.data), ("labels", score.labels)) if needed]
    return " and ".join(seen) or "neither inputs nor labels"


def _count(count: int) -> str:
    if count < 10**9:
        return f"{count:,}"
    mantissa, exponent = f"{count:.1e}".split("e+")
    return f"{mantissa} · 10^{int(exponent)}"


def _sentence(text: str) -> str:
    """Returns the first sentence of a description, without its end."""
    return re.split(r"\.(?: |$)|; ", text)[0]


def _citation(references: str) -> str:
    """Returns the first of some references as its authors and where it appeared."""
    found = re.match(r'(.+?), ".+?", ([^,;]*?\d{4})', references)
    if found is None:
        return ""
    authors = re.split(", | and ", found[1])
    return f"{found[1] if len(authors) < 3 else authors[0] + ' et al.'}, {found[2]}"


FUNCTIONS = {
    function.__name__: function
    for function in (
        code, list_of_recipes, list_of_scores, list_of_spaces, list_of_strategies, names_of_scores, names_of_spaces,
        names_of_strategies, pivot, prose, table, value,
    )
}  # fmt: skip
"""What a page may call."""


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
