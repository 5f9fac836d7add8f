"""Whether searches that train shared weights collapse to skip connections in NAS-Bench-201, and what prevents it.

Runs `nasi search` with DARTS as published, with one remedy each, and with GDAS, SNAS and NASI, all at a reduced size on
real images; looks the cell of every moment up in the benchmark's table, and compares the last ones with cells drawn at
random. The auxiliary skip of DARTS- became the default by the first seeds, so it has more. Searches that are finished
are not run again.

    python experiments/collapse.py --table nasbench201.csv.gz --images cifar10.npz

Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli, spaces
from nasi_jax.tabular import Table

COLUMN = "cifar10_test"
PUBLISHED = ["--strategy", "darts", "--preset", "darts-v1"]
METHODS = {
    "DARTS as published": PUBLISHED,
    "warm-up": [*PUBLISHED, "--warmup", "0.3"],
    "DARTS-ES": [*PUBLISHED, "--stop-ratio", "1.3"],
    "warm-up and DARTS-ES": [*PUBLISHED, "--warmup", "0.3", "--stop-ratio", "1.3"],
    "R-DARTS, weight decay": [*PUBLISHED, "--weight-decay", "0.0081"],
    "R-DARTS, drop path": [*PUBLISHED, "--drop-path", "0.6"],
    "DARTS-PT": [*PUBLISHED, "--perturbation", "0.3"],
    "DARTS-, the default": ["--strategy", "darts"],
    "GDAS": ["--strategy", "gdas"],
    "SNAS": ["--strategy", "snas"],
    "NASI": ["--strategy", "nasi", "--rounds", "4"],
}
DEFAULT = "DARTS-, the default"


@dataclasses.dataclass(frozen=True)
class Options:
    """Search NAS-Bench-201 by methods that train weights, and look their cells up over time.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        images: an .npz of real images with x and y.
        methods: which methods.
        seeds: independent searches with each of them.
        default_seeds: searches with the defaults.
        steps: steps of a search.
        logits_learning_rate: of the logits where weights are trained, larger than published for fewer steps.
        runs: where the run folders go.
        out: where the results go.
        smoke: tiny searches, to see that everything works.
    """

    table: pathlib.Path
    images: pathlib.Path
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: int = 3
    default_seeds: int = 8
    steps: int = 600
    logits_learning_rate: float = 0.01
    runs: pathlib.Path = pathlib.Path("runs/collapse")
    out: pathlib.Path = pathlib.Path("experiments/results/collapse")
    smoke: bool = False


def main(options: Options) -> int:
    """Runs the experiment.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    table = Table.read(options.table, [COLUMN])
    results = {}
    for name in options.methods:
        folder = options.runs / name.replace(", ", "-").replace(" ", "-").lower()
        if not (folder / "genotype.json").exists():
            status = cli.main(["search", *METHODS[name], *size(options, name), "--out", str(folder)])
            if status:
                return status
        results[name] = summarise(folder, table)
    options.out.mkdir(parents=True, exist_ok=True)
    if DEFAULT in results and not options.smoke:
        found, chosen = results[DEFAULT], options.seeds
        later = {key: found[key][chosen:] for key in ("accuracy", "skips", "skip_share")}
        results[f"{DEFAULT}, seeds {chosen} to {options.default_seeds - 1}"] = later
    cells = np.asarray(table.columns[COLUMN])
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "table.md").write_text(markdown(results, cells))
    course_figure(results, float(cells.mean())).savefig(options.out / "course.png", dpi=120)
    print(markdown(results, cells))
    return 0


def size(options: Options, name: str) -> list[str]:
    """Returns the options that make a search small."""
    numbers: dict[str, Any] = {"steps": options.steps, "batch": 32, "channels": 8, "cells": 1, "image-size": 16}
    trained = name != "NASI"
    if trained:
        numbers |= {"logits-learning-rate": options.logits_learning_rate, "crop": 0}
    if options.smoke:
        numbers |= {"steps": 8, "batch": 4, "channels": 2, "image-size": 8}
        numbers |= {"moments": 5} if trained else {"rounds": 2}
        if "darts" in METHODS[name]:
            numbers |= {"window": 2}
    seeds = options.default_seeds if name == DEFAULT and not options.smoke else options.seeds
    numbers |= {"seeds": seeds, "data": options.images}
    unchanged = ["--no-flip"] if trained else []
    return [word for option, value in numbers.items() for word in (f"--{option}", str(value))] + unchanged


