"""Tries constraints of the trace in NASI as published, all of them on the same gradients.

    python experiments/nasbench201_constraint.py --table nasbench201.csv.gz

NASI takes every gradient at the logits where it begins, so mu and nu change only how gradients are added up. The
gradient of the trace through a Gumbel-Softmax sample is computed once for each step of each seed, equation 15, and
every constraint then makes its own closed-form step of these, equations 13 and 18. This is done for one-shot networks
of several depths, in both parameterisations.

Beside the accuracies stands what needs none: how far the steps of different seeds agree, as the mean cosine between
them. Gradients that are there are not computed again. Writes a table into
experiments/results/nasbench201_constraint.md; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from nasbench201_search import COLUMNS

from nasi_jax import data, search, spaces
from nasi_jax.tabular import Table

Rule = Callable[[np.ndarray], np.ndarray]
"""Takes the traces of a search, (steps,), to nu of each step, (steps,)."""


def quantile(share: float) -> Rule:
    """Returns nu as a quantile of all traces of the search."""
    return lambda traces: np.full(len(traces), np.quantile(traces, share))


def running(average: Callable[[np.ndarray], Any]) -> Rule:
    """Returns nu as an average of 0 and the traces before each step."""
    return lambda traces: np.array([average(np.append(traces[:step], 0)) for step in range(len(traces))])


RULES: dict[str, Rule] = {
    "100": lambda traces: np.full(len(traces), 100.0),
    **{f"the {share:g} quantile": quantile(share) for share in (0.1, 0.25, 0.5, 0.75, 0.9)},
    "running mean": running(np.mean),
    "running median": running(np.median),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Try constraints of the trace.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        cells: cells a stage of the one-shot networks.
        parameterisations: of their weights.
        channels: of the networks.
        batch: inputs in a batch.
        steps: of a long search; a short one has a quarter of them.
        seeds: of the searches.
        gradients: folder of the gradients.
        out: the table to write.
        smoke: a few steps of tiny networks, to see that everything works.
    """

    table: pathlib.Path
    cells: tuple[int, ...] = (1, 3, 5)
    parameterisations: tuple[str, ...] = ("standard", "ntk")
    channels: int = 8
    batch: int = 32
    steps: int = 400
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    gradients: pathlib.Path = pathlib.Path("runs/nasbench201_constraint")
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_constraint.md")
    smoke: bool = False


def main(options: Options) -> None:
    """Computes what is missing, and writes the table."""
    if options.smoke:
        options = dataclasses.replace(
            options, cells=(1,), parameterisations=("ntk",), channels=2, batch=4, steps=8, seeds=(0, 1)
        )
    table = Table.read(options.table, list(COLUMNS))
    options.gradients.mkdir(parents=True, exist_ok=True)
    lines = [
        f"| cells a stage | weights | mu | nu | steps | agreement | {' | '.join(COLUMNS.values())} |",
        "| --- " * (6 + len(COLUMNS)) + "|",
    ]
    for cells in options.cells:
        for parameterisation in options.parameterisations:
            found = gradients(options, cells, parameterisation)
            for mu in (0, 1, 2):
                for name, rule in RULES.items() if mu else [("", RULES["100"])]:
                    for steps in (options.steps // 4, options.steps):
                        row = tried(found, mu, rule, steps, table)
                        lines.append(f"| {cells} | {parameterisation} | {mu} | {name} | {steps} | {' | '.join(row)} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def gradients(options: Options, cells: int, parameterisation: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the traces (steps,) and their gradients by the logits (steps, edges, operations) of every seed."""
    space = spaces.get("nasbench201")
    source = data.Gaussian((8, 8, 3) if options.smoke else (16, 16, 3))
    strategy = search.NASI(
        steps=options.steps, rounds=1, radius=1.0, batch=options.batch, objective="one-batch", estimator="soft",
        parameterisation=parameterisation, size=space.Size(options.channels, cells),
    )  # fmt: skip
    module = strategy.one_shot(space, source, strategy.execution(space, source))

    def network(params: Any, weights: spaces.Weights, x: jax.Array) -> jax.Array:
        outputs: Any = module.apply({"params": params}, x, weights)
        return outputs

    @jax.jit
    def step(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch_key, sample_key, probe_key = jax.random.split(key, 3)
        sample = search.Sample(source.batch(batch_key, options.batch), source.loss, probe_key)
        with jax.default_matmul_precision("highest"):
            weights, pullback = jax.vjp(
                lambda alphas: search.gumbel_softmax(sample_key, alphas, 1.0, "soft"), space.alphas()
            )
            measured, slopes = search.measure_with_gradient("one-batch", network, params, weights, sample)
            return measured.trace, pullback(slopes.trace)[0]["cell"]

    found = []
    for seed in options.seeds:
        path = options.gradients / f"c{options.channels}-n{cells}-{parameterisation}-b{options.batch}-{seed}.npz"
        if not path.exists():
            key = jax.random.key(seed)
            params = strategy.init_params(space, source, jax.random.fold_in(key, options.steps))
            rows = [jax.device_get(step(params, jax.random.fold_in(key, number))) for number in range(options.steps)]
            np.savez(path, trace=np.stack([t for t, _ in rows]), gradient=np.stack([g for _, g in rows]))
            print(path, flush=True)
        with np.load(path) as file:
            found.append((file["trace"], file["gradient"]))
    return found


def tried(found: list[tuple[np.ndarray, np.ndarray]], mu: float, rule: Rule, steps: int, table: Table) -> list[str]:
    """Returns the agreement of seeds and the accuracies of the cells that searches select, mean and deviation."""
    space = spaces.get("nasbench201")
    changes: list[list[np.ndarray]] = []
    for traces, slopes in found:
        parts = range(0, len(traces), steps)
        changes.append([
            closed_form(slopes[i : i + steps], traces[i : i + steps], mu, rule(traces[i : i + steps])) for i in parts
        ])
    texts = [space.format(space.decode({"cell": jnp.asarray(c)})) for of_seed in changes for c in of_seed]
    taken = table.lookup(texts)
    figures = [f"{taken[column].mean():.2f} ± {taken[column].std(ddof=1):.2f}" for column in COLUMNS]
    return [f"{agreement(changes):.2f}", *figures]


def closed_form(gradients: np.ndarray, traces: np.ndarray, mu: float, nu: np.ndarray) -> np.ndarray:
    """Returns the step of equation 18, of the gradients of the penalised trace, equation 13."""
    penalised = gradients * (1 - mu * (traces > nu))[:, None, None]
    norms = np.maximum.accumulate(np.linalg.norm(penalised.reshape(len(penalised), -1), axis=1))
    return np.mean(penalised / np.maximum(norms, 1e-30)[:, None, None], axis=0)


def agreement(changes: list[list[np.ndarray]]) -> float:
    """Returns the mean cosine between steps of different seeds."""
    unit = [[change.ravel() / max(np.linalg.norm(change), 1e-30) for change in of_seed] for of_seed in changes]
    pairs = [a @ b for i, first in enumerate(unit) for second in unit[:i] for a in first for b in second]
    return float(np.mean(pairs))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
