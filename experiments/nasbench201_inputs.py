"""Compares inputs as data of the default search: noise, images, and images changed in one respect at a time.

    python experiments/nasbench201_inputs.py --table nasbench201.csv.gz --images cifar10.npz

For each kind of input the objective is computed for the 871 different cells without average pooling, in a few draws of
parameters, batch and probe, and hundreds of searches are simulated on these values as in nasbench201_simulated.py.
Writes into experiments/results/nasbench201_inputs; values that are there are not computed again. Expected:
experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from nasbench201_simulated import COLUMNS, Cells, all_cells, compute, noise, simulate
from scipy.stats import spearmanr

from nasi_jax import data
from nasi_jax.tabular import Table


def flattened(x: np.ndarray) -> np.ndarray:
    """Returns images whose mean spectrum is flat, and whose colours are uncorrelated at every frequency."""
    waves = np.fft.fft2(x, axes=(1, 2))
    powers = np.einsum("nhwc,nhwd->hwcd", waves, waves.conj()) / len(x) / x.shape[1] / x.shape[2]
    values, vectors = np.linalg.eigh(powers)
    scales = (vectors / np.sqrt(values + 1e-3)[..., None, :]) @ vectors.conj().swapaxes(-1, -2)
    return np.fft.ifft2(np.einsum("hwcd,nhwd->nhwc", scales, waves), axes=(1, 2)).real


def random_phases(x: np.ndarray) -> np.ndarray:
    """Returns images with the amplitudes of their spectra, and with phases of noise: smooth, without shapes."""
    generator = np.random.default_rng(1)
    phases = np.angle(np.fft.fft2(generator.normal(size=x.shape[:3]), axes=(1, 2)))[..., None]
    return np.fft.ifft2(np.abs(np.fft.fft2(x, axes=(1, 2))) * np.exp(1j * phases), axes=(1, 2)).real


def shuffled(x: np.ndarray) -> np.ndarray:
    """Returns images with their places exchanged, in all of them alike: correlated as before, but not smooth."""
    order = np.random.default_rng(2).permutation(x.shape[1] * x.shape[2])
    return x.reshape(len(x), len(order), -1)[:, order].reshape(x.shape)


def mixed(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what mixes images with noise, of which the share of the variance is given."""

    def mix(x: np.ndarray) -> np.ndarray:
        return np.sqrt(1 - share) * x + np.sqrt(share) * np.random.default_rng(3).normal(size=x.shape)

    return mix


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "images": lambda x: x,
    "images less the mean image, each pixel of variance 1": lambda x: (x - x.mean(0)) / x.std(0),
    "images, each of mean 0 and variance 1": lambda x: (
        (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 1e-3)
    ),
    "images of random phases": random_phases,
    "images, their mean spectrum flat": flattened,
    "images, their places exchanged": shuffled,
    "images, a tenth of the variance noise": mixed(0.1),
    "images, half of the variance noise": mixed(0.5),
}
"""Changes of images of mean 0 and variance 1 over all of them."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare inputs of the default search.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        images: an .npz of real images with x and y.
        draws: draws of parameters, batch and probe.
        searches: simulated searches for each kind of input.
        out: where the results go.
        smoke: tiny networks and few searches, to see that everything works.
    """

    table: pathlib.Path
    images: pathlib.Path
    draws: int = 3
    searches: int = 900
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_inputs")
    smoke: bool = False


