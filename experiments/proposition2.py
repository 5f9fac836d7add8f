"""Checks NASI's Proposition 2: how far the NTK traces of two data distributions are apart, beside its bound.

P and Q are isotropic in the unit ball and differ in the density of the radius, so that Z, the integral of |P - Q|, is
one integral over the radius. The gap of the mean traces is compared with the bound Z L / n_0, as the input dimension
n_0, Z and the width grow. With images, their gap from Gaussian noise is added; both are scaled into the unit ball, and
Z is at most 2.

    python experiments/proposition2.py --images cifar10.npz

Writes proposition2.png and proposition2.md into experiments/results; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy.integrate import quad

from nasi_jax import data, ntk

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}
LAYERS = 3


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare traces between data distributions.

    Attributes:
        out: folder of the results.
        images: .npz file with images `x`; left out without.
        dimensions: input dimensions n_0.
        powers: radii of Q have the density k r^(k - 1) for these k; that of P has k = 1.
        widths: hidden units.
        samples: samples of each distribution.
        seeds: initialisations and samples for each size.
    """

    out: pathlib.Path = pathlib.Path("experiments/results")
    images: pathlib.Path | None = None
    dimensions: tuple[int, ...] = (8, 32, 128, 512)
    powers: tuple[int, ...] = (2, 4, 16)
    widths: tuple[int, ...] = (16, 64, 256, 1024)
    samples: int = 256
    seeds: int = 5


def main(options: Options) -> None:
    """Measures all gaps and writes figure and table."""
    dimension, power, width = options.dimensions[1], options.powers[1], options.widths[-1]

    def gaps(activation: str, dimension: int, power: int, width: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(0), options.seeds)
        return np.array([
            radial_gap(k, ACTIVATIONS[activation], dimension, power, width, options.samples) for k in keys
        ])

    over_dimension = {a: [gaps(a, n, power, width) for n in options.dimensions] for a in ACTIVATIONS}
    over_power = {a: [gaps(a, dimension, k, width) for k in options.powers] for a in ACTIVATIONS}
    over_width = {a: [gaps(a, dimension, power, w) for w in options.widths] for a in ACTIVATIONS}
    lines = ["| n_0 | Z | width | " + " | ".join(f"gap, {a}" for a in ACTIVATIONS) + " | bound Z L / n_0 |"]
    lines += ["| --- " * (len(ACTIVATIONS) + 4) + "|"]
    sizes = [(over_dimension, [(n, power, width) for n in options.dimensions])]
    sizes += [(over_power, [(dimension, k, width) for k in options.powers])]
    sizes += [(over_width, [(dimension, power, w) for w in options.widths])]
    for table, rows in sizes:
        for row, (n, k, w) in enumerate(rows):
            figures = [f"{g.mean():.2g} ± {g.std(ddof=1):.1g}" for g in (table[a][row] for a in ACTIVATIONS)]
            lines.append(f"| {n} | {distance(k):.3f} | {w} | {' | '.join(figures)} | {bound(distance(k), n):.2g} |")
    if options.images is not None:
        lines += ["", *image_lines(options)]
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options, over_dimension, over_power, over_width).savefig(options.out / "proposition2.png", dpi=150)
    (options.out / "proposition2.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def distance(power: int) -> float:
    """Returns Z between radii of density 1 and of density k r^(k - 1)."""
    crossing = power ** (-1 / (power - 1))
    return quad(lambda r: abs(1 - power * r ** (power - 1)), 0, 1, points=[crossing])[0]


def bound(z: float, dimension: int) -> float:
    """Returns the right side of Proposition 2, with D(1) = L."""
    return z * LAYERS / dimension


def mean_trace(key: jax.Array, activation: Callable[[jax.Array], jax.Array], x: jax.Array, width: int) -> float:
    """Returns the trace, over samples and outputs, of a perceptron in NTK parameterisation."""
    sizes = [x.shape[1], *[width] * (LAYERS - 1), 2]
    keys = jax.random.split(key, LAYERS)
    params = [jax.random.normal(k, shape) for k, shape in zip(keys, itertools.pairwise(sizes), strict=True)]

    def perceptron(params: Any, x: jax.Array) -> jax.Array:
        for i, weight in enumerate(params):
            x = x @ weight / math.sqrt(len(weight))
            x = activation(x) if i < LAYERS - 1 else x
        return x

    diagonal = ntk.kernel(perceptron, params, x, form="diagonal", batch_statistics=False)
    return float(jnp.mean(diagonal)) / sizes[-1]


def radial_gap(
    key: jax.Array, activation: Callable[[jax.Array], jax.Array], dimension: int, power: int, width: int, samples: int
) -> float:
    """Returns the gap of one network between P and Q, whose samples share their directions."""
    network_key, data_key = jax.random.split(key)
    directions = jax.random.normal(data_key, (samples, dimension))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    # at the midpoints of equal shares, radii have their distribution's moments but for terms of samples^-2
    shares = ((jnp.arange(samples) + 0.5) / samples)[:, None]
    p = mean_trace(network_key, activation, shares * directions, width)
    q = mean_trace(network_key, activation, shares ** (1 / power) * directions, width)
    return abs(p - q)


def image_lines(options: Options) -> list[str]:
    """Returns a table of the gap between images and noise."""
    assert options.images is not None
    images = data.from_npz(options.images)
    dimension = math.prod(images.image_shape)
    lines = [f"| images and Gaussian noise, n_0 = {dimension} | gap | bound for Z = 2 |", "| --- | --- | --- |"]
    for name, activation in ACTIVATIONS.items():
        found = []
        for key in jax.random.split(jax.random.key(1), options.seeds):
            batch_key, noise_key, network_key = jax.random.split(key, 3)
            x = images.batch(batch_key, options.samples)[0].reshape(options.samples, dimension)
            noise = jax.random.normal(noise_key, x.shape)
            traces = [
                mean_trace(network_key, activation, a / jnp.linalg.norm(a, axis=1).max(), options.widths[-1])
                for a in (x, noise)
            ]
            found.append(abs(traces[0] - traces[1]))
        mean, spread = np.mean(found), np.std(found, ddof=1)
        lines.append(f"| {name} | {mean:.2g} ± {spread:.1g} | {bound(2, dimension):.2g} |")
    return lines


def draw(options: Options, over_dimension: Any, over_power: Any, over_width: Any) -> Figure:
    """Draws the gap beside the bound, over input dimension, distance and width."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    dimension, power = options.dimensions[1], options.powers[1]
    distances = [distance(k) for k in options.powers]
    panels = (
        (
            over_dimension,
            options.dimensions,
            "input dimension n_0",
            [bound(distance(power), n) for n in options.dimensions],
        ),
        (over_power, distances, "distance Z of the distributions", [bound(z, dimension) for z in distances]),
        (over_width, options.widths, "width", [bound(distance(power), dimension)] * len(options.widths)),
    )
    for axes, (table, values, label, bounds) in zip(figure.subplots(1, 3), panels, strict=True):
        for name, gaps in table.items():
            spread = np.array(gaps)
            axes.errorbar(values, spread.mean(axis=1), spread.std(axis=1, ddof=1), marker="o", capsize=3, label=name)
        axes.plot(values, bounds, color="black", linestyle="--", label="bound of Proposition 2")
        axes.set(yscale="log", xlabel=label, ylabel="|tr Θ(P) - tr Θ(Q)| / (m n)")
        if label != "distance Z of the distributions":
            axes.set_xscale("log", base=2)
    figure.axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
