"""Selects the best of N random NAS-Bench-201 cells by a score, beside random search, which trains all N of them.

    python experiments/nasbench201_selection.py --table nasbench201.csv.gz --scores runs/nasbench201_correlation/01.csv

Reads a CSV file of `nasi score`, such as those that experiments/nasbench201_correlation.py leaves, draws N of its cells
many times, and looks the cell with the largest score up. Random search keeps the best of the N by its validation
accuracy on CIFAR-10 after 12 epochs of training. Writes a table and a figure into
experiments/results/nasbench201_selection; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import tabular
from nasi_jax.scores import ScoreTable

COLUMNS = ("cifar10_test", "cifar100_test", "imagenet16_test")
VALIDATION = "cifar10_val_12ep"


@dataclasses.dataclass(frozen=True)
class Options:
    """Best of N by score.

    Attributes:
        table: CSV file of the benchmark.
        scores: CSV file of `nasi score`.
        combine: further scores, each a sum of ranks of others joined by +.
        out: folder of the results.
        sizes: numbers N of random cells.
        draws: how often they are drawn.
    """

    table: pathlib.Path
    scores: pathlib.Path
    combine: tuple[str, ...] = ("ntk-participation-ratio+zico",)
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_selection")
    sizes: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    draws: int = 300


def main(options: Options) -> None:
    """Draws, selects, and writes the results."""
    written = ScoreTable.read([options.scores])
    scores = {name: values.mean(axis=0) for name, values in written.oriented().items()}
    texts = written.architectures
    truth = tabular.Table.read(options.table, (*COLUMNS, VALIDATION)).lookup(texts)
    for combination in options.combine:
        scores[combination] = tabular.rank_sum([scores[part] for part in combination.split("+")])
    scores["random search: 12 epochs each"] = truth[VALIDATION]
    sizes = [size for size in options.sizes if size <= len(texts)]
    accuracies = np.stack([truth[column] for column in COLUMNS], axis=1)
    found = {
        name: [select(values, accuracies, size, options.draws) for size in sizes] for name, values in scores.items()
    }
    shown = [size for size in (10, 100) if size in sizes]
    head = [f"{column}, N = {size}" for size in shown for column in ("CIFAR-10", "CIFAR-100", "ImageNet16-120")]
    lines = ["| selected by | " + " | ".join(head) + " |", "| --- " * (len(head) + 1) + "|"]
    for name, selected in found.items():
        chosen = [selected[sizes.index(size)] for size in shown]
        cells = [
            f"{a:.2f} ± {s:.2f}" for c in chosen for a, s in zip(c.mean(axis=0), c.std(axis=0, ddof=1), strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    draw({name: np.array(selected) for name, selected in found.items()}, sizes).savefig(
        options.out / "selection.png", dpi=120
    )
    print("\n".join(lines))


def select(score: np.ndarray, accuracies: np.ndarray, size: int, draws: int) -> np.ndarray:
    """Returns the accuracies (draws, columns) of the cells with the largest score of `size` random ones each."""
    rng = np.random.default_rng(0)
    order = np.where(np.isnan(score), -np.inf, score)
    subsets = [rng.choice(len(score), size, replace=False) for _ in range(draws)]
    return accuracies[[subset[np.argmax(order[subset])] for subset in subsets]]


def draw(found: dict[str, np.ndarray], sizes: list[int]) -> Figure:
    """Draws the mean accuracy over N, a panel for each data set; arrays are (sizes, draws, columns)."""
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    for number, (axes, column) in enumerate(zip(figure.subplots(1, 3), COLUMNS, strict=True)):
        for position, (name, accuracies) in enumerate(found.items()):
            style = "--" if name.startswith("random search") else "-" if position < 10 else ":"
            colour = "black" if name.startswith("random search") else f"C{position % 10}"
            axes.plot(sizes, accuracies[..., number].mean(axis=1), style, color=colour, marker=".", label=name)
        axes.set(xscale="log", xlabel="random cells N", ylabel=f"{column} (%) of the cell selected")
    figure.axes[-1].legend(fontsize=7, ncols=2)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
