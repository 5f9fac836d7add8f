"""Checks NASI's Proposition 1: the loss of gradient descent on wide networks, its bound, and what the trace says.

Trains networks of several widths by full-batch gradient descent on the squared error with eta < 1 / lambda_max, and
compares the loss with equation (4), which holds where the NTK is constant, and with the bound
m n^2 (1 - eta lambda_bar)^q. Then trains networks of random depth, activation and scale with one common eta, and
compares their losses with their traces.

    python experiments/proposition1.py

Writes proposition1.png and proposition1.md into experiments/results; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import tyro
from matplotlib.figure import Figure

from nasi_jax import ntk

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train wide networks under the conditions of Proposition 1.

    Attributes:
        out: folder of the results.
        widths: hidden units.
        seeds: initialisations and data sets for each width.
        steps: steps of gradient descent.
        samples: samples m.
        outputs: outputs n.
        inputs: dimension of the inputs.
        networks: random networks for the comparison of loss and trace.
        common_steps: steps that these are trained for.
    """

    out: pathlib.Path = pathlib.Path("experiments/results")
    widths: tuple[int, ...] = (32, 128, 512, 2048)
    seeds: int = 5
    steps: int = 500
    samples: int = 24
    outputs: int = 4
    inputs: int = 16
    networks: int = 60
    common_steps: int = 50


class Network(NamedTuple):
    """A multi-layer perceptron in NTK parameterisation, less its value at initialisation, on a data set."""

    apply_fn: ntk.ApplyFn
    params: Any
    x: jax.Array
    y: jax.Array


class Course(NamedTuple):
    """Losses of one network over the steps, trained and by (4), and the bound after the first step."""

    loss: np.ndarray
    predicted: np.ndarray
    bound: float


def main(options: Options) -> None:
    """Runs both parts and writes figure and table."""
    courses = {
        width: [course(options, make(options, jax.random.key(seed), width)) for seed in range(options.seeds)]
        for width in options.widths
    }
    for width, found in courses.items():
        for one in found:
            assert (one.loss[1:] <= one.bound).all(), f"the bound is broken at width {width}"
    traces, names, losses = common_rate(options)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(courses, traces, names, losses, options).savefig(options.out / "proposition1.png", dpi=150)
    lines = ["| width | largest gap to (4), share of the first loss | bound / largest loss after a step |"]
    lines += ["| --- | --- | --- |"]
    for width, found in courses.items():
        gaps = np.array([gap(one) for one in found])
        slack = np.mean([one.bound / one.loss[1:].max() for one in found])
        lines.append(f"| {width} | {gaps.mean():.2%} ± {gaps.std(ddof=1):.2%} | {slack:.0f} |")
    correlation, p_value = scipy.stats.spearmanr(traces, losses)
    lines += ["", f"Spearman correlation of trace and loss after {options.common_steps} steps at one eta, over "]
    lines[-1] += f"{options.networks} networks: {correlation:.2f} (p = {p_value:.0e})"
    within = [(name, scipy.stats.spearmanr(traces[names == name], losses[names == name])[0]) for name in ACTIVATIONS]
    lines[-1] += "; " + ", ".join(f"{name} alone: {value:.2f}" for name, value in within) + "."
    (options.out / "proposition1.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def make(
    options: Options, key: jax.Array, width: int, depth: int = 2, activation: str = "tanh", scale: float = 1.0
) -> Network:
    """Draws a network and its data: inputs on the unit sphere, labels uniform in [0, 1]."""
    keys = jax.random.split(key, depth + 3)
    sizes = [options.inputs, *[width] * depth, options.outputs]
    params = [jax.random.normal(k, shape) for k, shape in zip(keys[2:], itertools.pairwise(sizes), strict=True)]
    x = jax.random.normal(keys[0], (options.samples, options.inputs))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    y = jax.random.uniform(keys[1], (options.samples, options.outputs))

    def perceptron(params: Any, x: jax.Array) -> jax.Array:
        # unit sphere: inputs of unit variance, so that the first layer is as those that follow
        hidden = x * math.sqrt(options.inputs)
        for i, weight in enumerate(params):
            hidden = scale * hidden @ weight / math.sqrt(len(weight))
            if i < depth:
                hidden = ACTIVATIONS[activation](hidden)
        return hidden

    return Network(lambda p, x: perceptron(p, x) - perceptron(params, x), params, x, y)


