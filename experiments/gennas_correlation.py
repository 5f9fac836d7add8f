"""Ranks NAS-Bench-201 and DARTS cells by GenNAS, beside other scores and in sums of ranks with them.

    python experiments/gennas_correlation.py --table nasbench201.csv.gz --images cifar10.npz --darts nasbench301.csv.gz

Scores by `nasi score` into the folder of `--scores`, where an interrupted experiment continues. Writes Markdown tables
and results.json into experiments/results/gennas_correlation. Sums of ranks are chosen on the first cells and judged on
the others. Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import random
from typing import Any

import numpy as np
import scipy.stats
import tyro
from nasbench201_correlation import COLUMNS

from nasi_jax import cli, spaces, tabular
from nasi_jax.scores import Formula, ScoreTable

REDUCED = {"channels": 16, "cells": 1, "batch": 16, "image-size": 32}
"""The size that gennas_sizes.py recommends, with as many steps as `STEPS`."""
CHEAP = {"channels": 8, "cells": 3, "batch": 32, "image-size": 16}
"""The size at which the other scores rank this space, see nasbench201_correlation.py."""
DARTS = {"channels": 8, "cells": 3, "batch": 16, "image-size": 16}
OTHERS = ("params", "zico", "ntk-participation-ratio")
GENNAS = "gennas"
STEPS = 40
VARIANTS = {
    "noise": "noise in the place of images",
    "task_combo": "task combo",
    "task_darts": "task darts",
}
TITLES = ("CIFAR-10", "CIFAR-100", "ImageNet16-120")


@dataclasses.dataclass(frozen=True)
class Options:
    """Score cells and rank them.

    Attributes:
        table: CSV file of NAS-Bench-201.
        images: .npz file with images x and labels y.
        darts: CSV file of DARTS cells with a column val_accuracy; left out without.
        scores: folder of the CSV files of `nasi score`.
        out: folder of the results.
        cells: random cells at the reduced size.
        variants: how many of them, the first ones, with noise in the place of images, and on the other published tasks.
        darts_cells: how many DARTS cells.
        sums_chosen_on: how many cells, the first ones, a sum of ranks is chosen on.
        resamples: bootstrap samples for the 95% intervals.
        tiny: smallest sizes, for a test of this script.
    """

    table: pathlib.Path
    images: pathlib.Path
    darts: pathlib.Path | None = None
    scores: pathlib.Path = pathlib.Path("runs/gennas_correlation")
    out: pathlib.Path = pathlib.Path("experiments/results/gennas_correlation")
    cells: int = 500
    variants: int = 60
    darts_cells: int = 60
    sums_chosen_on: int = 200
    resamples: int = 1000
    tiny: bool = False


def main(options: Options) -> None:
    """Scores, ranks, and writes the results."""
    options.scores.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    images = {"data": str(options.images)}
    parts = {
        "others": (CHEAP | {"sample": options.cells}, OTHERS),
        "reduced": (REDUCED | images | {"sample": options.cells}, (fitted("nb101"),)),
        "noise": (REDUCED | {"sample": options.variants}, (fitted("nb101"),)),
        "task_combo": (REDUCED | images | {"sample": options.variants}, (fitted("combo"),)),
        "task_darts": (REDUCED | images | {"sample": options.variants}, (fitted("darts"),)),
    }
    found = {name: scored(options, name, *part) for name, part in parts.items() if part[0]["sample"]}
    others, texts = found["others"]
    truth = tabular.Table.read(options.table, COLUMNS).lookup(texts)
    values = {name: next(iter(scores.values())) for name, (scores, _) in found.items() if name != "others"}
    known = {GENNAS: values["reduced"], **others}

    rows = {f"{GENNAS}, reduced size": known[GENNAS], **others}
    rows |= {" + ".join(names): summed(known, names) for names in sums(known) if len(names) > 1}
    write(options, results, "cells", rows, truth)
    for name, title in VARIANTS.items():
        if name in values:
            count = len(values[name])
            rows = {f"{GENNAS}, {title}": values[name]}
            rows |= {f"{GENNAS}, reduced size": known[GENNAS][:count], "params": others["params"][:count]}
            write(options, results, name, rows, {column: figures[:count] for column, figures in truth.items()})

    lines = ["| the order of the reduced size, and of | cells | Kendall | Spearman |", "| --- " * 4 + "|"]
    for name, title in VARIANTS.items():
        if name in values:
            reduced = known[GENNAS][: len(values[name])]
            ranking = tabular.rank(values[name], reduced, resamples=options.resamples, only=("kendall", "spearman"))
            results[f"orders, {name}"] = tabular.as_json(ranking)
            shown = [interval(ranking.statistics[key]) for key in ("kendall", "spearman")]
            lines.append(f"| {title} | {ranking.count} | {' | '.join(shown)} |")
    if len(lines) > 2:
        save(options, "orders", lines)

    save(options, "added", added(options, results, known, truth))
    if options.darts is not None:
        darts(options, results)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def fitted(task: str) -> str:
    """Returns the name of GenNAS's score on a task."""
    return f"{GENNAS}(task={task},steps={STEPS})"


