"""Ranks random NAS-Bench-201 cells by every training-free score, on images and on noise, and in variants of the NTK.

    python experiments/nasbench201_correlation.py --table nasbench201.csv.gz --images cifar10.npz

Scores by `nasi score` into the folder of `--scores`, where an interrupted experiment continues, and writes a Markdown
table, results.json and scatter plots into experiments/results/nasbench201_correlation; expected: experiments/README.md.
In the table, Spearman correlations are means over seeds, and in brackets those of the scores' means over seeds.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import scipy.stats
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli, tabular
from nasi_jax.scores import ScoreTable

COLUMNS = ("cifar10_test", "cifar100_test", "imagenet16_test")
CHEAP = (
    "ntk-one-batch", "ntk-probe", "ntk-participation-ratio", "grad_norm", "snip", "grasp", "synflow", "fisher",
    "jacob_cov", "naswot", "zico", "params", "flops",
)  # fmt: skip
KERNEL = (
    "ntk-trace", "ntk-probe", "ntk-per-sample", "ntk-one-batch", "ntk-participation-ratio", "ntk-condition-number",
    "ntk-effective-rank",
)  # fmt: skip
COMBINATIONS = ("ntk-participation-ratio+zico", "ntk-participation-ratio+params")
CHOSEN_ON = 0.55
"""Share of the cells, the first ones, on which the combinations were chosen; they are ranked on the others."""

NTK = ("ntk-one-batch", "ntk-probe", "ntk-participation-ratio")
PUBLISHED = ("grad_norm", "snip", "synflow", "jacob_cov", "naswot")
HELD_OUT = "noise, NTK parameterisation, held-out cells"
"""The part that ranks the cells on which the parameterisation was not chosen, which are all but the variants'."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Score random cells and rank them against the benchmark.

    Attributes:
        table: CSV file of the benchmark.
        images: .npz file with images x and labels y.
        scores: folder of the CSV files of `nasi score`.
        out: folder of the results.
        cells: random cells for the rows with several seeds; those at the published size take half of them, the others a
            third.
        seeds: seeds of the main rows and of the held-out ones; the others take one.
        tiny: smallest sizes, for a test of this script.
    """

    table: pathlib.Path
    images: pathlib.Path
    scores: pathlib.Path = pathlib.Path("runs/nasbench201_correlation")
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_correlation")
    cells: int = 1000
    seeds: int = 3
    tiny: bool = False


def variants(options: Options) -> dict[str, list[str]]:
    """Returns the arguments of `nasi score` for each part of the experiment."""
    base = {"channels": 8, "cells": 3, "batch": 32, "image-size": 16}
    fewer = {"sample": max(options.cells // 3, 3), "seeds": 1}
    main = {"sample": options.cells, "seeds": options.seeds}
    images = {"data": str(options.images)}
    small = base | {"channels": 4, "cells": 1, "batch": 16} | fewer
    published = images | {"channels": 16, "cells": 5, "batch": 64, "image-size": 32}
    published |= {"sample": max(options.cells // 2, 3), "seeds": 1}
    parts: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "images": (base | images | main, CHEAP),
        "noise": (base | main, CHEAP),
        "noise, NTK parameterisation": (base | fewer | {"parameterisation": "ntk"}, NTK),
        "noise, fixed statistics": (base | fewer | {"normalisation": "fixed"}, NTK),
        "noise, 4 channels": (base | fewer | {"channels": 4}, NTK),
        "noise, 16 channels": (base | fewer | {"channels": 16}, NTK),
        "noise, 1 cell a stage": (base | fewer | {"cells": 1}, NTK),
        "noise, 5 cells a stage": (base | fewer | {"cells": 5}, NTK),
        "noise, 4 channels, 1 cell": (small, KERNEL),
        "noise, 4 channels, 1 cell, NTK parameterisation": (small | {"parameterisation": "ntk"}, KERNEL),
        HELD_OUT: (base | main | {"parameterisation": "ntk"}, ("ntk-participation-ratio",)),
        "images, published size": (published, PUBLISHED),
    }
    if options.tiny:
        tiny = {"channels": 1, "cells": 1, "batch": 4, "image-size": 4}
        parts = {name: (settings | tiny, scores) for name, (settings, scores) in parts.items() if name != "noise"}
    return {
        name: [f"--{key}={value}" for key, value in settings.items()] + ["--score", *scores]
        for name, (settings, scores) in parts.items()
    }


def main(options: Options) -> None:
    """Scores, ranks, and writes the results."""
    options.scores.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    lines = ["| part | score | cells | seeds | CIFAR-10 | CIFAR-100 | ImageNet16-120 |", "| --- " * 7 + "|"]
    for number, (name, arguments) in enumerate(variants(options).items()):
        path = options.scores / f"{number:02}.csv"
        status = cli.main(["score", "--out", str(path), *arguments])
        if status:
            raise SystemExit(status)
        written = ScoreTable.read([path])
        scores, texts = written.oriented(), written.architectures
        if name == HELD_OUT:
            unseen = slice(len(texts) // 3, None)
            scores, texts = {score: values[:, unseen] for score, values in scores.items()}, texts[unseen]
        truth = tabular.Table.read(options.table, COLUMNS).lookup(texts)
        results[name] = {}
        for score, values in scores.items():
            results[name][score], cells = ranked(values, truth)
            lines.append(f"| {name} | {score} | {len(texts)} | {len(values)} | {' | '.join(cells)} |")
        if set("+".join(COMBINATIONS).split("+")) <= set(scores):
            unseen = slice(int(CHOSEN_ON * len(texts)), None)
            held_out = {column: figures[unseen] for column, figures in truth.items()}
            for combination in COMBINATIONS:
                parts = [scores[part][:, unseen] for part in combination.split("+")]
                values = np.array([tabular.rank_sum(seed) for seed in zip(*parts, strict=True)])
                results[name][combination], cells = ranked(values, held_out)
                lines.append(f"| {name} | {combination} | {values.shape[1]} | {len(values)} | {' | '.join(cells)} |")
        if number < 2:
            draw(name, scores, truth).savefig(options.out / f"{name}.png", dpi=70)
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(text)


def ranked(values: np.ndarray, truth: dict[str, np.ndarray]) -> tuple[dict[str, Any], list[str]]:
    """Ranks cells by a score, (seeds, cells); returns all statistics, and a cell of the table for each column."""
    spearman = {column: over_seeds(values, truth[column]) for column in COLUMNS}
    mean = {
        column: tabular.as_json(tabular.rank(values.mean(axis=0), truth[column], resamples=300)) for column in COLUMNS
    }
    cells = [
        f"{np.mean(s):.3f}" + spread(s) + f" ({mean[c]['statistics']['spearman']['value']:.3f})"
        for c, s in spearman.items()
    ]
    return {"spearman of each seed": spearman, "mean over seeds": mean}, cells


def draw(name: str, scores: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> Figure:
    """Draws the accuracy on CIFAR-10 over every score, means over the seeds."""
    columns = min(len(scores), 5)
    figure = Figure(figsize=(3.4 * columns, 3 * -(-len(scores) // columns)), layout="constrained")
    figure.suptitle(name)
    for number, (score, values) in enumerate(scores.items(), start=1):
        axes = figure.add_subplot(-(-len(scores) // columns), columns, number)
        mean = np.abs(values.mean(axis=0))
        shown = np.isfinite(mean)
        axes.scatter(mean[shown], truth["cifar10_test"][shown], s=4, alpha=0.4, linewidths=0)
        positive = mean[shown] > 0
        if positive.any() and mean[shown].max() > 50 * mean[shown][positive].min():
            axes.set_xscale("log")
        axes.set_title(f"|{score}|" if (values[:, shown] < 0).any() else score, fontsize=9)
    return figure


def over_seeds(values: np.ndarray, truth: np.ndarray) -> list[float]:
    """Returns the Spearman correlation of each seed, over the cells whose score is a number."""
    known = [~np.isnan(row) for row in values]
    return [float(np.asarray(scipy.stats.spearmanr(v[k], truth[k]))[0]) for v, k in zip(values, known, strict=True)]


def spread(values: list[float]) -> str:
    """Formats the sample standard deviation over seeds."""
    return f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
