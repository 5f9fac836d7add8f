"""Cells scored in a given time, by both ways to compile, beside PyTorch where it is installed.

    python benchmarks/score_throughput.py --out benchmarks/results/score_throughput_cpu.md

NASI's one-batch score (12), the squared norm of a batch's gradient, of random NAS-Bench-201 cells at the benchmark's
size and at a reduced one, in one process and in turn; the peer computes the same of the same network in PyTorch. Times
are medians over cells as ratios to the peer's, or to the full size where there is none. Compilation is what the cells
took longer when they were first scored; "500 cells" has it in it.

Kendall's tau tells how far a seed of the reduced size keeps the ranking by the full size, as the mean of the score's
logarithm over three seeds has it, on other cells than are timed. What a seed of the full size reaches with the mean of
the other two is what the score's own noise allows.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import numpy as np
import scipy.stats
import tyro

from nasi_jax import data, search, spaces

SCORE = "ntk-one-batch"


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
    programs: dict[str, Callable[[Any], float]] = {}
    cold: dict[str, float] = {}
    scorers: dict[str, search.Scorer] = {}
    for compilation in get_args(search.Compilation):
        for size, i in (("full", 0), ("reduced", 1)):
            config = search.ScoreConfig(options.channels[i], options.depth[i], options.batch[i])
            source = data.Gaussian((options.image_size[i], options.image_size[i], 3))
            scorer = search.Scorer(space, source, (SCORE,), config, compilation=compilation)
            start = time.perf_counter()
            draw = scorer.draw(0)

            run = functools.partial(score, scorer, draw)
            for genotype in genotypes:
                run(genotype)
            cold[f"{compilation}, {size}"] = time.perf_counter() - start
            programs[f"{compilation}, {size}"] = run
            if compilation == "space":
                scorers[size] = scorer
    if importlib.util.find_spec("torch"):
        programs["PyTorch"] = peer(options)
        start = time.perf_counter()
        for genotype in genotypes:
            programs["PyTorch"](genotype)
        cold["PyTorch"] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for genotype in genotypes:
        for name, program in programs.items():
            start = time.perf_counter()
            program(genotype)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    unit = "PyTorch" if "PyTorch" in medians else "blocks, full"
    lines = [f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options.cells} cells; {unit} is 1.", ""]
    lines += ["| compiled, size | a cell | compilation, in cells | 500 cells |", "| --- " * 4 + "|"]
    for name, median in medians.items():
        compiling = max(0.0, cold[name] - sum(seconds[name]))
        total = (compiling + 500 * statistics.mean(seconds[name])) / (500 * statistics.mean(seconds[unit]))
        lines.append(f"| {name} | {median / medians[unit]:.2f} | {compiling / median:.0f} | {total:.2f} |")
    full, reduced = (
        [
            np.log([score(scorers[size], draw, genotype) for genotype in ranked])
            for draw in map(scorers[size].draw, seeds)
        ]
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


def score(scorer: search.Scorer, draw: search.Draw, genotype: Any) -> float:
    """Returns the score of one cell."""
    return scorer.score(draw, [genotype])[0][SCORE]


def tau(a: Any, b: Any) -> float:
    """Returns Kendall's tau."""
    return float(np.asarray(scipy.stats.kendalltau(a, b))[0])


def peer(options: Options) -> Callable[[Any], float]:
    """Returns the score in PyTorch, at the full size and by its own initialisation."""
    import torch  # pyright: ignore[reportMissingImports]
    import torch_nasbench201

    size = options.image_size[0]
    x = torch.randn(options.batch[0], 3, size, size)
    y = torch.randint(0, 10, (options.batch[0],))

    def squared_norm(genotype: Any) -> float:
        network = torch_nasbench201.network(genotype, options.channels[0], options.depth[0])
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(network(x), y), list(network.parameters()), allow_unused=True
        )
        return float(sum((g**2).sum() for g in gradients if g is not None))

    return squared_norm


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
