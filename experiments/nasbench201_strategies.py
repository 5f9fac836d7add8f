"""Runs every black-box strategy on NAS-Bench-201, by published figures and by training-free scores.

    python experiments/nasbench201_strategies.py --table nasbench201.csv.gz

By published figures, a search maximises the validation accuracy after 12 epochs of training on a data set, and pays for
cells that come again. What is reported is the test accuracy after 200 epochs of the best cell so far, over 500
repetitions; that of random search is exact.

By scores, it is `nasi search` with the default scores, over 10 seeds, beside NASI with its defaults, which needs a
gradient for each of its 800 steps. Searches that are finished are not run again.

Writes tables and figures into experiments/results/nasbench201_strategies; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli, search, spaces, tabular

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16": "ImageNet16-120"}
FEW = {"evolution": ("--population", "4", "--contenders", "2")}
"""What lets a strategy run with the few evaluations of a smoke test."""
TINY = ("--batch", "4", "--channels", "2", "--cells", "1", "--image-size", "8")


@dataclasses.dataclass(frozen=True)
class Options:
    """Replay strategies on a table.

    Attributes:
        table: CSV file of the benchmark.
        out: folder of the results.
        strategies: names of `nasi_jax.search.VARIANTS`.
        repetitions: how often each strategy runs.
        evaluations: of each run.
        shown: numbers of evaluations in the table.
        drawn: strategies in the figure.
        scored: names of `nasi_jax.search.STRATEGIES` that search by scores.
        seeds: searches of each by scores.
        scored_evaluations: of each of them.
        runs: where their run folders go.
        smoke: a few short repetitions, to see that everything works.
    """

    table: pathlib.Path
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_strategies")
    strategies: tuple[str, ...] = tuple(search.VARIANTS)
    repetitions: int = 500
    evaluations: int = 500
    shown: tuple[int, ...] = (50, 100, 200, 500)
    drawn: tuple[str, ...] = ("evolution", "local", "reinforce", "reinforce-lstm")
    scored: tuple[str, ...] = tuple(search.STRATEGIES)
    seeds: int = 10
    scored_evaluations: int = 400
    runs: pathlib.Path = pathlib.Path("runs/nasbench201_strategies")
    smoke: bool = False


def main(options: Options) -> int:
    """Searches, and writes the results.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    if options.smoke:
        options = dataclasses.replace(options, repetitions=3, evaluations=60, seeds=1, scored_evaluations=4)
    space = spaces.get("nasbench201")
    names = [f"{data}_{kind}" for data in DATA for kind in ("val_12ep", "test")]
    cells = [space.format(genotype) for genotype in space.enumerate()]
    table = tabular.Table.read(options.table, names).lookup(cells)
    found = {name: replay(options, space, search.VARIANTS[name], table) for name in options.strategies}
    lines = report(options, found, table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    draw(options, {name: curves for name, (curves, _) in found.items()}, table).savefig(
        options.out / "accuracy.png", dpi=120
    )
    print("\n".join(lines))

    accuracies = {}
    for name in ("nasi", *options.scored):
        accuracies[name] = by_scores(options, name, table, cells)
        if accuracies[name] is None:
            return 1
    lines = scored_report(options, accuracies, table)
    (options.out / "scored.md").write_text("\n".join(lines) + "\n")
    draw_scored(accuracies, table).savefig(options.out / "scored.png", dpi=120)
    print("\n".join(lines))
    return 0


def by_scores(
    options: Options, name: str, table: dict[str, np.ndarray], cells: list[str]
) -> dict[str, np.ndarray] | None:
    """Searches with a strategy, if that is not done yet, and returns the test accuracies of the cells that it found."""
    folder = options.runs / name
    if not (folder / "genotype.json").exists():
        arguments = ["search", "--strategy", name, "--seeds", str(options.seeds), "--out", str(folder)]
        if name != "nasi":
            arguments += ["--evaluations", str(options.scored_evaluations)]
        if options.smoke:
            arguments += [*TINY, *FEW.get(name, ())] + ["--steps", "4", "--rounds", "2"] * (name == "nasi")
        if cli.main(arguments):
            return None
    searches = json.loads((folder / "genotype.json").read_text())["searches"]
    rows = [cells.index(found["genotype"]) for found in searches]
    return {data: table[f"{data}_test"][rows] for data in DATA}


def scored_report(
    options: Options, accuracies: dict[str, dict[str, np.ndarray]], table: dict[str, np.ndarray]
) -> list[str]:
    """Returns the lines of the table: mean and standard deviation over seeds."""
    lines = [f"| strategy | networks | {' | '.join(DATA.values())} |", "| --- " * (len(DATA) + 2) + "|"]
    for name, found in accuracies.items():
        networks = search.NASI().steps if name == "nasi" else options.scored_evaluations
        figures = [f"{values.mean():.2f} ± {values.std(ddof=min(1, len(values) - 1)):.2f}" for values in found.values()]
        lines.append(f"| {name} | {networks} | {' | '.join(figures)} |")
    drawn = [f"{table[f'{data}_test'].mean():.2f} ± {table[f'{data}_test'].std():.2f}" for data in DATA]
    lines.append(f"| one random cell | 0 | {' | '.join(drawn)} |")
    return lines


def draw_scored(accuracies: dict[str, dict[str, np.ndarray]], table: dict[str, np.ndarray]) -> Figure:
    """Draws the accuracy of every search, a panel for each data set."""
    figure = Figure(figsize=(12, 0.45 * len(accuracies) + 1.2), layout="constrained")
    for axes, (data, title) in zip(figure.subplots(1, 3, sharey=True), DATA.items(), strict=True):
        for place, found in enumerate(accuracies.values()):
            axes.plot(found[data], [place] * len(found[data]), "o", color="C0", alpha=0.4, markersize=5)
            axes.plot(found[data].mean(), place, "|", color="black", markersize=16, markeredgewidth=2)
        axes.axvline(table[f"{data}_test"].max(), color="grey", linewidth=0.8, label="best of the benchmark")
        axes.set(xlabel="test accuracy (%)", title=title, yticks=range(len(accuracies)), yticklabels=list(accuracies))
    figure.axes[0].invert_yaxis()
    figure.axes[0].legend(fontsize=8, loc="lower left")
    return figure


def replay(
    options: Options, space: Any, strategy: search.Strategy, table: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], float]:
    """Returns test accuracies (repetitions, evaluations) for each data set, and the share of different cells."""
    curves, different = {}, []
    for seed, data in enumerate(DATA):
        keys = jax.random.split(jax.random.key(seed), options.repetitions)
        accuracy = table[f"{data}_val_12ep"] / 100
        done = search.simulate(strategy, space, accuracy, keys, options.evaluations)
        curves[data] = table[f"{data}_test"][done.incumbents]
        different += [len(np.unique(run)) / options.evaluations for run in done.evaluated]
    return curves, float(np.mean(different))