def scored(
    options: Options, name: str, settings: dict[str, Any], names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores by `nasi score`; returns each score, (cells,), larger for cells said to be better, and the cells."""
    path = options.scores / f"{name}.csv"
    if options.tiny:
        settings = settings | {"channels": 2, "cells": 3 if "space" in settings else 1, "batch": 4, "image-size": 8}
        names = tuple(text.replace(f"={STEPS}", "=2") for text in names)
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    status = cli.main(["score", "--out", str(path), *arguments, "--score", *names])
    if status:
        raise SystemExit(status)
    written = ScoreTable.read([path])
    return {score: column[0] for score, column in written.oriented().items()}, written.architectures


def sums(known: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Returns all sets of scores, those without GenNAS first."""
    chosen = [names for size in range(1, len(known) + 1) for names in itertools.combinations(known, size)]
    return sorted(chosen, key=lambda names: GENNAS in names)


def summed(known: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Returns the sum of the ranks of some scores."""
    return Formula(dict.fromkeys(names, 1.0)).ranked(known)


def added(
    options: Options, results: dict[str, Any], known: dict[str, np.ndarray], truth: dict[str, np.ndarray]
) -> list[str]:
    """Chooses a sum with GenNAS and one without on the first cells, and compares both on the others.

    Returns:
        The lines of a table. The interval of the difference is that over bootstraps of the cells.
    """
    chosen_on, others = slice(options.sums_chosen_on), slice(options.sums_chosen_on, None)
    seen, unseen = ({name: column[part] for name, column in known.items()} for part in (chosen_on, others))
    header = ("column", "best sum without", "it has", "best sum with GenNAS", "that has", "difference")
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for column, title in zip(COLUMNS, TITLES, strict=True):
        figures, best = truth[column][others], {}
        for names in sums(known):
            worth = spearman(summed(seen, names), truth[column][chosen_on])
            group = GENNAS in names
            best[group] = max(best.get(group, (-2.0, names)), (worth, names))
        without, with_it = (summed(unseen, best[group][1]) for group in (False, True))
        rng, differences = np.random.default_rng(0), []
        for _ in range(options.resamples):
            rows = rng.integers(0, len(figures), len(figures))
            differences.append(spearman(with_it[rows], figures[rows]) - spearman(without[rows], figures[rows]))
        low, high = np.nanquantile(differences, (0.025, 0.975))
        difference = spearman(with_it, figures) - spearman(without, figures)
        results[f"added, {column}"] = {
            "without": best[False][1], "with": best[True][1], "difference": difference, "low": low, "high": high,
            "cells": len(figures),
        }  # fmt: skip
        lines.append(
            f"| {title} | {' + '.join(best[False][1])} | {spearman(without, figures):.3f}"
            f" | {' + '.join(best[True][1])} | {spearman(with_it, figures):.3f}"
            f" | {difference:+.3f} [{low:+.3f}, {high:+.3f}] |"
        )
    return lines


def darts(options: Options, results: dict[str, Any]) -> None:
    """Ranks DARTS cells by GenNAS on its task for that space, beside the other scores."""
    assert options.darts is not None
    space = spaces.get("darts")
    table = tabular.Table.read(options.darts, ["val_accuracy"], space)
    texts = [*table.rows]
    random.Random(0).shuffle(texts)
    chosen = options.scores / "darts.txt"
    chosen.write_text("\n".join(texts[: options.darts_cells]) + "\n")
    settings = DARTS | {"space": "darts", "genotypes": chosen}
    ours, texts = scored(options, "darts_gennas", settings | {"data": options.images}, (fitted("darts"),))
    others, _ = scored(options, "darts_others", settings, OTHERS)
    known = {GENNAS: next(iter(ours.values())), **others}
    rows = {" + ".join(names): summed(known, names) for names in sums(known)}
    write(options, results, "darts", rows, table.lookup(texts, space))


def write(
    options: Options, results: dict[str, Any], name: str, rows: dict[str, np.ndarray], truth: dict[str, np.ndarray]
) -> None:
    """Ranks cells by scores, and writes a table of Spearman's and Kendall's correlations with their 95% intervals."""
    titles = dict(zip(COLUMNS, TITLES, strict=True)) | {"val_accuracy": "NAS-Bench-301"}
    header = [f"{titles[column]}, {kind}" for column in truth for kind in ("Spearman", "Kendall")]
    lines = [f"| score | cells | {' | '.join(header)} |", "| --- " * (len(header) + 2) + "|"]
    results[name] = {}
    for score, values in rows.items():
        cells, count = [], 0
        results[name][score] = {}
        for column, figures in truth.items():
            ranking = tabular.rank(values, figures, resamples=options.resamples, only=("spearman", "kendall"))
            results[name][score][column] = tabular.as_json(ranking)
            cells += [interval(ranking.statistics[kind]) for kind in ("spearman", "kendall")]
            count = ranking.count
        lines.append(f"| {score} | {count} | {' | '.join(cells)} |")
    save(options, name, lines)


def save(options: Options, name: str, lines: list[str]) -> None:
    """Writes and prints a table."""
    text = "\n".join(lines) + "\n"
    (options.out / f"{name}.md").write_text(text)
    print(text)


def interval(statistic: tabular.Statistic) -> str:
    """Writes a correlation with its interval."""
    return f"{statistic.value:.3f} [{statistic.low:.2f}, {statistic.high:.2f}]"


def spearman(values: np.ndarray, figures: np.ndarray) -> float:
    """Returns Spearman's correlation over the cells whose score is a number."""
    there = ~np.isnan(values)
    return float(np.asarray(scipy.stats.spearmanr(values[there], figures[there]))[0])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
