"""Ranks random NAS-Bench-201 cells by every training-free score, on images and on noise, and in variants of the NTK.

    python experiments/nasbench201_correlation.py --table nasbench201.csv.gz --images cifar10.npz

Scores by `nasi score` into the folder of `--scores`, where an interrupted experiment continues, and writes a Markdown
table, results.json and scatter plots into experiments/results/nasbench201_correlation; expected: experiments/README.md.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import scipy.stats
import tyro

from nasi_jax import cli, report, tabular
from nasi_jax.search import SCORES

COLUMNS = ("cifar10_test", "cifar100_test", "imagenet16_test")
CHEAP = (
    "ntk-one-batch", "ntk-probe", "ntk-participation-ratio", "grad_norm", "snip", "grasp", "synflow", "fisher",
    "jacob_cov", "naswot", "zico", "params", "flops",
)  # fmt: skip
KERNEL = (
    "ntk-trace", "ntk-probe", "ntk-per-sample", "ntk-one-batch", "ntk-participation-ratio", "ntk-condition-number",
    "ntk-effective-rank",
)  # fmt: skip
NTK = ("ntk-one-batch", "ntk-probe", "ntk-participation-ratio")


@dataclasses.dataclass(frozen=True)
class Options:
    """Score random cells and rank them against the benchmark.

    Attributes:
        table: CSV file of the benchmark.
        images: .npz file with images x and labels y.
        scores: folder of the CSV files of `nasi score`.
        out: folder of the results.
        cells: random cells for the two main rows; the variants take a third of them.
        seeds: seeds of the main rows; the variants take one.
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
    small = base | {"channels": 4, "cells": 1, "batch": 16} | images | fewer
    parts: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "images": (base | images | main, CHEAP),
        "noise": (base | main, CHEAP),
        "NTK parameterisation": (base | images | fewer | {"parameterisation": "ntk"}, NTK),
        "fixed statistics": (base | images | fewer | {"normalisation": "fixed"}, NTK),
        "4 channels": (base | images | fewer | {"channels": 4}, NTK),
        "16 channels": (base | images | fewer | {"channels": 16}, NTK),
        "1 cell a stage": (base | images | fewer | {"cells": 1}, NTK),
        "5 cells a stage": (base | images | fewer | {"cells": 5}, NTK),
        "exact and spectrum, 4 channels, 1 cell": (small, KERNEL),
        "the same, NTK parameterisation": (small | {"parameterisation": "ntk"}, KERNEL),
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
        scores, texts = read(path)
        truth = tabular.Table.read(options.table, COLUMNS).lookup(texts)
        results[name] = {}
        for score, values in scores.items():
            sign = 1 if SCORES[score].higher_is_better else -1
            spearman = {column: over_seeds(sign * values, truth[column]) for column in COLUMNS}
            # statistics of all kinds, with intervals, for the mean over the seeds
            full = {
                column: tabular.as_json(tabular.rank(sign * values.mean(axis=0), truth[column])) for column in COLUMNS
            }
            results[name][score] = {"spearman of each seed": spearman, "mean over seeds": full}
            cells = [f"{np.mean(spearman[c]):.3f}" + spread(spearman[c]) for c in COLUMNS]
            lines.append(f"| {name} | {score} | {len(texts)} | {len(values)} | {' | '.join(cells)} |")
            if number < 2:
                figure = report.scatter_figure(score, values.mean(axis=0), truth)
                figure.savefig(options.out / f"{name}_{score}.png", dpi=80)
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(text)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns each score as an array (seeds, cells), and the cells."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in {"genotype", "seed", "reason"}]
    seeds = len({row["seed"] for row in rows})
    texts = [row["genotype"] for row in rows[: len(rows) // seeds]]
    return {name: np.reshape([float(row[name]) for row in rows], (seeds, -1)) for name in names}, texts


def over_seeds(values: np.ndarray, truth: np.ndarray) -> list[float]:
    """Returns the Spearman correlation of each seed, over the cells whose score is finite."""
    finite = [np.isfinite(row) for row in values]
    return [float(np.asarray(scipy.stats.spearmanr(v[f], truth[f]))[0]) for v, f in zip(values, finite, strict=True)]


def spread(values: list[float]) -> str:
    """Formats the sample standard deviation over seeds."""
    return f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
