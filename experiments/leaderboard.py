"""Ranks the architectures of several published tables by every training-free score, beside the number of parameters.

    python experiments/leaderboard.py --nasbench201 nasbench201.csv.gz --transfer transfer/

Scores random rows of each table by `nasi score` into the folder of `--scores`, where an interrupted experiment
continues, on noise with random labels. A correlation and its interval are means over seeds. Writes leaderboard.md,
leaderboard.json and leaderboard.png into experiments/results/leaderboard; expected: experiments/README.md. An
architecture that a table has in several rows counts once, with the mean of its figures.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import random
import time
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli, scores, spaces, tabular

SCORES = (
    "params", "flops", "zico", "ntk-participation-ratio", "ntk-probe", "ntk-one-batch", "ntk-per-sample",
    "ntk-condition-number", "ntk-effective-rank", "grad_norm", "snip", "plain", "l2_norm", "grasp", "synflow", "fisher",
    "jacob_cov", "epe_nas", "naswot", "swap", "swap-regularised", "meco", "zen", "vkdnw", "expressivity",
    "progressivity", "trainability", "feature-participation-ratio", "feature-effective-rank", "input-alignment",
)  # fmt: skip
TRANSFER = "log(swap+meco+feature-effective-rank+params)"
"""The formula `transfer` of `nasi_jax.scores.FORMULAS`; parameters are those of the published networks here."""
RATIO = "ntk-participation-ratio"
JUDGED = (
    TRANSFER,
    f"log(swap+meco+feature-effective-rank+params+{RATIO})",
    f"log(meco+feature-effective-rank+zico+{RATIO})",
    "swap+meco+params",
    f"zico+{RATIO}",
)
"""The formulas that were fixed before they were judged on other rows."""
PUBLISHED = "as published: "
"""Before the names of a table's own columns of scores."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A table.

    Attributes:
        file: its name in the folder of tables.
        space: the space of its architectures.
        figures: columns to rank, with the names that are shown.
        proxies: columns of published scores, with the names that are shown.
        settings: of the networks, for `nasi score`.
        cells: how many of its rows are scored.
    """

    file: str
    space: str
    figures: dict[str, str]
    proxies: dict[str, str]
    settings: dict[str, int]
    cells: int


_COUNTS = ("params", "flops")
_NASLIB = {name: name for name in ("params", "flops", "jacov", "epe_nas", "plain", "l2_norm", "snip", "synflow")}
SOURCES = {
    "NAS-Bench-201": Source(
        "", "nasbench201",
        {"cifar10_test": "CIFAR-10", "cifar100_test": "CIFAR-100", "imagenet16_test": "ImageNet16-120"},
        {"params_m": "params"}, {"channels": 8, "cells": 1, "batch": 16, "image-size": 16}, 250,
    ),
    "NAS-Bench-101": Source(
        "nasbench101_500.csv.gz", "nasbench101", {"val_accuracy": "CIFAR-10"}, _NASLIB,
        {"channels": 8, "cells": 1, "batch": 16, "image-size": 16}, 500,
    ),
    "NAS-Bench-301": Source(
        "nasbench301_500.csv.gz", "darts", {"val_accuracy": "CIFAR-10"}, _NASLIB,
        {"channels": 4, "cells": 3, "batch": 16, "image-size": 16}, 200,
    ),
    "TransNAS micro": Source(
        "transnas_micro.csv.gz", "transnas-micro", {"class_object": "objects", "autoencoder": "autoencoder"},
        {f"class_object:{name}": name for name in ("epe_nas", "synflow", "zen")},
        {"channels": 4, "cells": 1, "batch": 16, "image-size": 64}, 150,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """Score rows of published tables and rank them.

    Attributes:
        nasbench201: CSV file of NAS-Bench-201.
        transfer: folder of the other tables.
        scores: folder of the CSV files of `nasi score`.
        out: folder of the results.
        formulas: further rows, sums of ranks of these scores such as "zico+params" or "log(zico+params)".
        names: the scores.
        tables: which tables.
        cells: rows of each table at most; those of `SOURCES` by default.
        first: how many of the drawn rows are left out first, such as those on which a formula was chosen.
        seeds: initialisations and batches.
        resamples: bootstrap samples for the intervals.
        timed: architectures on which each score and formula is timed; none where it is 0.
        tiny: smallest sizes, for a test of this script.
    """

    nasbench201: pathlib.Path
    transfer: pathlib.Path
    scores: pathlib.Path = pathlib.Path("runs/leaderboard")
    out: pathlib.Path = pathlib.Path("experiments/results/leaderboard")
    formulas: tuple[str, ...] = (*JUDGED, "meco+params", "zico+params")
    names: tuple[str, ...] = SCORES
    tables: tuple[str, ...] = tuple(SOURCES)
    cells: int | None = None
    first: int = 0
    seeds: int = 3
    resamples: int = 1000
    timed: int = 8
    tiny: bool = False


def main(options: Options) -> None:
    """Scores, ranks, and writes the results."""
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for name in options.tables:
        source = SOURCES[name]
        space = spaces.get(source.space)
        path = options.transfer / source.file if source.file else options.nasbench201
        table = tabular.Table.read(path, [*source.figures, *source.proxies], space)
        texts, values = scored(options, name, table)
        looked_up = table.lookup(texts, space)
        for proxy, label in source.proxies.items():
            if label in _COUNTS:  # of the published networks, and not of the small ones that are scored
                values[label] = np.stack([looked_up[proxy]] * options.seeds)
        counts[name] = len(texts)
        for column, figure in source.figures.items():
            ranked = found[f"{name}, {figure}"] = {}
            for score, figures in values.items():
                ranked[score] = spearman(figures, looked_up[column], options.resamples)
            for proxy, label in source.proxies.items():
                if label in _COUNTS:
                    continue
                ranked[PUBLISHED + label] = spearman(looked_up[proxy][None], looked_up[column], options.resamples)
            for formula in options.formulas:
                parsed = scores.Formula.parse(formula)
                combined = [
                    parsed.ranked({n: figures[i] for n, figures in values.items()}) for i in range(options.seeds)
                ]
                ranked[formula] = spearman(np.stack(combined), looked_up[column], options.resamples)
    seconds = timed(options)
    names = list(dict.fromkeys(score for ranked in found.values() for score in ranked))
    lines = ["| score | " + " | ".join(found) + " | time, of zico's |", "| --- " * (len(found) + 2) + "|"]
    for score in names:
        cells = [shown(ranked.get(score)) for ranked in found.values()]
        share = seconds[score] / seconds["zico"] if score in seconds else math.nan
        lines.append(f"| {score} | {' | '.join(cells)} | {f'{share:.2f}' if math.isfinite(share) else ''} |")
    lines += ["", "Architectures: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."]
    text = "\n".join(lines) + "\n"
    (options.out / "leaderboard.md").write_text(text)
    record = {"spearman": found, "architectures": counts, "seconds an architecture": seconds}
    (options.out / "leaderboard.json").write_text(json.dumps(record, indent=1) + "\n")
    heat_map(names, found).savefig(options.out / "leaderboard.png", dpi=80)
    print(text)


def scored(options: Options, name: str, table: tabular.Table) -> tuple[list[str], dict[str, np.ndarray]]:
    """Scores some rows of a table; returns them and each score (seeds, rows), larger for those said to be better."""
    source = SOURCES[name]
    stem = options.scores / source.space
    options.scores.mkdir(parents=True, exist_ok=True)
    texts = [*table.rows]
    random.Random(0).shuffle(texts)
    chosen = stem.with_suffix(".txt")
    chosen.write_text("\n".join(texts[options.first :][: options.cells or source.cells]) + "\n")
    settings = source.settings | ({"channels": 6, "batch": 4, "image-size": 8} if options.tiny else {})
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    arguments += ["--space", source.space, "--genotypes", str(chosen), "--score", *options.names]
    arguments += ["--seeds", str(options.seeds)]
    status = cli.main(["score", "--out", str(stem.with_suffix(".csv")), *arguments])
    if status:
        raise SystemExit(status)
    written = scores.ScoreTable.read([stem.with_suffix(".csv")])
    return written.architectures, written.oriented()


def spearman(score: np.ndarray, truth: np.ndarray, resamples: int) -> dict[str, Any]:
    """Returns the mean correlation of some seeds (seeds, rows) with its 95% interval, and each one's."""
    found = []
    for values in score:
        if np.isfinite(values).sum() < 3:
            return dict.fromkeys(("value", "low", "high"), math.nan)
        found.append(tabular.rank(values, truth, resamples=resamples, only=("spearman",)).statistics["spearman"])
    means = zip(("value", "low", "high"), np.mean(found, axis=0).tolist(), strict=True)
    return dict(means) | {"seeds": [one[0] for one in found]}