def report(
    options: Options, found: dict[str, tuple[dict[str, np.ndarray], float]], table: dict[str, np.ndarray]
) -> list[str]:
    """Returns the lines of the table: mean and standard deviation over repetitions."""
    shown = [number for number in options.shown if number <= options.evaluations]
    lines = []
    for data, title in DATA.items():
        lines += [f"{title}, test accuracy (%)", ""]
        lines.append(f"| strategy | {' | '.join(f'{number} evaluations' for number in shown)} | different cells |")
        lines.append("| --- " * (len(shown) + 2) + "|")
        value, outcome = table[f"{data}_val_12ep"], table[f"{data}_test"]
        exact = [tabular.best_of_random(value, outcome, number) for number in shown]
        lines.append(f"| random, exact | {' | '.join(f'{e.mean:.2f} ± {e.sd:.2f}' for e in exact)} | |")
        for name, (curves, different) in found.items():
            columns = [curves[data][:, number - 1] for number in shown]
            figures = " | ".join(f"{column.mean():.2f} ± {column.std(ddof=1):.2f}" for column in columns)
            lines.append(f"| {name} | {figures} | {different:.0%} |")
        lines.append("")
    return lines[:-1]


def draw(options: Options, found: dict[str, dict[str, np.ndarray]], table: dict[str, np.ndarray]) -> Figure:
    """Draws the mean over evaluations with the middle half of the repetitions, a panel for each data set."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    evaluations = range(1, options.evaluations + 1)
    for axes, (data, title) in zip(figure.subplots(1, 3), DATA.items(), strict=True):
        value, outcome = table[f"{data}_val_12ep"], table[f"{data}_test"]
        random = [tabular.best_of_random(value, outcome, number).mean for number in evaluations]
        axes.plot(evaluations, random, color="black", linestyle="--", label="random, exact")
        for number, name in enumerate(name for name in options.drawn if name in found):
            low, high = np.quantile(found[name][data], (0.25, 0.75), axis=0)
            axes.plot(evaluations, found[name][data].mean(axis=0), color=f"C{number}", label=name)
            axes.fill_between(evaluations, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.axhline(outcome.max(), color="grey", linewidth=0.8, label="best of the benchmark")
        first = random[min(9, options.evaluations - 1)]
        axes.set(
            xscale="log", xlim=(10, options.evaluations), ylim=(first, outcome.max() + 0.05 * (outcome.max() - first))
        )
        axes.set(xlabel="evaluations", ylabel="test accuracy of the best so far (%)", title=title)
    figure.axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
