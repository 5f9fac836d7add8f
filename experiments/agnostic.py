"""Shows how far NASI's estimate (12) of the NTK trace depends on labels and on inputs (the paper's figure 1).

Scores random architectures of each space with one set of parameters on three kinds of batches: images with their
labels, the same images with random labels, and Gaussian noise with random labels. Each value is given for one batch, as
in (12), and as a mean over several. The correlation between two batches of one kind says what agreement is possible.

    python experiments/agnostic.py --images cifar10.npz

Writes agnostic.md, results.json and agnostic.png to experiments/results/agnostic, and every value to
runs/agnostic/values.csv, from which an interrupted run continues. Expected: experiments/README.md.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import pathlib

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy import stats

from nasi_jax import data, scores, spaces
from nasi_jax.nn import Style

KINDS = ("true labels", "random labels", "Gaussian")
PAIRS = (("true labels", "random labels"), ("true labels", "Gaussian"))
COLUMNS = ("space", "seed", "genotype", "batch", *KINDS)
CELLS = {"nasbench201": 3, "darts": 6} | {f"nasbench1shot1-s{i}": 2 for i in (1, 2, 3)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare the estimate between labels and inputs.

    Attributes:
        images: an .npz file with images x and labels y.
        values: CSV file for every value.
        out: folder for the results.
        spaces: search spaces.
        architectures: random architectures of each space.
        seeds: initialisations.
        batches: batches of each kind for each initialisation.
        batch: images in a batch.
        image_size: height and width that images are brought to.
        channels: channels of the first cells.
    """

    images: pathlib.Path
    values: pathlib.Path = pathlib.Path("runs/agnostic/values.csv")
    out: pathlib.Path = pathlib.Path("experiments/results/agnostic")
    spaces: tuple[str, ...] = tuple(CELLS)
    architectures: int = 100
    seeds: int = 3
    batches: int = 4
    batch: int = 32
    image_size: int = 16
    channels: int = 8


def main(options: Options) -> None:
    """Measures what is missing and writes the results."""
    path = options.values
    for folder in (options.out, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    path.write_text(before[: before.rfind("\n") + 1])  # the last row may be cut short
    source = data.from_npz(options.images, image_size=options.image_size)
    for name in options.spaces:
        measure(options, spaces.get(name), source, path)
    rows = read(path)
    results = {name: compare([row for row in rows if row["space"] == name]) for name in options.spaces}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "agnostic.md").write_text(table(results))
    figure(rows, options.spaces).savefig(options.out / "agnostic.png", dpi=120)
    print(table(results))


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of the file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measure(options: Options, space: spaces.SearchSpace, source: data.Images, path: pathlib.Path) -> None:
    """Appends the rows of one space that the file lacks."""
    done = {(row["seed"], row["genotype"], row["batch"]) for row in read(path) if row["space"] == space.name}
    size = space.Size(channels=options.channels, cells=CELLS[space.name])
    config = scores.ScoreConfig(size, options.batch, Style(affine=False))
    scorer = scores.Scorer(space, source, ("ntk-one-batch",), config)
    noise = data.Gaussian(source.image_shape, source.outputs)
    genotypes = [space.sample(jax.random.key(i)) for i in range(options.architectures)]
    for seed in range(options.seeds):
        draw = scorer.draw(seed)
        batches = []
        for number in range(options.batches):
            image_key, noise_key = jax.random.split(jax.random.fold_in(draw.key, number))
            images, gaussian = source.batch(image_key, options.batch), noise.batch(noise_key, options.batch)
            batches.append([draw._replace(batch=b) for b in (images, images._replace(y=gaussian.y), gaussian)])
        for genotype, number in itertools.product(genotypes, range(options.batches)):
            key = (str(seed), space.format(genotype), str(number))
            if key in done:
                continue
            values = [scorer.score(batch, [genotype])[0]["ntk-one-batch"] for batch in batches[number]]
            with path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([space.name, *key, *values])


