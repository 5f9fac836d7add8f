"""Replays every black-box strategy on the NAS-Bench-201 table.

    python experiments/nasbench201_strategies.py --table nasbench201.csv.gz

A search maximises the validation accuracy after 12 epochs of training on a data set, and pays for cells that come
again. What is reported is the test accuracy after 200 epochs of the best cell so far, over 500 repetitions; that of
random search is exact. Writes a table and a figure into experiments/results/nasbench201_strategies; expected:
experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import search, spaces, tabular

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16": "ImageNet16-120"}


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
        smoke: a few short repetitions, to see that everything works.
    """

    table: pathlib.Path
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_strategies")
    strategies: tuple[str, ...] = tuple(search.VARIANTS)
    repetitions: int = 500
    evaluations: int = 500
    shown: tuple[int, ...] = (50, 100, 200, 500)
    drawn: tuple[str, ...] = ("evolution", "local", "reinforce", "reinforce-lstm")
    smoke: bool = False


def main(options: Options) -> None:
    """Replays, and writes the results."""
    if options.smoke:
        options = dataclasses.replace(options, repetitions=3, evaluations=60)
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
    main(tyro.cli(Options, description=__doc__))