def train(network: Network, eta: float, steps: int) -> np.ndarray:
    """Returns ||Y - f||^2 / m before each step of gradient descent on ||Y - f||^2 / 2, and after the last."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum((network.y - network.apply_fn(params, network.x)) ** 2) / 2

    @jax.jit
    def descend(params: Any) -> jax.Array:
        def step(params: Any, _: None) -> tuple[Any, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - eta * g, params, gradient), value

        return jax.lax.scan(step, params, None, length=steps + 1)[1]

    return 2 * np.asarray(descend(network.params), np.float64) / len(network.x)


def course(options: Options, network: Network) -> Course:
    """Trains one network at 0.9 / lambda_max."""
    apply_fn, params, x, y = network
    kernel = np.asarray(ntk.kernel(apply_fn, params, x, form="full", batch_statistics=False), np.float64)
    size = options.samples * options.outputs
    values, vectors = np.linalg.eigh(kernel.transpose(0, 2, 1, 3).reshape(size, size))
    eta = 0.9 / ntk.largest_eigenvalue(apply_fn, params, x, key=jax.random.key(0))
    weights = (vectors.T @ np.ravel(y)) ** 2
    times = np.arange(options.steps + 1)[:, None]
    predicted = np.sum((1 - eta * values) ** (2 * times) * weights, axis=1) / options.samples
    mean = float(ntk.trace(apply_fn, params, x, batch_statistics=False).value) / size
    bound = options.samples * options.outputs**2 * (1 - eta * mean)
    return Course(train(network, eta, options.steps), predicted, bound)


def gap(one: Course) -> float:
    """Returns the largest distance of the loss from (4), as a share of the first loss."""
    return float(np.max(np.abs(one.loss - one.predicted)) / one.loss[0])


def common_rate(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trains random networks on one data set with one eta; returns their traces, activations and losses."""
    rng = np.random.default_rng(0)
    networks, names, data = [], [], make(options, jax.random.key(1000), 2)
    for i in range(options.networks):
        depth, activation = int(rng.integers(1, 5)), str(rng.choice(list(ACTIVATIONS)))
        drawn = make(options, jax.random.key(i), 256, depth, activation, float(rng.uniform(0.8, 1.3)))
        names.append(activation)
        networks.append(drawn._replace(x=data.x, y=data.y))
    eta = 0.9 / max(ntk.largest_eigenvalue(*network[:3], key=jax.random.key(0)) for network in networks)
    traces = np.array([float(ntk.trace(*network[:3], batch_statistics=False).value) for network in networks])
    losses = np.array([train(network, eta, options.common_steps)[-1] for network in networks])
    return traces, np.array(names), losses


def draw(
    courses: dict[int, list[Course]], traces: np.ndarray, names: np.ndarray, losses: np.ndarray, options: Options
) -> Figure:
    """Draws losses under the bound, the gap to (4) over the width, and loss over trace."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    steps = np.arange(options.steps + 1)
    for number, (width, found) in enumerate(courses.items()):
        left.plot(steps[1:], found[0].loss[1:], color=f"C{number}", label=f"width {width}")
        left.plot(steps[1:], found[0].predicted[1:], color=f"C{number}", linestyle=":")
    left.plot([], [], color="grey", linestyle=":", label="equation (4)")
    left.axhline(courses[options.widths[-1]][0].bound, color="black", linestyle="--", label="bound of Proposition 1")
    left.set(xscale="log", yscale="log", xlabel="step t", ylabel="loss ||Y - f||² / m", title="Loss under the bound")
    left.legend(fontsize=8)
    gaps = np.array([[gap(one) for one in found] for found in courses.values()])
    middle.errorbar(options.widths, gaps.mean(axis=1), gaps.std(axis=1, ddof=1), marker="o", capsize=3)
    slope = np.polyfit(np.log(options.widths), np.log(gaps.mean(axis=1)), 1)[0]
    middle.set(xscale="log", yscale="log", xlabel="width", ylabel="largest gap / first loss")
    middle.set_title(f"Distance from equation (4), slope {slope:.2f}")
    for name in ACTIVATIONS:
        right.scatter(traces[names == name], losses[names == name], s=18, label=name)
    right.legend(fontsize=8)
    right.set(xscale="log", xlabel="trace of the NTK", ylabel=f"loss after {options.common_steps} steps")
    right.set_title(f"One eta, {len(traces)} networks: Spearman {scipy.stats.spearmanr(traces, losses)[0]:.2f}")
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