def timed(options: Options) -> dict[str, float]:
    """Returns the seconds that each score and formula takes by itself on a NAS-Bench-201 cell, without compilation."""
    space = spaces.NASBench201()
    settings = SOURCES["NAS-Bench-201"].settings
    size, side = space.Size(settings["channels"], settings["cells"]), settings["image-size"]
    source = space.noise().resized(8 if options.tiny else side)
    config = scores.ScoreConfig(size, 4 if options.tiny else settings["batch"])
    genotypes = [space.sample(jax.random.key(i)) for i in range(options.timed)]
    parts = {text: [*scores.Formula.parse(text).weights] for text in (*options.names, *options.formulas)}
    found = {}
    for name, own in parts.items() if options.timed else ():
        computed = [part for part in own if scores.SCORES[part].compute is not None]
        if not computed:
            continue
        scorer = scores.Scorer(space, source, computed, config)
        draw = scorer.draw(0)
        scorer.score(draw, genotypes)
        passes = []
        for _ in range(3):
            start = time.perf_counter()
            scorer.score(draw, genotypes)
            passes.append(time.perf_counter() - start)
        found[name] = min(passes) / len(genotypes)
    return found


def shown(statistic: dict[str, float] | None) -> str:
    """Writes a correlation and its interval."""
    if statistic is None or not math.isfinite(statistic["value"]):
        return ""
    return "{value:.3f} [{low:.2f}, {high:.2f}]".format(**statistic)


def heat_map(names: list[str], found: dict[str, dict[str, Any]]) -> Figure:
    """Draws the correlations, a row a score."""
    absent = {"value": math.nan}
    values = np.array([[ranked.get(name, absent)["value"] for ranked in found.values()] for name in names])
    figure = Figure(figsize=(2 + 1.1 * len(found), 1 + 0.27 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(len(found)), [*found], rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="Spearman")
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
