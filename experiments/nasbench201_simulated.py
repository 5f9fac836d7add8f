"""Simulates many searches of NAS-Bench-201 on a table of the objective, to see what its noise does to them.

    python experiments/nasbench201_simulated.py --table nasbench201.csv.gz

The participation ratio is computed once for each draw of parameters, batch and probe, for the 871 different cells
without average pooling. Simulated searches read these values in two ways: each keeps one draw, to which single batches
add noise as it is measured for good cells, or each step takes one of all draws. A real search, which keeps its
parameters and draws batches anew, is in between. Writes into experiments/results/nasbench201_simulated; values that are
there are not computed again. Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

from nasi_jax import data, search, spaces
from nasi_jax.programs import Execution, jit_network
from nasi_jax.tabular import Table

COLUMNS = {"cifar10_test": "CIFAR-10", "cifar100_test": "CIFAR-100", "imagenet16_test": "ImageNet16-120"}
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
LADDER = {
    "one round of radius 1, 100 steps": {"rounds": 1, "radius": 1.0, "steps": 100},
    "one round of radius 1": {"rounds": 1, "radius": 1.0},
    "4 rounds of radius 3": {},
}
QUANTILES = (0.1, 0.5, 0.9)
RADII = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
SETTINGS = {
    "the default: 4 rounds of radius 3": {},
    "4 rounds of radius 2": {"radius": 2.0},
    "4 rounds of radius 1.5": {"radius": 1.5},
    "3 rounds of radius 2": {"rounds": 3, "radius": 2.0},
    "8 rounds of radius 3": {"rounds": 8},
    "one round of radius 6": {"rounds": 1, "radius": 6.0},
    "4 rounds of radius 3, 1600 steps": {"steps": 1600},
    "4 rounds of radius 1.5, 1600 steps": {"steps": 1600, "radius": 1.5},
    "4 rounds of radius 1.5, least squares": {"radius": 1.5, "least_squares": True},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Simulate searches on a table of the objective.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        draws: draws of parameters, batch and probe, at least 3.
        searches: simulated searches for each setting.
        out: where the results go.
        smoke: tiny networks and few searches, to see that everything works.
    """

    table: pathlib.Path
    draws: int = 3
    searches: int = 900
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_simulated")
    smoke: bool = False


@dataclasses.dataclass(frozen=True)
class Cells:
    """All 4,096 cells without average pooling.

    Attributes:
        texts: their text forms.
        different: one of those that compute the same, for each function.
        function: for each cell the place of its function in `different`, (4096,).
    """

    texts: Sequence[str]
    different: Sequence[str]
    function: np.ndarray


def all_cells() -> Cells:
    """Lists the cells; cell number sum_i o_i 4^(5 - i) has operation o_i on edge i."""
    space = spaces.get("nasbench201")
    texts = [_text(choices) for choices in itertools.product(OPERATIONS, repeat=len(EDGES))]
    places: dict[str, int] = {}
    different, function = [], []
    for text in texts:
        name = space.canonical(space.parse(text))
        if name not in places:
            places[name] = len(different)
            different.append(text)
        function.append(places[name])
    return Cells(texts, different, np.array(function))


def _text(choices: Sequence[str]) -> str:
    return "+".join(
        "|" + "".join(f"{choice}~{source}|" for choice, (source, into) in zip(choices, EDGES, strict=True) if into == t)
        for t in (1, 2, 3)
    )


def compute(
    texts: Sequence[str], draw: int, batches: Sequence[int], smoke: bool, source: data.Source | None = None
) -> np.ndarray:
    """Computes the objective of the default search and the trace, (cells, batches, 2), for a draw of the parameters.

    Args:
        texts: the cells.
        draw: seed of the parameters and of the batches.
        batches: numbers of the batches.
        smoke: whether the network is tiny.
        source: where batches come from, of the shapes of `noise`, which it is by default.

    Returns:
        Both figures of every cell on every batch.
    """
    space, strategy, program = _program(smoke)
    source = noise(smoke) if source is None else source
    params = strategy.init_params(space, source, jax.random.key(1000 + draw))
    samples = []
    for batch in batches:
        batch_key, probe_key = jax.random.split(jax.random.fold_in(jax.random.key(7), 100 * draw + batch))
        samples.append((source.batch(batch_key, strategy.batch), probe_key))
    weights = [jax.tree.map(np.asarray, space.encode(space.parse(text))) for text in texts]
    jax.block_until_ready(program(params, weights[0], *samples[0]))  # before threads would compile one each
    with ThreadPoolExecutor(3) as threads:
        pairs = [(w, sample) for w in weights for sample in samples]
        found = list(threads.map(lambda pair: np.array(program(params, pair[0], *pair[1])), pairs))
    return np.reshape(found, (len(texts), len(samples), 2))


