"""Trains the architecture that a search selected beside random ones of its space, under one short protocol.

    nasi search --seeds 10 --out runs/search
    python experiments/train_selected.py --genotype runs/search/genotype.json --data cifar10 --data-dir data

Writes a row for each training, a table and a figure to experiments/results/train_selected; an interrupted run
continues. Expected: experiments/README.md.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy import stats

from nasi_jax import data, spaces, train
from nasi_jax.cli.genotypes import read

COLUMNS = ("name", "genotype", "seed", "test_accuracy", "parameters")
_SHORT = dataclasses.replace(
    train.RECIPES["nasbench201-12"], batch=64, channels=8, cells=1, crop=2, image_size=16, initialisation="he"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a selected architecture and random ones.

    Attributes:
        genotype: genotype.json of a search, or the text form.
        data: see `nasi train`.
        data_dir: see `nasi train`.
        space: search space of a text form.
        out: folder for the results.
        random: number of random architectures.
        seeds: trainings of each architecture.
        images: training images, taken from the whole at random; 0 is all.
        config: settings of the training; the benchmark's 12 epochs at a reduced size.
    """

    genotype: str
    data: str
    data_dir: pathlib.Path | None = None
    space: str = "nasbench201"
    out: pathlib.Path = pathlib.Path("experiments/results/train_selected")
    random: int = 10
    seeds: int = 5
    images: int = 5000
    config: Annotated[train.Recipe, tyro.conf.arg(name="")] = _SHORT


def main(options: Options) -> None:
    """Trains what is missing and writes the results."""
    space, selected = read(options.genotype, options.space)
    architectures = {"selected": selected}
    architectures |= {f"random {i}": space.sample(jax.random.key(i)) for i in range(options.random)}
    training, test = load(options)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "trainings.csv"
    before = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    path.write_text(before[: before.rfind("\n") + 1])  # the last row may be cut short
    done = {(row["genotype"], int(row["seed"])) for row in rows_of(path)}
    for name, genotype in architectures.items():
        text = space.format(genotype)
        for seed in range(options.seeds):
            if (text, seed) not in done:
                accuracy, parameters = measure(options.config, space, genotype, training, test, seed)
                with path.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow([name, text, seed, accuracy, parameters])
    rows = rows_of(path)
    (options.out / "table.md").write_text(table(rows))
    figure(rows).savefig(options.out / "accuracy.png", dpi=120)
    print(table(rows))


def load(options: Options) -> tuple[data.Images, data.Images]:
    """Opens training and test images, at the size wanted and both normalised alike."""
    size: dict[str, Any] = {"image_size": options.config.image_size or None, "directory": options.data_dir}
    training: Any = data.load(options.data, **size)
    if options.images:
        training = data.hold_out(training, 1 - options.images / len(training))[0]
    test: Any = data.load(options.data, split="test", **size)
    return training, test.like(training)


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of the file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measure(
    recipe: train.Recipe, space: spaces.SearchSpace, genotype: Any, training: data.Images, test: data.Images, seed: int
) -> tuple[float, int]:
    """Trains once; returns the test accuracy after the last epoch and the number of parameters."""
    network = train.network(space, genotype, recipe, training.outputs)
    states: Any = None
    for latest in train.iterate(jax.random.key(seed)[None], network, recipe, training):
        states = latest
    state = jax.tree.map(lambda leaf: leaf[0], states)
    return train.evaluate(network, state, test).accuracy, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def accuracies(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Returns for each architecture its test accuracies in percent, (seeds,)."""
    names = dict.fromkeys(row["name"] for row in rows)
    return {
        name: np.array([100 * float(row["test_accuracy"]) for row in rows if row["name"] == name]) for name in names
    }


def table(rows: list[dict[str, str]]) -> str:
    """Writes means, spreads and significance as Markdown, the best architecture first."""
    found = accuracies(rows)
    texts = {row["name"]: (row["genotype"], int(row["parameters"])) for row in rows}
    lines = ["| architecture | genotype | parameters | test accuracy (%) | p, selected is better |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name in sorted(found, key=lambda name: -found[name].mean()):
        values, (text, parameters) = found[name], texts[name]
        p = ""
        if name != "selected" and len(values) > 1:
            _, tail = stats.ttest_ind(found["selected"], values, equal_var=False, alternative="greater")
            p = f"{tail:.2g}"
        spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        genotype = text.replace("|", "\\|")
        lines.append(f"| {name} | `{genotype}` | {parameters} | {values.mean():.2f}{spread} | {p} |")
    means = np.array([values.mean() for name, values in found.items() if name != "selected"])
    selected = found["selected"].mean()
    below = int((means < selected).sum())
    spread = f"{means.mean():.2f} ± {means.std(ddof=1):.2f}, best {means.max():.2f}"
    lines += ["", f"Random architectures: {spread}; the selected one is better than {below} of {len(means)}."]
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, str]]) -> Figure:
    """Draws the accuracy of every training, architectures in the order of their means."""
    found = accuracies(rows)
    names = sorted(found, key=lambda name: found[name].mean())
    drawn = Figure(figsize=(7, 1 + 0.35 * len(names)), layout="constrained")
    axes = drawn.add_subplot()
    for place, name in enumerate(names):
        colour = "tab:red" if name == "selected" else "tab:blue"
        axes.scatter(found[name], np.full(len(found[name]), place), s=14, alpha=0.6, color=colour, linewidths=0)
        axes.scatter(found[name].mean(), place, marker="|", s=220, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="test accuracy (%), a point for each training, a line for their mean")
    axes.grid(alpha=0.3, axis="x")
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)))