def main(options: Options) -> None:
    """Computes what is missing, simulates, and writes the results."""
    cells = all_cells()
    kinds = sources(options)
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / "objective.json"
    record: dict[str, list[list[float]]] = json.loads(stored.read_text()) if stored.exists() else {}
    # all kinds by one draw before the next draw, so that a run that is cut off compares them too
    for draw in range(options.draws):
        for name, source in kinds.items():
            if len(record.setdefault(name, [])) <= draw:
                ratios = compute(cells.different, draw, [0], options.smoke, source)[:, 0, 0]
                record[name].append([float(f"{value:.6g}") for value in ratios])
                stored.write_text(json.dumps(record) + "\n")
    found = Table.read(options.table, list(COLUMNS)).lookup(cells.texts)
    accuracies = np.stack([found[column] for column in COLUMNS], axis=1)
    searches = 12 if options.smoke else options.searches
    values = {name: np.array(record[name][: options.draws]) for name in kinds}
    selected = {name: simulated(drawn[:, cells.function], searches) for name, drawn in values.items()}
    text = markdown(selected, values, accuracies, cells)
    (options.out / "table.md").write_text(text)
    figure(selected, accuracies).savefig(options.out / "accuracy.png", dpi=120)
    print(text)


def sources(options: Options) -> dict[str, data.Source]:
    """Returns all kinds of input by name."""
    shape, outputs = noise(options.smoke).image_shape, noise(options.smoke).outputs
    with np.load(options.images) as file:
        examples = data.from_arrays(file["x"], None, labels="random", image_size=shape[0])
    images = np.asarray(examples.prepare(examples.x), np.float64)
    images = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    kinds: dict[str, data.Images] = {}
    for name, change in CHANGES.items():
        kinds[name] = data.from_arrays(change(images).astype(np.float32), None, labels="random", classes=outputs)
    return {"noise": noise(options.smoke), **kinds, "images, whitened": data.whitened(kinds["images"])}


def simulated(values: np.ndarray, searches: int) -> np.ndarray:
    """Returns the cells (searches,) that the default search selects on the values (draws, cells) of an objective.

    Every step takes one of the draws at random, so that a search sees how far they differ.
    """
    each = jnp.asarray(values, jnp.float32)
    return np.asarray(jax.vmap(lambda key: simulate(key, each, 0.0))(jax.random.split(jax.random.key(4), searches)))


def markdown(
    selected: dict[str, np.ndarray], values: dict[str, np.ndarray], accuracies: np.ndarray, cells: Cells
) -> str:
    """Returns the accuracies of selected cells, and how far the objective ranks all of them, as a Markdown table."""
    lines = [
        "| input | " + " | ".join(COLUMNS.values()) + " | Spearman, CIFAR-10 | median objective |",
        "| --- " * (len(COLUMNS) + 3) + "|",
    ]
    kept = [int(np.flatnonzero(cells.function == place)[0]) for place in range(len(cells.different))]
    for name, chosen in selected.items():
        taken = accuracies[chosen]
        figures = [f"{m:.2f} ± {s:.2f}" for m, s in zip(taken.mean(axis=0), taken.std(axis=0, ddof=1), strict=True)]
        tests: list[Any] = [spearmanr(draw, accuracies[kept, 0]) for draw in values[name]]
        ranks = [test.statistic for test in tests]
        lines.append(f"| {name} | {' | '.join(figures)} | {np.mean(ranks):.3f} | {np.median(values[name]):.0f} |")
    return "\n".join(lines) + "\n"


def figure(selected: dict[str, np.ndarray], accuracies: np.ndarray) -> Figure:
    """Draws mean and middle 80 % of the accuracies of selected cells."""
    drawn = Figure(figsize=(12, 0.42 * len(selected) + 1.2), layout="constrained")
    panels = drawn.subplots(1, len(COLUMNS), sharey=True)
    for number, (axes, title) in enumerate(zip(panels, COLUMNS.values(), strict=True)):
        for place, chosen in enumerate(selected.values()):
            taken = accuracies[chosen, number]
            low, high = np.quantile(taken, (0.1, 0.9))
            axes.hlines(place, low, high, color="tab:blue", alpha=0.5, linewidth=4)
            axes.plot(taken.mean(), place, "o", color="black", markersize=5)
        axes.axvline(accuracies[selected["noise"], number].mean(), color="0.6", linestyle="--", linewidth=1)
        axes.set_title(f"{title}, test accuracy (%)", fontsize=9)
        axes.set_yticks(range(len(selected)), list(selected))
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