def by_kind(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Returns for each kind the values, (seeds, architectures, batches)."""
    seeds, batches = ({row[name] for row in rows} for name in ("seed", "batch"))
    shape = (len(seeds), -1, len(batches))
    return {kind: np.array([float(row[kind]) for row in rows]).reshape(shape) for kind in KINDS}


def compare(rows: list[dict[str, str]]) -> dict[str, dict[str, list[float]]]:
    """Returns for each comparison its figures, each as mean and standard deviation over initialisations."""
    values = by_kind(rows)
    pairs = {f"{a} / {b}": (values[a], values[b]) for a, b in PAIRS}
    found = {}
    for name, (a, b) in pairs.items():
        found[f"{name}, one batch"] = correlations(a[:, :, 0], b[:, :, 0])
        found[f"{name}, mean of batches"] = correlations(a.mean(axis=2), b.mean(axis=2))
    for kind in KINDS if values[KINDS[0]].shape[2] > 1 else ():
        found[f"{kind}, two batches"] = correlations(values[kind][:, :, 0], values[kind][:, :, 1])
    return found


def correlations(a: np.ndarray, b: np.ndarray) -> dict[str, list[float]]:
    """Returns Pearson, Pearson of the logarithms and Spearman over architectures, mean and deviation over seeds."""
    pairs = list(zip(a, b, strict=True))
    figures = {
        name: [np.corrcoef(change(x), change(y))[0, 1] for x, y in pairs]
        for name, change in {"Pearson": np.asarray, "Pearson of logarithms": np.log, "Spearman": stats.rankdata}.items()
    }
    spread = {name: np.std(found, ddof=1) if len(found) > 1 else 0.0 for name, found in figures.items()}
    return {name: [float(np.mean(found)), float(spread[name])] for name, found in figures.items()}


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Writes all figures as Markdown."""
    names = list(next(iter(next(iter(results.values())).values())))
    lines = [f"| space | values compared | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
    for space, comparisons in results.items():
        for comparison, figures in comparisons.items():
            cells = " | ".join("{:.3f} ± {:.3f}".format(*figures[name]) for name in names)
            lines.append(f"| {space} | {comparison} | {cells} |")
    if any("two batches" in name for name in next(iter(results.values()))):
        lines += ["", *corrected(results)]
    return "\n".join(lines) + "\n"


def corrected(results: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """Divides the correlations of logarithms over one batch by how far two batches of the same kind agree.

    Returns:
        Lines of Markdown.

    References:
        Spearman, "The proof and measurement of association between two things", 1904, for the correction for
        attenuation.
    """
    lines = [
        "Pearson of logarithms, one batch, corrected for attenuation:", "",
        f"| space | {' | '.join(f'{a} / {b}' for a, b in PAIRS)} |", "| --- |" + " --- |" * len(PAIRS),
    ]  # fmt: skip
    for space, comparisons in results.items():
        means = {name: figures["Pearson of logarithms"][0] for name, figures in comparisons.items()}
        agree = {kind: means[f"{kind}, two batches"] for kind in KINDS}
        cells = [f"{means[f'{a} / {b}, one batch'] / np.sqrt(agree[a] * agree[b]):.2f}" for a, b in PAIRS]
        lines.append(f"| {space} | {' | '.join(cells)} |")
    return lines


def figure(rows: list[dict[str, str]], names: tuple[str, ...]) -> Figure:
    """Draws the means over batches against each other, a column for each space, a colour for each initialisation."""
    drawn = Figure(figsize=(3.4 * len(names), 6.8), layout="constrained")
    for column, name in enumerate(names):
        values = by_kind([row for row in rows if row["space"] == name])
        for row, (a, b) in enumerate(PAIRS):
            axes = drawn.add_subplot(len(PAIRS), len(names), row * len(names) + column + 1)
            for x, y in zip(values[a].mean(axis=2), values[b].mean(axis=2), strict=True):
                axes.scatter(x, y, s=9, alpha=0.6, linewidths=0)
            axes.set(xscale="log", yscale="log", xlabel=f"T~, {a}", ylabel=f"T~, {b}")
            axes.grid(alpha=0.3)
            if row == 0:
                axes.set_title(name)
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
