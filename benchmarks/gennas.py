"""GenNAS's score of NAS-Bench-201 cells, beside the same training in PyTorch where it is installed.

    python benchmarks/gennas.py --images cifar10.npz --out benchmarks/results/gennas_cpu.md

First the losses of one cell over the steps, a mean and a standard deviation over draws of the parameters: both fit the
same targets to the same images, and share nothing else. Then the time a cell, at the published size and at a reduced
one, with compilation apart; cells in turn, so that other processes disturb all programs alike. The peer trains one cell
after the other, and a cell for each core side by side, as our program for the space does by itself. Kendall's tau says
how far the reduced size keeps the order of the cells.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import scipy.stats
import tyro

from nasi_jax import data, proxies, scores, spaces
from nasi_jax.nn import RUNNING_STATISTICS, STAGES, Style, as_pytorch, initial_statistics
from nasi_jax.proxies.gennas import Regression, losses

TASK = proxies.TASKS["nb101"]
SHOWN = (10, 50, 100)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        images: an .npz of images with x and y; Gaussian noise without.
        cell: the cell whose losses are compared.
        seeds: draws of its parameters.
        cells: random cells that are timed.
        channels: channels of the first stage.
        depth: cells a stage.
        batch: images that are fitted.
        image_size: height and width of the published and of the reduced images.
        steps: steps of training.
    """

    out: pathlib.Path | None = None
    images: pathlib.Path | None = None
    cell: str = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    seeds: int = 5
    cells: int = 10
    channels: int = 16
    depth: int = 5
    batch: int = 16
    image_size: tuple[int, int] = (32, 16)
    steps: int = 100


def main(options: Options) -> None:
    """Measures and prints the tables."""
    lines = [f"{jax.devices()[0].device_kind}, jax {jax.__version__}; task nb101, {options.steps} steps.", ""]
    for part, wanted in ((curves, options.seeds), (times, options.cells)):
        lines += part(options) if wanted else []
        text = "\n".join(lines) + "\n"
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text)
    print(text)


