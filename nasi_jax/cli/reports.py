"""Writes the pictures and the report of a run."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import nasi_jax
from nasi_jax import spaces
from nasi_jax.runs.folder import RunFolder
from nasi_jax.scores import Costs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nasi_jax.cli.search import Search
    from nasi_jax.report import Section

COST_NAMES = {
    "params": "parameters",
    "flops": "multiply-adds for one example",
    "memory": "numbers read and written for one example",
    "latency_ms": "milliseconds for one example",
}
_DRAWN = {True: 100, False: 10}  # random architectures beside the selected one: where costs are sums, and elsewhere
_RECIPES = {
    "darts": "darts-cifar", "darts-none": "darts-cifar", "darts-nds": "darts-cifar",
    "nasbench-graph": "nasbench-graph-cora", "egnas": "egnas",
}  # fmt: skip
"""The recipe in a space's own setting; in other spaces that of NAS-Bench-201."""


def section(heading: str, picture: bytes = b"", text: str = "", **more: Any) -> Section:
    """Returns a `nasi_jax.report.Section`, which loads matplotlib when the first one is made."""
    return nasi_jax.report.Section(heading, picture, text, **more)


def drawn(folder: RunFolder, name: str, figure: Figure) -> bytes:
    """Writes a picture into a run folder, and returns it as a PNG's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    folder.write(name, buffer.getvalue())
    return buffer.getvalue()


def cell_of(space: spaces.SearchSpace, genotype: Any) -> Figure:
    """Draws the cells of a genotype."""
    return nasi_jax.report.cell_figure(space.graph(genotype), space.operations)


def write_report(
    folder: RunFolder, title: str, lead: str, sections: Sequence[Section], settings: dict[str, dict[str, Any]]
) -> None:
    """Writes report.html.

    Args:
        folder: the run folder.
        title: heading of the report.
        lead: a line below it.
        sections: what the report shows.
        settings: for each heading a tree of names and values, shown as a table that is folded.
    """
    listed = [
        section(heading, columns=("name", "value"), rows=_flat(tree), folded=True) for heading, tree in settings.items()
    ]
    folder.write("report.html", nasi_jax.report.html_report(title, lead, [*sections, *listed]))


def data_name(data: Any) -> str:
    """Returns how a report names the data of some settings."""
    path = data["path"] if isinstance(data, dict) else data
    return "random inputs" if path == "gaussian" else pathlib.Path(path).name


def searches_of(count: int, space: spaces.SearchSpace) -> str:
    """Returns how a title begins that says what was searched."""
    return f"{f'{count} searches' if count > 1 else 'A search'} of {space.name}"


def costs_section(space: spaces.SearchSpace, genotype: Any, costs: Costs) -> Section:
    """Returns what the selected architecture costs, and what random ones do."""
    selected, count = costs(genotype), _DRAWN[space.additive]
    keys = jax.random.split(jax.random.key(0), count)
    others = jax.device_get(jax.vmap(space.sample)(keys))
    random = [costs.counted(jax.tree.map(lambda leaf, i=i: leaf[i], others)) for i in range(count)]
    rows = []
    for name, value in selected.items():
        beside = np.array([one[name] for one in random if name in one])
        spread = ("", "", "") if not len(beside) else (beside.min(), float(np.median(beside)), beside.max())
        rows.append((COST_NAMES[name], value, *spread))
    sizes = dataclasses.asdict(space.evaluation_size)
    told = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return section(
        "What it costs",
        text=f"At the size at which it is trained in the end ({told}), beside {count} architectures drawn at random.",
        columns=("", "selected", "random: least", "median", "most"),
        rows=rows,
    )


def searches_section(searches: Sequence[dict[str, Any]]) -> Section:
    """Returns a row for each search: what it found last, because that is long, and its seed as text, not as a count."""
    names = [*(name for name in searches[0] if name != "genotype"), "genotype"]
    rows = [[str(one[name]) if name == "seed" else one[name] for name in names] for one in searches]
    return section("Searches", columns=[name.replace("_", " ") for name in names], rows=rows)


def training_section(verb: Search, space: spaces.SearchSpace) -> Section:
    """Returns the command that trains what a search found."""
    words = ["nasi", "train", "--genotype", str(verb.out / "genotype.json")]
    words += ["--load", *map(str, verb.load)] if verb.load else []
    own = verb.data.name != "gaussian"
    words += ["--data", verb.data.name if own else "mine.npz"]
    words += ["--data-dir", str(verb.data.data_dir)] if verb.data.data_dir is not None else []
    recipe = _RECIPES.get(space.name.partition("(")[0], "nasbench201-12")
    words += ["--recipe", recipe, "--out", f"{verb.out}-trained"]
    text = "The command trains the selected architecture, and writes its test accuracy."
    if not own:
        text += (
            " In the place of mine.npz goes a file of yours with x, y, x_test and y_test, or the name of a data set."
        )
    elif verb.data.name.endswith((".npz", ".h5", ".hdf5")):
        text += " The file needs x_test and y_test too; --holdout 0.2 takes a fifth of the examples instead."
    return section("How to train it", text=text, command=shlex.join(words))


def _flat(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns a row for every leaf; as text, so that a seed is not written with commas."""
    return [
        pair
        for name, value in tree.items()
        for pair in (_flat(value) if isinstance(value, dict) else [(name, "default" if value is None else str(value))])
    ]
