"""Searches GenNAS's synthetic task by evolution, as its authors did, and judges it on cells that it has not seen.

    python experiments/gennas_task.py --table nasbench201.csv.gz --images cifar10.npz

A task is a list of decisions: the noise, and for each stage its width, which of five bases it sums, and their levels,
frequencies, shares and whether images share a draw. It is worth Spearman's correlation of the losses of some cells of
NAS-Bench-201, after a short training, with their accuracies. The best task is then compared with the published ones on
other cells. One program trains every cell on every task: what differs between them is its input.

The authors draw ten frequencies between two ends; here they are equally spaced between them. A search that was
interrupted goes on from the tasks that it has judged.

Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import tyro
from flax import struct

from nasi_jax import data, proxies, search, spaces
from nasi_jax.nn import RUNNING_STATISTICS, STAGES, Style, as_pytorch, initial_statistics
from nasi_jax.programs import choose_execution, jit_network
from nasi_jax.proxies.gennas import STAGE_WEIGHTS, Regression, losses
from nasi_jax.proxies.signals import Dot, GDot, Resize, Sin1D, Sin2D, Stage, Task
from nasi_jax.tabular import Table

NOISES = ("none", "uniform", "gaussian")
NOISE_LEVELS = tuple((np.arange(10) / 10).tolist())
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
LEVELS = tuple(np.round(np.arange(0.5, 3.0, 0.1), 1).tolist())
ENDS = tuple(np.round(np.arange(51) / 100, 2).tolist())
"""Ends of the frequencies, in waves a pixel."""
SHARES = tuple(np.round(np.arange(2, 21) / 20, 2).tolist())
"""Shares of the pixels that are set, one of 4x4 or more."""
MOST_CHANNELS = int(64 * WIDTHS[-1])

_WAVES = (2, len(LEVELS), 2, len(ENDS), len(ENDS))  # whether it is summed, its level, whether local, its ends
_DOTS = (2, len(LEVELS), 2, len(SHARES))
_RESIZE = (2, len(LEVELS))
_STAGE = (len(WIDTHS), *_WAVES, *_WAVES, *_DOTS, *_DOTS, *_RESIZE)


@struct.dataclass(eq=False)
class Genes(spaces.Genotype):
    """A task: the option of each decision of `Tasks`, int32."""

    options: jax.Array


@dataclasses.dataclass(frozen=True)
class Tasks:
    """GenNAS's tasks, with what evolution needs of a space.

    Attributes:
        redrawn: probability with which a mutation draws a decision anew.
    """

    redrawn: float = 0.2

    @property
    def decisions(self) -> tuple[int, ...]:
        """The number of options of each decision: noise, its level, and those of three stages."""
        return (len(NOISES), len(NOISE_LEVELS), *_STAGE * 3)

    def from_decisions(self, options: jax.Array) -> Genes:
        """Returns the task of options."""
        return Genes(options)

    def sample(self, key: jax.Array) -> Genes:
        """Draws a task uniformly."""
        counts = jnp.array(self.decisions)
        return Genes(jax.random.randint(key, counts.shape, 0, counts))

    def mutate(self, key: jax.Array, genotype: Genes) -> Genes:
        """Draws each decision anew with a probability."""
        draw_key, coin_key = jax.random.split(key)
        changed = jax.random.bernoulli(coin_key, self.redrawn, genotype.options.shape)
        return Genes(jnp.where(changed, self.sample(draw_key).options, genotype.options))

    def task(self, genotype: Genes) -> Task | None:
        """Returns the task, or None where a stage sums nothing."""
        numbers = iter(np.asarray(genotype.options).tolist())

        def take(values: Any) -> Any:
            return values[next(numbers)]

        noise, noise_level = take(NOISES), take(NOISE_LEVELS)
        stages = []
        for _ in range(3):
            width, bases = take(WIDTHS), []
            for kind in (Sin1D, Sin2D, Dot, GDot, Resize):
                used, level = next(numbers), take(LEVELS)
                options: dict[str, Any] = {} if kind is Resize else {"local": bool(next(numbers))}
                if kind in (Sin1D, Sin2D):
                    low, high = sorted((take(ENDS), take(ENDS)))
                    options |= {"frequencies": tuple(np.linspace(low, high, 10).tolist())}
                elif kind in (Dot, GDot):
                    options |= {"partial": take(SHARES)}
                bases += [kind(level, **options)] if used else []
            if not bases:
                return None
            stages.append(Stage(width, tuple(bases)))
        return Task((stages[0], stages[1], stages[2]), noise, noise_level)


@dataclasses.dataclass(frozen=True)
class Options:
    """Search a task.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        images: an .npz of images with x and y; Gaussian noise without.
        column: the accuracies that losses are to rank.
        cells: random cells that a task is judged by.
        unseen: other random cells, on which the best task is compared with the published ones.
        population: of the evolution.
        contenders: of a tournament.
        children: tasks that are bred.
        channels: channels of the networks.
        depth: cells a stage.
        batch: images that are fitted.
        image_size: their height and width.
        steps: steps of a training.
        seed: of the cells, the tasks and the parameters.
        out: folder of the results.
        smoke: a few short trainings, to see that everything works.
    """

    table: pathlib.Path
    images: pathlib.Path | None = None
    column: str = "cifar10_test"
    cells: int = 20
    unseen: int = 100
    population: int = 50
    contenders: int = 10
    children: int = 400
    channels: int = 16
    depth: int = 1
    batch: int = 16
    image_size: int = 16
    steps: int = 100
    seed: int = 0
    out: pathlib.Path = pathlib.Path("experiments/results/gennas_task")
    smoke: bool = False


SMOKE = {
    "cells": 4,
    "unseen": 5,
    "population": 3,
    "contenders": 2,
    "children": 2,
    "channels": 2,
    "batch": 4,
    "steps": 4,
}


class Judge:
    """Trains cells of NAS-Bench-201 on tasks, by one program for all of both, as many side by side as scores are.

    Args:
        source: gives the images.
        channels: channels of the networks.
        depth: cells a stage.
        batch: images that are fitted.
        steps: steps of a training.
        every: how many steps there are from one evaluation to the next; by default one evaluation, at the end.
        seed: of the images, the parameters and the tasks.
    """

    def __init__(
        self,
        source: data.Source,
        channels: int,
        depth: int,
        batch: int,
        steps: int,
        every: int | None = None,
        seed: int = 0,
    ):
        space = spaces.get("nasbench201")
        key = jax.random.key(seed)
        self._space, self._key = space, key
        self._x = source.batch(key, batch).x
        self._side = min(8, self._x.shape[1] // 4)
        size, style = space.Size(channels, depth), Style(bare_cells=True)
        one_shot = space.network(None, size, 1, style)
        network = space.network(None, size, 1, style, choose_execution("score", one_shot.capabilities, blocks=False))
        weights = space.encode(space.at(0))
        self._params = as_pytorch(key, jax.jit(network.init)(key, self._x, weights)["params"])

        def stages(weights: Any, params: Any, statistics: Any, x: jax.Array, training: bool) -> tuple[list[Any], Any]:
            left = [STAGES, RUNNING_STATISTICS] if training else [STAGES]
            variables = {"params": params, RUNNING_STATISTICS: statistics}
            _, found = network.apply(variables, x, weights, mutable=left)
            return [found[STAGES][name] for name in sorted(found[STAGES])], found.get(RUNNING_STATISTICS, statistics)

        start = initial_statistics(jax.eval_shape(lambda: stages(weights, self._params, {}, self._x, True)[1]))

        @jit_network
        def fit(weights: Any, params: Any, x: jax.Array, regression: Regression, noise: Any, key: jax.Array) -> Any:
            def noisy(key: jax.Array, x: jax.Array) -> jax.Array:
                uniform, normal = jax.random.uniform(key, x.shape, minval=-1.0), jax.random.normal(key, x.shape)
                return x + noise[0] * uniform + noise[1] * normal

            stages_fn = functools.partial(stages, weights)
            return losses(stages_fn, params, start, x, regression, noisy, key, steps=steps, every=every)

        self._fit = fit

    def curves(self, task: Task, cells: Sequence[Any]) -> Iterator[np.ndarray]:
        """Yields the losses of each cell on a task, (evaluations,)."""
        targets, weights = [], []
        for target, weight in zip(task.targets(self._key, self._x, self._side), STAGE_WEIGHTS, strict=True):
            channels = target.shape[-1]
            padding = MOST_CHANNELS - channels
            targets.append(jnp.pad(target, ((0, 0),) * 3 + ((0, padding),)))
            weights.append(jnp.pad(jnp.full(channels, weight / channels, target.dtype), (0, padding)))
        regression = Regression(tuple(targets), tuple(weights))
        noise = jnp.array([task.noise_level * (task.noise == kind) for kind in NOISES[1:]])

        def fitted(cell: Any) -> np.ndarray:
            weights = self._space.encode(cell)
            return np.asarray(self._fit(weights, self._params, self._x, regression, noise, self._key))

        with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as threads:
            yield from threads.map(fitted, cells)

    def losses(self, task: Task, cells: Sequence[Any]) -> np.ndarray:
        """Returns the last loss of each cell on a task, (cells,)."""
        return np.array([curve[-1] for curve in self.curves(task, cells)])


def main(options: Options) -> None:
    """Searches, judges and writes the results."""
    if options.smoke:
        options = dataclasses.replace(options, **SMOKE)
    space, keys = spaces.get("nasbench201"), jax.random.split(jax.random.key(options.seed), 3)
    drawn = jax.random.choice(keys[0], space.cardinality, (options.cells + options.unseen,), replace=False)
    cells = [space.at(int(place)) for place in drawn]
    names = [space.format(cell) for cell in cells]
    accuracies = np.asarray(Table.read(options.table, [options.column]).lookup(names)[options.column])
    seen = slice(options.cells)
    judge = Judge(images(options), options.channels, options.depth, options.batch, options.steps, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    history = options.out / "history.jsonl"
    found, values = evolve(
        options, keys[1], history, lambda task: correlation(judge, task, cells[seen], accuracies[seen])
    )
    tasks = {"found": found, **{name: proxies.TASKS[name] for name in ("nb101", "combo")}}
    lines = [
        f"The best of the {options.population} first tasks ranks the {options.cells} cells of the search with"
        f" {np.nanmax(values[: options.population]):.3f}, that of all {len(values)} with {np.nanmax(values):.3f}.",
        "",
        f"| task | Spearman, the {options.cells} cells | the {options.unseen} others, 95% interval |",
        "| --- | --- | --- |",
    ]
    for name, task in tasks.items():
        fitted = judge.losses(task, cells)
        chosen = spearman(fitted[seen], accuracies[seen])
        low, high = interval(spearman, fitted[options.cells :], accuracies[options.cells :])
        others = spearman(fitted[options.cells :], accuracies[options.cells :])
        lines.append(f"| {name} | {chosen:.3f} | {others:.3f}, {low:.3f} to {high:.3f} |")
    (options.out / "task.txt").write_text(f"{found}\n")
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def evolve(options: Options, key: jax.Array, history: pathlib.Path, value: Any) -> tuple[Task, np.ndarray]:
    """Runs the evolution, from where its history ends.

    Args:
        options: see `Options`.
        key: typed random key.
        history: a line for each task that was judged.
        value: what a task is worth.

    Returns:
        The best task, and the values of all in their order.
    """
    space: Any = Tasks()
    strategy = search.Evolution(population=options.population, contenders=options.contenders)
    state = strategy.init(key, space)
    done = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    values = []
    with history.open("a") as file:
        for number in range(options.population + options.children):
            genotypes, state = ask(jax.random.fold_in(key, number), state)
            if number < len(done):
                worth = done[number]["value"]
            else:
                task = space.task(jax.tree.map(lambda leaf: leaf[0], genotypes))
                worth = value(task) if task is not None else float("nan")
                file.write(json.dumps({"value": worth, "options": np.asarray(genotypes.options[0]).tolist()}) + "\n")
                file.flush()
            values.append(worth)
            state = tell(state, genotypes, jnp.array([worth]))
    best = space.task(strategy.best(state))
    assert best is not None, "a task of an empty stage is worth NaN"
    return best, np.array(values)


def correlation(judge: Judge, task: Task, cells: list[Any], accuracies: np.ndarray) -> float:
    """Returns what a task is worth: how well smaller losses go with larger accuracies, in either direction."""
    return abs(spearman(judge.losses(task, cells), accuracies))


def spearman(fitted: np.ndarray, accuracies: np.ndarray) -> float:
    """Returns Spearman's correlation of minus the losses, where those that diverged are the largest."""
    found = scipy.stats.spearmanr(-np.nan_to_num(fitted, nan=np.inf), accuracies)
    return float(np.asarray(found)[0])


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float], one: np.ndarray, other: np.ndarray, resamples: int = 1000
) -> tuple[float, float]:
    """Returns the middle 95% of a correlation over bootstraps of the cells."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(one), len(one)) for _ in range(resamples)]
    low, high = np.nanquantile([statistic(one[rows], other[rows]) for rows in draws], (0.025, 0.975))
    return float(low), float(high)


def images(options: Options) -> data.Source:
    """Returns the images at the size that is fitted, or noise."""
    size = options.image_size
    if options.images is None:
        return data.Gaussian((size, size, 3))
    return data.load(str(options.images), image_size=size)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
