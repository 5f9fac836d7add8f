"""Searches TransNAS-Bench-101's micro space, on which no default was chosen, and looks the selected cells up.

    python experiments/transnas_search.py --table transnas_micro.csv.gz

The participation ratio of the NTK selects in three ways: as NASI's objective, as the score of evolution, and as the
score by which the best of 100 random cells is taken. Beside them stand the cell with the most parameters and a random
cell. The table is a CSV file with the columns `arch` and one figure for each task, larger is better. Searches that are
finished are not run again. Writes a table and a figure into experiments/results/transnas_search; expected:
experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import numpy as np
import tyro
from graph_search import searched, selected
from matplotlib.figure import Figure

from nasi_jax import spaces, tabular

RATIO = "ntk-participation-ratio"
WAYS = {
    "NASI, participation ratio": ("--strategy", "nasi"),
    "evolution, participation ratio": ("--strategy", "evolution", "--score", RATIO, "--evaluations", "400"),
    "best of 100, participation ratio": ("--strategy", "random", "--score", RATIO, "--evaluations", "100"),
}
FEW = {"nasi": ("--steps", "4", "--rounds", "2"), "evolution": ("--population", "4", "--contenders", "2")}
"""What lets a search run with few networks."""
TINY = ("--batch", "16", "--channels", "2", "--image-size", "64")


@dataclasses.dataclass(frozen=True)
class Options:
    """Search TransNAS-Bench-101's micro space.

    Attributes:
        table: CSV file of the benchmark.
        tasks: its columns.
        seeds: searches of each kind.
        runs: where the run folders go.
        out: folder of the results.
        smoke: a few short searches, to see that everything works.
    """

    table: pathlib.Path
    tasks: tuple[str, ...] = ("class_object", "autoencoder")
    seeds: int = 10
    runs: pathlib.Path = pathlib.Path("runs/transnas_search")
    out: pathlib.Path = pathlib.Path("experiments/results/transnas_search")
    smoke: bool = False


def main(options: Options) -> int:
    """Searches, and writes the results.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    space = spaces.get("transnas-micro")
    table = tabular.Table.read(options.table, options.tasks)
    truth = np.stack([table.columns[task] for task in options.tasks], axis=1)
    found = {}
    for name, arguments in WAYS.items():
        folder = options.runs / name.replace(", ", "-").replace(" ", "_")
        few = []
        if options.smoke:
            few = [*TINY, *FEW.get(arguments[1], ())] + ["--evaluations", "4"] * (arguments[1] != "nasi")
        status = searched(
            folder, ["--space", space.name, *arguments, "--seeds", str(1 if options.smoke else options.seeds), *few]
        )
        if status:
            return status
        found[name] = looked_up(selected(folder), table, truth)
    found["the most parameters"] = looked_up(["64-41414-3_33_333"], table, truth)
    lines = markdown(options, found, truth)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    figure(options, found, truth).savefig(options.out / "figures.png", dpi=120)
    print("\n".join(lines))
    return 0


def looked_up(texts: list[str], table: tabular.Table, truth: np.ndarray) -> np.ndarray:
    """Returns the figures of cells, (cells, tasks)."""
    space = spaces.get("transnas-micro")
    rows = [table.row(space, text) for text in texts]
    return truth[np.array([row for row in rows if row is not None])]


def above(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the percentage of all cells that each value is above, (values, tasks)."""
    return 100 * (values[:, None] > truth).mean(axis=1)


def markdown(options: Options, found: dict[str, np.ndarray], truth: np.ndarray) -> list[str]:
    """Returns figures of the selected cells and how many of all cells are below them, means and deviations."""
    lines = [
        "| selected by | searches | "
        + " | ".join(f"{task} | {task}, above % of all cells" for task in options.tasks)
        + " |",
        "| --- " * (2 * len(options.tasks) + 2) + "|",
    ]
    for name, values in (found | {"a random cell": truth}).items():
        cells = []
        for column, share in zip(values.T, above(values, truth).T, strict=True):
            spread = f" ± {column.std(ddof=1):.2g}" if len(column) > 1 else ""
            cells += [f"{column.mean():.4g}{spread}", f"{share.mean():.0f}"]
        count = "" if values is truth else len(values)
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    best = [f"{value:.4g} | 100" for value in truth.max(axis=0)]
    return [*lines, f"| the best of all | | {' | '.join(best)} |"]


def figure(options: Options, found: dict[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Draws how many of all cells are below each selected one, a panel for each task."""
    drawn = Figure(figsize=(5 * len(options.tasks) + 2, 0.5 * len(found) + 1.2), layout="constrained")
    panels = np.atleast_1d(drawn.subplots(1, len(options.tasks), sharey=True))
    for number, (axes, task) in enumerate(zip(panels, options.tasks, strict=True)):
        for place, values in enumerate(found.values()):
            share = above(values, truth)[:, number]
            axes.scatter(share, np.full(len(share), place), s=24, alpha=0.6, color="tab:blue")
            axes.scatter(share.mean(), place, marker="|", s=300, color="black")
        axes.axvline(50, color="0.6", linestyle="--", linewidth=1)
        axes.set(title=task, xlabel="percentage of all cells that are worse", xlim=(-3, 103))
        axes.set_yticks(range(len(found)), list(found))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_ylim(len(found) - 0.5, -0.5)
    return drawn


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
