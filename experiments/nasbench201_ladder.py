"""Goes from NASI as printed to the default one change at a time, with ten searches of NAS-Bench-201 each.

    python experiments/nasbench201_ladder.py --table nasbench201.csv.gz

Each row keeps the changes of the rows before it. Searches that are finished are not run again. Writes a table and a
figure into experiments/results/nasbench201_ladder; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import numpy as np
import tyro
from graph_search import searched, selected
from matplotlib.figure import Figure
from nasbench201_search import COLUMNS, PUBLISHED

from nasi_jax.tabular import Table

CHANGES: dict[str, tuple[str, ...]] = {
    "as printed, 1 cell a stage": ("--preset", "nasi-fix"),
    "5 cells a stage, 8 channels, batches of 32": ("--cells", "5", "--channels", "8", "--batch", "32"),
    "mu = 1, nu the median of traces": ("--mu", "1", "--nu", "0", "--adaptive", "median"),
    "NTK parameterisation": ("--parameterisation", "ntk"),
    "participation ratio, no constraint": ("--objective", "participation-ratio", "--mu", "0", "--adaptive", "no"),
    "score function, 800 steps": ("--estimator", "score-function", "--steps", "800"),
    "4 rounds of radius 3, the default": ("--rounds", "4", "--radius", "3"),
}
"""What each row changes, as options of `nasi search`."""
TINY = ("--steps", "4", "--batch", "4", "--channels", "2", "--cells", "1", "--image-size", "8")


@dataclasses.dataclass(frozen=True)
class Options:
    """Search with one change after the other.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        seeds: searches of each row.
        runs: where the run folders go.
        out: where the results go.
        smoke: tiny searches, to see that everything works.
    """

    table: pathlib.Path
    seeds: int = 10
    runs: pathlib.Path = pathlib.Path("runs/nasbench201_ladder")
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_ladder")
    smoke: bool = False


def main(options: Options) -> int:
    """Searches, and writes the results.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    table = Table.read(options.table, list(COLUMNS))
    arguments: tuple[str, ...] = ()
    found = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        arguments += change
        tiny = TINY if options.smoke else ()
        folder = options.runs / f"{number}"
        if status := searched(folder, [*arguments, *tiny, "--seeds", str(options.seeds)]):
            return status
        accuracies = table.lookup(selected(folder))
        found[name] = np.stack([accuracies[column] for column in COLUMNS], axis=1)
    text = markdown(found)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text)
    figure(found).savefig(options.out / "accuracy.png", dpi=120)
    print(text)
    return 0


def markdown(found: dict[str, np.ndarray]) -> str:
    """Returns means and sample standard deviations as a Markdown table, beside the paper's."""
    lines = [f"| change | searches | {' | '.join(COLUMNS.values())} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for name, values in found.items():
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(COLUMNS), np.nan)
        cells = [f"{mean:.2f} ± {s:.2f}" for mean, s in zip(values.mean(axis=0), spread, strict=True)]
        lines.append(f"| {name} | {len(values)} | {' | '.join(cells)} |")
    for name in list(PUBLISHED)[:2]:
        lines.append(f"| {name} | | {' | '.join(f'{mean:.2f} ± {spread:.2f}' for mean, spread in PUBLISHED[name])} |")
    return "\n".join(lines) + "\n"


def figure(found: dict[str, np.ndarray]) -> Figure:
    """Draws every selected cell and the mean of each row, beside the paper's means."""
    drawn = Figure(figsize=(12, 0.5 * len(found) + 1.4), layout="constrained")
    panels = drawn.subplots(1, len(COLUMNS), sharey=True)
    for number, (axes, title) in enumerate(zip(panels, COLUMNS.values(), strict=True)):
        for place, values in enumerate(found.values()):
            taken = values[:, number]
            axes.scatter(taken, place + np.linspace(-0.2, 0.2, len(taken)), s=18, alpha=0.6, color="tab:blue")
            axes.plot([taken.mean()] * 2, [place - 0.35, place + 0.35], color="black", linewidth=2)
        for name, colour in zip(list(PUBLISHED)[:2], ("0.6", "tab:orange"), strict=True):
            axes.axvline(PUBLISHED[name][number][0], color=colour, linestyle="--", linewidth=1.2, label=name)
        low = np.quantile(np.concatenate([values[:, number] for values in found.values()]), 0.05)
        axes.set(title=f"{title}, test accuracy (%)", xlim=(low - 2, None))
        axes.set_yticks(range(len(found)), list(found))
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return drawn


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
