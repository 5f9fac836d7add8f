"""Cells scored in a given time, by both ways to compile, beside PyTorch where it is installed.

    python benchmarks/score_throughput.py --out benchmarks/results/score_throughput_cpu.md

NASI's one-batch score (12), the squared norm of a batch's gradient, of random NAS-Bench-201 cells at the benchmark's
size and at a reduced one, in one process and in turn, some cells at a time; the peer computes the same of the same
network in PyTorch, one cell after the other and, as our program for the space does by itself, a cell for each core side
by side. Times are means over cells as ratios to the peer's, or to the full size where there is none. Compilation is
what the cells took longer when they were first scored; "500 cells" has it in it.

Kendall's tau tells how far a seed of the reduced size keeps the ranking by the full size, as the mean of the score's
logarithm over three seeds has it, on other cells than are timed. What a seed of the full size reaches with the mean of
the other two is what the score's own noise allows.
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
from typing import Any, get_args

import jax
import numpy as np
import scipy.stats
import tyro

from nasi_jax import data, scores, spaces

SCORE = "ntk-one-batch"
TURN = 10  # cells


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        cells: random cells that are timed at both sizes and in PyTorch.
        ranked: random cells on which the ranking by the sizes is compared.
        channels: channels of the full and of the reduced networks.
        depth: cells a stage of both.
        batch: images in a batch of both.
        image_size: height and width of both.
    """

    out: pathlib.Path | None = None
    cells: int = 40
    ranked: int = 150
    channels: tuple[int, int] = (16, 16)
    depth: tuple[int, int] = (5, 5)
    batch: tuple[int, int] = (64, 8)
    image_size: tuple[int, int] = (32, 20)


def main(options: Options) -> None:
    """Measures and prints the table."""
    space = spaces.get("nasbench201")
    drawn = [space.sample(jax.random.key(i)) for i in range(options.cells + options.ranked)]
    genotypes, ranked = drawn[: options.cells], drawn[options.cells :]
    programs: dict[str, Callable[[Sequence[Any]], list[float]]] = {}
    cold: dict[str, float] = {}
    scorers: dict[str, scores.Scorer] = {}
    for compilation in get_args(scores.Compilation):
        for size, i in (("full", 0), ("reduced", 1)):
            config = scores.ScoreConfig(space.Size(options.channels[i], options.depth[i]), options.batch[i])
            source = data.Gaussian((options.image_size[i], options.image_size[i], 3))
            scorer = scores.Scorer(space, source, (SCORE,), config, compilation=compilation)
            start = time.perf_counter()
            programs[f"{compilation}, {size}"] = functools.partial(computed, scorer, scorer.draw(0))
            programs[f"{compilation}, {size}"](genotypes)
            cold[f"{compilation}, {size}"] = time.perf_counter() - start
            if compilation == "space":
                scorers[size] = scorer
    if importlib.util.find_spec("torch"):
        for name, side_by_side in (("PyTorch", 1), ("PyTorch, side by side", os.cpu_count() or 1)):
            programs[name] = peer(options, side_by_side)
            start = time.perf_counter()
            programs[name](genotypes)
            cold[name] = time.perf_counter() - start
    seconds = dict.fromkeys(programs, 0.0)
    for turn in range(0, len(genotypes), TURN):
        for name, program in programs.items():
            start = time.perf_counter()
            program(genotypes[turn : turn + TURN])
            seconds[name] += time.perf_counter() - start
    unit = "PyTorch" if "PyTorch" in seconds else "blocks, full"
    lines = [f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options.cells} cells; {unit} is 1.", ""]
    lines += ["| compiled, size | a cell | compilation, in cells | 500 cells |", "| --- " * 4 + "|"]
    for name, warm in seconds.items():
        compiling = max(0.0, cold[name] - warm) * len(genotypes)
        total = (compiling / 500 + warm) / seconds[unit]
        lines.append(f"| {name} | {warm / seconds[unit]:.2f} | {compiling / warm:.0f} | {total:.2f} |")
    full, reduced = (
        [np.log(computed(scorers[size], draw, ranked)) for draw in map(scorers[size].draw, seeds)]
        for size, seeds in (("full", (0, 1, 2)), ("reduced", (3, 4, 5)))
    )
    taus = {
        "reduced size, the mean of three seeds of the full size": [tau(one, np.mean(full, axis=0)) for one in reduced],
        "full size, the mean of the other two": [tau(full[i], full[i - 1] + full[i - 2]) for i in range(3)],
        "full size, another one": [tau(full[i], full[i - 1]) for i in range(3)],
    }
    lines += ["", f"| a seed of the, with | Kendall's tau, {options.ranked} other cells, over three seeds |"]
    lines += ["| --- | --- |"]
    lines += [f"| {name} | {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f} |" for name, found in taus.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def computed(scorer: scores.Scorer, draw: scores.Draw, genotypes: Sequence[Any]) -> list[float]:
    """Returns the scores of cells."""
    return [values[SCORE] for values in scorer.stream(draw, genotypes)]


def tau(a: Any, b: Any) -> float:
    """Returns Kendall's tau."""
    return float(np.asarray(scipy.stats.kendalltau(a, b))[0])


def peer(options: Options, side_by_side: int) -> Callable[[Sequence[Any]], list[float]]:
    """Returns the scores in PyTorch, at the full size and by its own initialisation, of so many cells at a time."""
    import torch  # pyright: ignore[reportMissingImports]
    import torch_nasbench201

    size = options.image_size[0]
    x = torch.randn(options.batch[0], 3, size, size)
    y = torch.randint(0, 10, (options.batch[0],))
    cores = os.cpu_count() or 1

    def squared_norm(genotype: Any) -> float:
        network = torch_nasbench201.network(genotype, options.channels[0], options.depth[0])
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(network(x), y), list(network.parameters()), allow_unused=True
        )
        return float(sum((g**2).sum() for g in gradients if g is not None))

    def squared_norms(genotypes: Sequence[Any]) -> list[float]:
        if side_by_side == 1:
            torch.set_num_threads(cores)
            return [squared_norm(genotype) for genotype in genotypes]
        torch.set_num_threads(max(1, cores // side_by_side))
        with ThreadPoolExecutor(side_by_side) as threads:
            return list(threads.map(squared_norm, genotypes))

    return squared_norms


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