def summarise(folder: pathlib.Path, table: Table) -> dict[str, Any]:
    """Looks up the cells of a finished run.

    Args:
        folder: the run folder.
        table: the benchmark's figures.

    Returns:
        For each search the cell, its accuracy, how many of its edges are skips; and for methods that keep logits over
        time, at each moment, the steps done, the mean probability of a skip, and accuracy and skips of the cell.
    """
    space, record = spaces.NASBench201(), json.loads((folder / "genotype.json").read_text())
    found = [entry["genotype"] for entry in record["searches"]]
    result: dict[str, Any] = {
        "genotype": found,
        "accuracy": table.lookup(found)[COLUMN].tolist(),
        "skips": [text.count("skip_connect") for text in found],
        "seconds": record["provenance"]["seconds"],
        "settings": record["settings"]["search"],
    }
    if not (folder / "moments.npz").exists():
        return result
    with np.load(folder / "moments.npz") as file:
        logits, steps, stopped = file["cell"], file["steps"], file["stopped"]
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    cells = [[space.format(space.decode({"cell": moment})) for moment in search] for search in logits]
    return result | {
        "steps": steps.tolist(),
        "stopped": stopped.tolist(),
        "skip_share": shares[..., space.operations.index("skip_connect")].mean(axis=-1).tolist(),
        "accuracies": [table.lookup(search)[COLUMN].tolist() for search in cells],
    }


def markdown(results: dict[str, dict[str, Any]], cells: np.ndarray) -> str:
    """Returns the last cells of all methods, and what all cells of the table have, as a Markdown table."""
    lines = [
        "| method | searches | test accuracy, % | skips of six edges | mean probability of a skip |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        last = [search[-1] for search in result["skip_share"]] if "skip_share" in result else []
        columns = [spread(result["accuracy"], 2), spread(result["skips"], 1), spread(last, 3) if last else "-"]
        lines.append(f"| {name} | {len(result['accuracy'])} | " + " | ".join(columns) + " |")
    lines.append(f"| a random cell | all 15,625 | {cells.mean():.2f} | 1.2 | - |")
    return "\n".join([*lines, f"| the median cell | all 15,625 | {np.median(cells):.2f} | - | - |"]) + "\n"


def spread(values: list[float], digits: int) -> str:
    """Returns mean and sample standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def course_figure(results: dict[str, dict[str, Any]], random: float) -> Figure:
    """Draws skip probability and table accuracy over the steps, a line for each search."""
    shown = {name: result for name, result in results.items() if "steps" in result}
    across = min(5, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(3.0 * across, 4.6 * down), layout="constrained")
    axes = figure.subplots(2 * down, across, squeeze=False)
    for panel in axes.ravel():
        panel.set_visible(False)
    for number, (name, result) in enumerate(shown.items()):
        row, column = divmod(number, across)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        for i, (share, accuracies) in enumerate(zip(result["skip_share"], result["accuracies"], strict=True)):
            upper.plot(result["steps"], share, color=f"C{i}")
            lower.plot(result["steps"], accuracies, color=f"C{i}", drawstyle="steps-post")
            lower.scatter([result["steps"][-1]], [result["accuracy"][i]], color=f"C{i}", s=18, zorder=3)
        upper.axhline(0.2, color="0.6", linestyle=":", linewidth=1)
        lower.axhline(random, color="0.6", linestyle=":", linewidth=1)
        upper.set_title(name, fontsize=10)
        upper.set_ylim(0, 1)
        lower.set_ylim(0, 100)
        lower.set_xlabel("step", fontsize=8)
        for panel, label in ((upper, "probability of a skip"), (lower, "test accuracy, %")):
            panel.set_visible(True)
            panel.grid(alpha=0.3)
            panel.tick_params(labelsize=8)
            if column == 0:
                panel.set_ylabel(label, fontsize=9)
    return figure


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
