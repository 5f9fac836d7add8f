"""Searches the DARTS space with true labels, with random labels, and with Gaussian noise in the place of images.

    python experiments/darts_search.py --images cifar10.npz
    python experiments/darts_search.py --settings --out experiments/results/darts_settings    # on noise alone

With `--settings` it compares the whole batch with micro-batches and float32 with bfloat16 instead. Every kind is one
`nasi search --preset nasi-fix` over several seeds; an interrupted run continues. Writes a table of the traces, of how
far searches agree with each other and with those of the other kinds, and of how often each operation was selected, with
a figure; the selected cells of all searches; and a drawing of each kind's cells. Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli, data, scores, spaces


@dataclasses.dataclass(frozen=True)
class Options:
    """Search the DARTS space on three kinds of data, or with three settings.

    Attributes:
        images: an .npz file with images x and labels y; not needed with `settings`.
        settings: compare settings that save memory or time, in the place of kinds of data.
        seeds: independent searches on each kind of data.
        runs: where the run folders go.
        out: where the results go.
        preset: settings of the search.
        steps: search steps; the paper's number is 100.
        batch: images in a batch; the paper's number is 64.
        cells: cells of the one-shot network; the paper's number is 8.
        channels: channels of its first cells; the paper's number is 16.
        image_size: height and width of the images; the paper's number is 32.
    """

    images: pathlib.Path | None = None
    settings: bool = False
    seeds: int = 5
    runs: pathlib.Path = pathlib.Path("runs/darts_search")
    out: pathlib.Path = pathlib.Path("experiments/results/darts_search")
    preset: str = "nasi-fix"
    steps: int = 100
    batch: int = 64
    cells: int = 8
    channels: int = 16
    image_size: int = 32


def main(options: Options) -> int:
    """Runs the searches and writes the results; returns the exit status of the first one that fails, else 0."""
    space = spaces.get("darts")
    size = {"steps": options.steps, "batch": options.batch, "cells": options.cells, "channels": options.channels}
    shared = ["--space", space.name, "--preset", options.preset, "--seeds", f"{options.seeds}"]
    shared += [word for name, value in size.items() for word in (f"--{name}", f"{value}")]
    if options.settings:
        kinds = {"float32": [], "micro-batches": ["--micro-batches", "4"], "bfloat16": ["--mixed-precision"]}
    elif options.images is None:
        raise ValueError("images: expected an .npz file of images without settings, got None")
    else:
        images = ["--data", str(options.images)]
        kinds = {"true labels": images, "random labels": [*images, "--labels", "random"], "Gaussian": []}
    options.out.mkdir(parents=True, exist_ok=True)
    records, histories = {}, {}
    for kind, chosen in kinds.items():
        folder = options.runs / kind.lower().replace(" ", "-")
        if not (folder / "genotype.json").exists():
            arguments = [*shared, *chosen, "--image-size", f"{options.image_size}", "--out", str(folder)]
            status = cli.main(["search", *arguments])
            if status:
                return status
        records[kind] = json.loads((folder / "genotype.json").read_text())
        histories[kind] = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        cli.main([
            "draw",
            "--genotype",
            str(folder / "genotype.json"),
            "--out",
            str(options.out / f"{folder.name}.png"),
        ])
    weights = {kind: encoded(space, record) for kind, record in records.items()}
    text = table(space, records, histories, weights)
    (options.out / "table.md").write_text(text)
    selected = {kind: record["searches"] for kind, record in records.items()}
    provenance = next(iter(records.values()))["provenance"]
    shown = {"size": size | {"image_size": options.image_size}, "provenance": provenance}
    (options.out / "searches.json").write_text(json.dumps(selected | shown, indent=1) + "\n")
    operations_figure(space, weights).savefig(options.out / "operations.png", dpi=120)
    print(text)
    return 0


def encoded(space: spaces.SearchSpace, record: dict[str, Any]) -> np.ndarray:
    """Returns the one-hot weights of each search, (searches, kinds of cell, edges, operations)."""
    found = [space.encode(space.parse(entry["genotype"])) for entry in record["searches"]]
    return np.array([[np.asarray(weights[kind]) for kind in space.edges] for weights in found])


def agreement(pairs: Iterable[tuple[np.ndarray, ...]]) -> float:
    """Returns the mean share of edges, with their operations, that the two searches of a pair have in common."""
    return float(np.mean([np.sum(x * y) / np.sum(x) for x, y in pairs]))


def chance(space: spaces.SearchSpace) -> float:
    """Returns the agreement of random architectures."""
    drawn = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    found = jax.vmap(space.encode)(drawn)
    stacked = np.stack([np.asarray(found[kind]) for kind in space.edges], axis=1)
    return agreement(itertools.product(stacked[:100], stacked[100:]))


def table(
    space: spaces.SearchSpace,
    records: dict[str, dict[str, Any]],
    histories: dict[str, list[dict[str, float]]],
    weights: dict[str, np.ndarray],
) -> str:
    """Writes the figures as Markdown."""
    counter = scores.Counter(space, data.shapes(space.noise(), 2).x, space.Size(36, 20), 10)
    lines = ["| searches | T~, mean over steps | million parameters (36 channels, 20 cells) | agreement of searches |"]
    lines.append("| --- | --- | --- | --- |")
    for kind, record in records.items():
        traces = [
            np.mean([row["trace"] for row in histories[kind] if row["seed"] == entry["seed"]])
            for entry in record["searches"]
        ]
        sizes = [counter(space.parse(entry["genotype"]))["params"] / 1e6 for entry in record["searches"]]
        own, others = weights[kind], {other: found for other, found in weights.items() if other != kind}
        shares = [f"{agreement(itertools.combinations(own, 2)):.2f} among each other"] if len(own) > 1 else []
        shares += [f"{agreement(itertools.product(own, found)):.2f} with {other}" for other, found in others.items()]
        shares += [
            f"{agreement(zip(own, found, strict=True)):.2f} with {other} of the same seed"
            for other, found in others.items()
        ]
        figures = " | ".join(f"{np.mean(values):.3g} ± {np.std(values):.2g}" for values in (traces, sizes))
        lines.append(f"| {kind} | {figures} | {', '.join(shares)} |")
    lines += ["", f"Two random architectures agree in {chance(space):.2f} of their edges.", ""]
    lines += ["| searches | " + " | ".join(space.operations) + " |", "| --- " * (1 + len(space.operations)) + "|"]
    for kind, found in weights.items():
        shares = found.sum(axis=(0, 1, 2)) / found.sum()
        lines.append(f"| {kind} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return "\n".join(lines) + "\n"


def operations_figure(space: spaces.SearchSpace, weights: dict[str, np.ndarray]) -> Figure:
    """Draws the share of each operation among the selected edges, for both kinds of cell."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for column, kind in enumerate(space.edges):
        axes = figure.add_subplot(1, len(space.edges), column + 1)
        places = np.arange(len(space.operations))
        for number, (name, found) in enumerate(weights.items()):
            counts = found[:, column].sum(axis=1)
            shares = counts / counts.sum(axis=1, keepdims=True)
            offset = 0.27 * (number - 1)
            axes.bar(places + offset, shares.mean(axis=0), 0.25, yerr=shares.std(axis=0), label=name, capsize=2)
        axes.set_xticks(places, space.operations, rotation=20, ha="right", fontsize=8)
        axes.set(title=f"{kind} cell", ylabel="share of the eight edges, mean and deviation")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3, axis="y")
    return figure


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