def curves(options: Options) -> list[str]:
    """Returns the lines about the losses of one cell."""
    space = spaces.get("nasbench201")
    genotype = space.parse(options.cell)
    x = images(options, options.image_size[0]).batch(jax.random.key(0), options.batch).x
    regression = Regression.of(TASK.targets(jax.random.key(1), x, side(options)))
    network = space.network(genotype, space.Size(options.channels, options.depth), 10, Style(bare_cells=True))
    like = network.init(jax.random.key(0), x)["params"]

    def stages(params: Any, statistics: Any, x: jax.Array, training: bool) -> tuple[list[jax.Array], Any]:
        left = [STAGES, RUNNING_STATISTICS] if training else [STAGES]
        applied: Any = network.apply({"params": params, RUNNING_STATISTICS: statistics}, x, mutable=left)
        found = applied[1]
        return [found[STAGES][name] for name in sorted(found[STAGES])], found.get(RUNNING_STATISTICS, statistics)

    start = initial_statistics(jax.eval_shape(lambda: stages(like, {}, x, True)[1]))

    @jax.jit
    def curve(key: jax.Array) -> jax.Array:
        params = as_pytorch(key, like)
        return losses(stages, params, start, x, regression, TASK.noisy, key, steps=options.steps, every=10)

    found = {"nasi_jax": [curve(jax.random.key(seed)) for seed in range(options.seeds)]}
    if importlib.util.find_spec("torch"):
        import torch_gennas

        targets = [np.asarray(target) for target in regression.targets]
        widths = tuple(target.shape[-1] for target in targets)
        found["PyTorch"] = []
        for seed in range(options.seeds):
            torch_gennas.torch.manual_seed(seed)
            peer = torch_gennas.Network(genotype, options.channels, options.depth, widths, targets[0].shape[1])
            found["PyTorch"].append(
                torch_gennas.losses(peer, np.asarray(x), targets, TASK.noise_level, options.steps, 10)
            )
    shown = [step for step in SHOWN if step <= options.steps]
    lines = [f"| loss after | {' | '.join(f'{step} steps' for step in shown)} |", "| --- " * (len(shown) + 1) + "|"]
    for name, seen in found.items():
        values = np.array(seen)[:, [step // 10 - 1 for step in shown]]
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(shown))
        figures = " | ".join(f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(values.mean(axis=0), spread, strict=True))
        lines.append(f"| {name}, {len(values)} draws | {figures} |")
    return [*lines, ""]


def times(options: Options) -> list[str]:
    """Returns the lines about the time a cell."""
    space, name = spaces.get("nasbench201"), f"gennas(steps={options.steps},batch={options.batch})"
    genotypes = [space.sample(jax.random.key(i)) for i in range(options.cells)]
    config = scores.ScoreConfig(space.Size(options.channels, options.depth), options.batch)
    programs: dict[str, Callable[[Sequence[Any]], list[float]]] = {}
    for size in options.image_size:
        scorer = scores.Scorer(space, images(options, size), (name,), config)
        programs[f"nasi_jax, {size}x{size}"] = functools.partial(computed, scorer, scorer.draw(0), name)
    if importlib.util.find_spec("torch"):
        for title, side_by_side in (("PyTorch", 1), ("PyTorch, side by side", os.cpu_count() or 1)):
            programs[title] = peer_of(options, side_by_side)
    turn = (os.cpu_count() or 1) + 1
    cold, found = {}, {title: [] for title in programs}
    for title, program in programs.items():
        start = time.perf_counter()
        program(genotypes[:turn])
        cold[title] = time.perf_counter() - start
    seconds = dict.fromkeys(programs, 0.0)
    for first in range(0, len(genotypes), turn):
        for title, program in programs.items():
            start = time.perf_counter()
            found[title] += program(genotypes[first : first + turn])
            seconds[title] += time.perf_counter() - start
    unit = "PyTorch" if "PyTorch" in seconds else next(iter(seconds))
    lines = [
        f"| program, {options.cells} cells; {unit} is 1 | a cell | compilation, in cells | tau with its full size |"
    ]
    lines.append("| --- " * 4 + "|")
    full = found[next(iter(found))]
    for title, warm in seconds.items():
        cell = warm / options.cells
        compiling = max(0.0, cold[title] - cell * turn) / cell
        tau = f"{np.asarray(scipy.stats.kendalltau(full, found[title]))[0]:.2f}" if title.startswith("nasi") else ""
        lines.append(f"| {title} | {warm / seconds[unit]:.2f} | {compiling:.1f} | {tau} |")
    return lines


def images(options: Options, size: int) -> data.Source:
    """Returns the images at a size, or noise."""
    if options.images is None:
        return data.Gaussian((size, size, 3))
    return data.load(str(options.images), image_size=size)


def side(options: Options) -> int:
    """Returns the height and width of the targets at the published size."""
    return min(8, options.image_size[0] // 4)


def computed(scorer: scores.Scorer, draw: scores.Draw, name: str, genotypes: Sequence[Any]) -> list[float]:
    """Returns the scores of cells."""
    return [values[name] for values in scorer.stream(draw, genotypes)]


def peer_of(options: Options, side_by_side: int) -> Callable[[Sequence[Any]], list[float]]:
    """Returns the score in PyTorch at the published size, of so many cells at a time."""
    import torch_gennas

    size = options.image_size[0]
    x = images(options, size).batch(jax.random.key(0), options.batch).x
    targets = [np.asarray(target) for target in TASK.targets(jax.random.key(1), x, side(options))]
    widths = tuple(target.shape[-1] for target in targets)
    inputs = np.asarray(x)

    def one(genotype: Any) -> float:
        network = torch_gennas.Network(genotype, options.channels, options.depth, widths, targets[0].shape[1])
        return -torch_gennas.losses(network, inputs, targets, TASK.noise_level, options.steps, options.steps)[-1]

    def several(genotypes: Sequence[Any]) -> list[float]:
        torch_gennas.torch.set_num_threads(max(1, (os.cpu_count() or 1) // side_by_side))
        with ThreadPoolExecutor(side_by_side) as pool:
            return list(pool.map(one, genotypes))

    return several


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
