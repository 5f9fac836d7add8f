"""How far GenNAS keeps the order of NAS-Bench-201 cells where networks, images or training are smaller.

    python experiments/gennas_sizes.py --table nasbench201.csv.gz --images cifar10.npz

Fits the authors' task for NAS-Bench-201 at the published size and at smaller ones, and notes the loss every ten steps.
The size and the number of steps that keep the order best at a fifth of the cost are chosen on the first cells, and
judged on the others. The published size with another seed, which is another draw of images, targets, parameters and
noise, says how well the order repeats at all. Cost is processor time. Losses are kept in the folder of `--runs`, where
an interrupted experiment continues. Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats
import tyro
from gennas_task import Judge, interval, spearman

from nasi_jax import data, proxies, spaces
from nasi_jax.tabular import Table

COLUMN = "cifar10_test"


class Size(NamedTuple):
    """What is trained, for how long, and from which seed."""

    channels: int = 16
    depth: int = 5
    image_size: int = 32
    batch: int = 16
    seed: int = 0


FULL = Size()
AGAIN = Size(seed=1)
SMALLER = (Size(depth=1), Size(image_size=16))
SHOWN = (10, 20, 30, 40, 50, 70, 100)
DEAREST = 0.2
"""Share of the cost of the published size that a smaller one may have."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Train cells at several sizes and compare the orders.

    Attributes:
        table: CSV file of NAS-Bench-201.
        images: .npz file with images x and labels y.
        runs: folder of the losses.
        out: folder of the results.
        cells: random cells.
        chosen_on: how many of them, the first ones, the size is chosen on.
        again: how many of them, the first ones, are trained at the published size with another seed as well.
        steps: steps of training.
        resamples: bootstrap samples for the 95% intervals.
        tiny: smallest sizes, for a test of this script.
    """

    table: pathlib.Path
    images: pathlib.Path
    runs: pathlib.Path = pathlib.Path("runs/gennas_sizes")
    out: pathlib.Path = pathlib.Path("experiments/results/gennas_sizes")
    cells: int = 50
    chosen_on: int = 25
    again: int = 25
    steps: int = 100
    resamples: int = 1000
    tiny: bool = False


def main(options: Options) -> None:
    """Trains, compares and writes the results."""
    space = spaces.get("nasbench201")
    drawn = jax.random.choice(jax.random.key(0), space.cardinality, (options.cells,), replace=False)
    cells = [space.at(int(place)) for place in drawn]
    options.runs.mkdir(parents=True, exist_ok=True)
    sizes = (FULL, *SMALLER[: 1 if options.tiny else None])
    found = {size: trained(options, size, cells) for size in sizes}
    again, _ = trained(options, AGAIN, cells[: options.again])
    names = [space.format(cell) for cell in cells]
    accuracies = np.asarray(Table.read(options.table, [COLUMN]).lookup(names)[COLUMN])
    lines, results = compared(options, found, again, accuracies)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(lines))


def trained(options: Options, size: Size, cells: list[Any]) -> tuple[np.ndarray, float]:
    """Trains cells at a size, those that its file lacks.

    Returns:
        The losses, (cells, steps / 10), and the mean processor time of a cell in seconds.
    """
    path = options.runs / f"{'-'.join(map(str, size))}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if len(rows) < len(cells):
        smaller = size._replace(channels=2, depth=1, image_size=8, batch=4) if options.tiny else size
        source = data.load(str(options.images), image_size=smaller.image_size)
        network = smaller.channels, smaller.depth, smaller.batch
        judge = Judge(source, *network, options.steps, every=10, seed=smaller.seed)
        task = proxies.TASKS["nb101"]
        list(judge.curves(task, cells[:1]))  # compiles
        before = time.process_time()
        with path.open("a") as file:
            for curve in judge.curves(task, cells[len(rows) :]):
                now = time.process_time()
                rows.append({"losses": curve.tolist(), "seconds": now - before})
                before = now
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                print(f"{path.stem}: {len(rows)} of {len(cells)} cells", flush=True)
    rows = rows[: len(cells)]
    return np.array([row["losses"] for row in rows]), float(np.mean([row["seconds"] for row in rows]))


def compared(
    options: Options, found: dict[Size, tuple[np.ndarray, float]], again: np.ndarray, accuracies: np.ndarray
) -> tuple[list[str], dict[str, Any]]:
    """Compares every size and number of steps with the published one.

    Args:
        options: see `Options`.
        found: for each size the losses, (cells, steps / 10), and the cost of a cell.
        again: the losses of the first cells at the published size with another seed.
        accuracies: those of the cells.

    Returns:
        The lines of a table, and the same figures, with which size was chosen.
    """
    losses, dear = found[FULL]
    full = losses[:, -1]
    seen, unseen = slice(options.chosen_on), slice(options.chosen_on, None)
    rows = []
    for size, (curves, seconds) in found.items():
        for step in range(10, options.steps + 1, 10):
            if size == FULL and step == options.steps:
                continue
            values = curves[:, step // 10 - 1]
            low, high = interval(tau, full[unseen], values[unseen], options.resamples)
            rows.append({
                "size": size, "steps": step,
                "cost": seconds / dear * step / options.steps,
                "chosen_on": tau(full[seen], values[seen]),
                "others": tau(full[unseen], values[unseen]), "low": low, "high": high,
                "spearman": spearman(values, accuracies),
            })  # fmt: skip
    chosen = max((row for row in rows if row["cost"] <= DEAREST), key=lambda row: row["chosen_on"])
    first = full[: len(again)]
    low, high = interval(tau, first, again[:, -1], options.resamples)
    repeated = {"cells": len(again), "tau": tau(first, again[:, -1]), "low": low, "high": high}
    published = {"spearman": spearman(full, accuracies), "again": repeated}
    results = {"published": published, "chosen": described(chosen), "all": [described(row) for row in rows]}
    count = (options.chosen_on, len(full) - options.chosen_on)
    lines = [
        f"The published size with another seed: {repeated['tau']:.3f} [{low:.2f}, {high:.2f}] on {len(again)} cells.",
        "",
        f"| channels | cells a stage | images | steps | cost | tau, {count[0]} cells | tau, {count[1]} others | "
        "Spearman with the accuracy |",
        "| --- " * 8 + "|",
        f"| 16 | 5 | 16 of 32x32 | {options.steps} | 1.00 |  |  | {published['spearman']:.3f} |",
    ]
    for row in rows:
        if row["steps"] in SHOWN or row is chosen:
            size = row["size"]
            cells = [size.channels, size.depth, f"{size.batch} of {size.image_size}x{size.image_size}", row["steps"]]
            cells += [f"{row['cost']:.2f}", f"{row['chosen_on']:.3f}"]
            cells += [f"{row['others']:.3f} [{row['low']:.2f}, {row['high']:.2f}]", f"{row['spearman']:.3f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines, results


def described(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with the values of its size by name."""
    return {**row["size"]._asdict(), **{name: value for name, value in row.items() if name != "size"}}


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Kendall's correlation of losses, where those that diverged are the largest."""
    found = scipy.stats.kendalltau(np.nan_to_num(one, nan=np.inf), np.nan_to_num(other, nan=np.inf))
    return float(np.asarray(found)[0])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