def noise(smoke: bool) -> data.Gaussian:
    """Returns what the default search reads."""
    return data.Gaussian((16, 16, 3), 3 if smoke else 10)


@functools.cache
def _program(smoke: bool) -> tuple[spaces.SearchSpace, search.NASI, Callable[..., search.Measurement]]:
    """Returns space, strategy and what computes the objective, one program for all cells and batches."""
    space, source = spaces.get("nasbench201"), noise(smoke)
    strategy = search.NASI(batch=4, size=space.Size(2, 1)) if smoke else search.NASI()
    module = strategy.one_shot(space, source, Execution("branches"))

    def value(params: object, weights: spaces.Weights, batch: data.Batch, key: jax.Array) -> search.Measurement:
        def network(p: object, w: spaces.Weights, x: jax.Array) -> jax.Array:
            outputs: jax.Array = module.apply({"params": p}, x, w)  # type: ignore[assignment, arg-type]
            return outputs

        with jax.default_matmul_precision("highest"):
            return search.measure(
                "participation-ratio", network, params, weights, search.Sample(batch, source.loss, key)
            )

    return space, strategy, jit_network(value)


@functools.partial(jax.jit, static_argnames=("steps", "rounds", "least_squares"))
def simulate(
    key: jax.Array,
    values: jax.Array,
    noise: float,
    steps: int = 800,
    rounds: int = 4,
    radius: float = 3.0,
    least_squares: bool = False,
) -> jax.Array:
    """Searches as `search.NASI` does with the score-function estimator, on known values.

    Args:
        key: typed random key.
        values: objective of each cell in some draws, (draws, 4096), of which each step takes one at random.
        noise: standard deviation of the logarithm of one measurement.
        steps: of all rounds.
        rounds: closed-form steps.
        radius: of each.
        least_squares: whether the gradient is that of a linear fit to the values of a round, in which what other edges
            do to a value does not count as noise, and not the score function's mean.

    Returns:
        Number of the selected cell.
    """
    length = -(-steps // rounds)
    transformation = search.normalised_expected_gradient(length, radius)
    place = jnp.array([4 ** (5 - edge) for edge in range(6)])

    def take_round(origin: spaces.Alphas, round_key: jax.Array) -> tuple[spaces.Alphas, None]:
        def step(carry: tuple, keys: jax.Array) -> tuple[tuple, tuple]:
            moved, state, total, count = carry
            sample_key, draw_key, noise_key = jax.random.split(keys, 3)
            weights, score = search.sample_discrete(sample_key, origin)
            draw = jax.random.randint(draw_key, (), 0, len(values))
            value = values[draw, weights["cell"].argmax(axis=1) @ place] * jnp.exp(noise * jax.random.normal(noise_key))
            advantage = jnp.where(count > 0, value - total / jnp.maximum(count, 1), 0)
            gradient = jax.tree.map(lambda s: -advantage * s, score)
            updates, state = transformation.update(gradient, state)
            return (optax.apply_updates(moved, updates), state, total + value, count + 1), (score["cell"], value)

        begun = origin, transformation.init(origin), 0.0, 0
        (moved, *_), (scores, found) = jax.lax.scan(step, begun, jax.random.split(round_key, length))
        change = optax.tree.sub(moved, origin)
        if least_squares:
            change = {"cell": _fitted(scores.reshape(length, -1), found, origin["cell"])}
        scale = radius / jnp.maximum(optax.tree.norm(change), 1e-30)
        return optax.tree.add_scale(origin, scale, change), None

    alphas, _ = jax.lax.scan(take_round, {"cell": jnp.zeros((6, 4))}, jax.random.split(key, rounds))
    return alphas["cell"].argmax(axis=1) @ place


def _fitted(scores: jax.Array, values: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the gradient by the logits of the expectation of a linear function that fits the values.

    Scores are the one-hot choices less their probabilities; their covariance, which is known, turns slopes to gradient.
    """
    probabilities = jax.nn.softmax(logits)
    products = scores.T @ scores + 1e-3 * len(scores) * jnp.eye(scores.shape[1])
    slopes = jnp.linalg.solve(products, scores.T @ (values - values.mean())).reshape(logits.shape)
    return probabilities * (slopes - jnp.sum(probabilities * slopes, axis=1, keepdims=True))


def climbed(cell: int, values: np.ndarray) -> int:
    """Returns the cell where exchanging single operations raises the objective no more."""
    while True:
        around = [cell + (new - cell // 4**i % 4) * 4**i for i in range(6) for new in range(4)]
        best = max(around, key=lambda place: values[place])
        if values[best] <= values[cell]:
            return cell
        cell = best


def main(options: Options) -> None:
    """Computes what is missing, simulates, and writes the results."""
    cells = all_cells()
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / "objective.json"
    record: dict[str, Any] = (
        json.loads(stored.read_text()) if stored.exists() else {"cells": cells.different, "ratio": [], "trace": []}
    )
    for draw in range(len(record["ratio"]), options.draws):
        ratios, traces = compute(cells.different, draw, [0], options.smoke)[:, 0].T
        record["ratio"].append([float(f"{value:.6g}") for value in ratios])
        record["trace"].append([float(f"{value:.6g}") for value in traces])
        stored.write_text(json.dumps(record) + "\n")
    if "noise" not in record:
        best = np.argsort(record["ratio"][0])[-200:]
        some = [cells.different[int(i)] for i in np.random.default_rng(0).choice(best, 40, replace=False)]
        logs = np.log(compute(some, 0, range(6), options.smoke)[..., 0])
        record["noise"] = float(np.sqrt(np.mean(np.var(logs - logs.mean(axis=0), axis=1, ddof=1))))
        stored.write_text(json.dumps(record) + "\n")
    values, traces = (np.array(record[name])[:, cells.function] for name in ("ratio", "trace"))
    found = Table.read(options.table, list(COLUMNS)).lookup(cells.texts)
    accuracies = np.stack([found[column] for column in COLUMNS], axis=1)
    searches = 12 if options.smoke else options.searches
    rows = simulated(values, record["noise"], searches)
    text = markdown(rows, accuracies, values)
    text += "\n" + markdown(redrawn(values, searches), accuracies, values)
    text += "\n" + markdown(ladder(values, traces, record["noise"], searches), accuracies, values)
    text += "\n" + noises(values, record["noise"])
    (options.out / "table.md").write_text(text)
    figure(rows, accuracies).savefig(options.out / "simulated.png", dpi=120)
    print(text)


def simulated(values: np.ndarray, noise: float, searches: int) -> dict[str, np.ndarray]:
    """Returns the selected cells (searches,) of every setting and of other ways to select by one draw."""
    draws = len(values)
    keys = jax.random.split(jax.random.key(0), searches)
    each = jnp.asarray(values, jnp.float32)[jnp.arange(searches) % draws, None]
    rows: dict[str, np.ndarray] = {}
    settings = SETTINGS | {f"4 rounds of radius {radius:g}": {"radius": radius} for radius in RADII}
    for name, changes in settings.items():
        run = jax.vmap(functools.partial(simulate, noise=noise, **changes))
        rows[name] = np.asarray(run(keys, each))
    default = next(iter(SETTINGS))
    rows[f"{default}, then hill climbing by the objective"] = np.array([
        climbed(int(cell), values[i % draws]) for i, cell in enumerate(rows[default])
    ])
    rows["the largest objective of all"] = values.argmax(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.integers(values.shape[1], size=(searches, 100))
    rows["the largest objective of 100 random cells"] = np.array([
        cells[values[i % draws][cells].argmax()] for i, cells in enumerate(drawn)
    ])
    rows["3x3 everywhere, the most parameters"] = np.array([values.shape[1] - 1])
    return rows


def redrawn(values: np.ndarray, searches: int) -> dict[str, np.ndarray]:
    """Returns the selected cells where each step takes one of all draws, so that a search follows their mean."""
    keys, mean = jax.random.split(jax.random.key(2), searches), values.mean(axis=0)
    each = jnp.asarray(values, jnp.float32)
    rows = {
        name: np.asarray(jax.vmap(lambda key, changes=changes: simulate(key, each, 0.0, **changes))(keys))
        for name, changes in SETTINGS.items()
    }
    default = next(iter(SETTINGS))
    rows[f"{default}, then hill climbing by the mean"] = np.array([climbed(int(cell), mean) for cell in rows[default]])
    rows["the largest mean of all"] = mean.argmax()[None]
    return rows


def ladder(values: np.ndarray, traces: np.ndarray, noise: float, searches: int) -> dict[str, np.ndarray]:
    """Returns the selected cells, step by step from NASI's objective (13) with one round to the default.

    nu is a quantile of the traces of all cells. Traces have no noise of a batch here, which favours them.
    """
    keys, which = jax.random.split(jax.random.key(1), searches), np.arange(searches) % len(values)
    objectives = {}
    for mu in (1, 2):
        for quantile in QUANTILES:
            nu = np.quantile(traces, quantile, axis=1, keepdims=True)
            name = f"objective (13), mu = {mu}, nu the {quantile:g} quantile"
            objectives[name] = (traces - mu * np.maximum(0, traces - nu), 0.0)
    objectives["participation ratio"] = (values, noise)
    rows = {}
    for name, (objective, error) in objectives.items():
        each = jnp.asarray(objective[which, None] / np.abs(objective).max(), jnp.float32)
        for how, changes in LADDER.items():
            rows[f"{name}; {how}"] = np.asarray(
                jax.vmap(functools.partial(simulate, noise=error, **changes))(keys, each)
            )
    return rows


def markdown(rows: dict[str, np.ndarray], accuracies: np.ndarray, values: np.ndarray) -> str:
    """Returns accuracies of selected cells as a Markdown table."""
    lines = [
        "| selected by | " + " | ".join(COLUMNS.values()) + " | objective, log |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    logs = np.log(np.maximum(values, 1e-3))
    for name, selected in rows.items():
        taken = accuracies[selected]
        spread = taken.std(axis=0, ddof=1) if len(selected) > 1 else [float("nan")] * 3
        cells = [
            f"{m:.2f}" + (f" ± {s:.2f}" if np.isfinite(s) else "")
            for m, s in zip(taken.mean(axis=0), spread, strict=True)
        ]
        if len(selected) == 1:
            level = logs[:, selected[0]].mean()
        else:
            level = np.mean([logs[i % len(logs), cell] for i, cell in enumerate(selected)])
        lines.append(f"| {name} | {' | '.join(cells)} | {level:.2f} |")
    return "\n".join(lines) + "\n"


def noises(values: np.ndarray, noise: float) -> str:
    """Returns how far draws agree as a Markdown table.

    Cells are chosen by one draw and compared in others: a choice by the same draws would turn them against each other.
    """
    different = np.unique(np.log(np.maximum(values, 1e-3)), axis=1)
    top = []
    for draw, others in enumerate(np.delete(different, i, axis=0) for i in range(len(different))):
        top.append(_agreement(others[:, np.argsort(-different[draw])[:100]]))
    lines = [
        "| what | log of the objective |",
        "| --- | --- |",
        f"| correlation of two draws, all cells | {_agreement(different):.2f} |",
        f"| correlation of two draws, the 100 best cells of a third one | {np.mean(top):.2f} |",
        f"| standard deviation from batch to batch, 40 of the 200 best cells | {noise:.3f} |",
    ]
    return "\n".join(lines) + "\n"


def _agreement(draws: np.ndarray) -> float:
    """Returns the mean correlation of pairs of draws."""
    return float(np.mean(np.corrcoef(draws)[np.triu_indices(len(draws), 1)]))


def figure(rows: dict[str, np.ndarray], accuracies: np.ndarray) -> Figure:
    """Draws the accuracy over the radius, with the spread of searches, beside the largest objective."""
    drawn = Figure(figsize=(12, 3.8), layout="constrained")
    for number, (axes, title) in enumerate(zip(drawn.subplots(1, 3), COLUMNS.values(), strict=True)):
        taken = [accuracies[rows[f"4 rounds of radius {radius:g}"], number] for radius in RADII]
        mean, spread = np.array([t.mean() for t in taken]), np.array([t.std(ddof=1) for t in taken])
        axes.plot(RADII, mean, marker="o", label="4 rounds, mean of simulated searches")
        axes.fill_between(RADII, mean - spread, mean + spread, alpha=0.2, label="one standard deviation")
        largest = accuracies[rows["the largest objective of all"], number].mean()
        axes.axhline(largest, color="tab:red", linestyle="--", label="largest objective of a draw")
        axes.set(xlabel="radius of a round", title=f"{title}, test accuracy (%)")
        axes.grid(alpha=0.3)
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
