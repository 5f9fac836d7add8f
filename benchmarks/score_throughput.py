"""Cells scored in a given time, by both ways to compile, beside PyTorch where it is installed.

    python benchmarks/score_throughput.py --out benchmarks/results/score_throughput_cpu.md

NASI's one-batch score (12), the squared norm of a batch's gradient, of random NAS-Bench-201 cells at the benchmark's
size and at a reduced one, in one process and in turn, some cells at a time; the peer computes the same of the same
network in PyTorch, one cell after the other and, as our program for the space does by itself, a cell for each core side
by side. Times are means over cells as ratios to the peer's, or to the full size where there is none. Compilation is
what the cells took longer when they were first scored; "500 cells" has it in it.

    python benchmarks/score_throughput.py --space darts --out benchmarks/results/score_throughput_darts_cpu.md

The same score of random cells of the DARTS space, at 16 and at 8 channels and beside PyTorch at the same ones. The
first time that the cells are scored has all compilation in it. Networks with hardly any arithmetic tell what a cell
costs beside it; they are compared with PyTorch's of 8 channels.

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
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
import scipy.stats
import tyro

from nasi_jax import data, scores, spaces

SCORE = "ntk-one-batch"
TURN = 10  # cells


class Networks(NamedTuple):
    """The size of networks, in channels and cells (a stage), and of their batches, in images and pixels of a side."""

    channels: int
    depth: int
    batch: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured in a space.

    Attributes:
        cells: random cells that are timed.
        total: the number of cells for which time is told with compilation in it.
        ranked: random cells on which the rankings by the first two sizes are compared.
        sizes: of the networks.
        peers: the sizes that PyTorch is measured at.
    """

    cells: int
    total: int
    ranked: int
    sizes: dict[str, Networks]
    peers: tuple[str, ...]


SETTINGS = {
    "nasbench201": Setting(
        40, 500, 150, {"full": Networks(16, 5, 64, 32), "reduced": Networks(16, 5, 8, 20)}, ("full",)
    ),
    "darts": Setting(
        200, 200, 0,
        {
            "16 channels": Networks(16, 8, 32, 32),
            "8 channels": Networks(8, 8, 32, 32),
            "hardly any arithmetic": Networks(4, 8, 2, 8),
        },
        ("16 channels", "8 channels"),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how many cells are scored in a given time.

    Attributes:
        out: Markdown file to write; only printed without.
        space: the search space.
        cells: random cells that are timed; as many as `SETTINGS` has for the space by default.
        compilations: ways to compile.
        smoke: tiny networks, to see that everything works.
    """

    out: pathlib.Path | None = None
    space: Literal["nasbench201", "darts"] = "nasbench201"
    cells: int | None = None
    compilations: tuple[scores.Compilation, ...] = get_args(scores.Compilation)
    smoke: bool = False


def main(options: Options) -> None:
    """Measures and prints the table."""
    space, setting = spaces.get(options.space), SETTINGS[options.space]
    if options.cells is not None:
        setting = dataclasses.replace(setting, cells=options.cells)
    if options.smoke:
        tiny = {name: Networks(4, 3, 4, 8) for name in setting.sizes}
        setting = dataclasses.replace(setting, cells=2, ranked=min(4, setting.ranked), sizes=tiny)
    drawn = [space.sample(jax.random.key(i)) for i in range(setting.cells + setting.ranked)]
    genotypes, ranked = drawn[: setting.cells], drawn[setting.cells :]
    programs: dict[str, Callable[[Sequence[Any]], list[float]]] = {}
    cold: dict[str, float] = {}
    scorers: dict[str, scores.Scorer] = {}
    for compilation in options.compilations:
        for size, networks in setting.sizes.items():
            config = scores.ScoreConfig(space.Size(networks.channels, networks.depth), networks.batch)
            source = data.Gaussian((networks.image_size, networks.image_size, 3))
            scorer = scores.Scorer(space, source, (SCORE,), config, compilation=compilation)
            start = time.perf_counter()
            programs[f"{compilation}, {size}"] = functools.partial(computed, scorer, scorer.draw(0))
            programs[f"{compilation}, {size}"](genotypes)
            cold[f"{compilation}, {size}"] = time.perf_counter() - start
            scorers.setdefault(size, scorer)
    if importlib.util.find_spec("torch"):
        for size in setting.peers:
            for name, side_by_side in (("PyTorch", 1), ("PyTorch side by side", os.cpu_count() or 1)):
                programs[f"{name}, {size}"] = peer(options.space, setting.sizes[size], side_by_side)
                start = time.perf_counter()
                programs[f"{name}, {size}"](genotypes)
                cold[f"{name}, {size}"] = time.perf_counter() - start
    seconds = dict.fromkeys(programs, 0.0)
    for turn in range(0, len(genotypes), TURN):
        for name, program in programs.items():
            start = time.perf_counter()
            program(genotypes[turn : turn + TURN])
            seconds[name] += time.perf_counter() - start

    def unit(size: str) -> float:
        peers = [name for name in (f"PyTorch, {size}", f"PyTorch, {setting.peers[-1]}") if name in seconds]
        return seconds[peers[0]] if peers else next(iter(seconds.values()))

    one = "PyTorch" if f"PyTorch, {setting.peers[0]}" in seconds else next(iter(seconds))
    lines = [f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {setting.cells} cells; {one} is 1.", ""]
    lines += [f"| compiled, size | a cell | compilation, in cells | {setting.total} cells |", "| --- " * 4 + "|"]
    for name, warm in seconds.items():
        compiling = max(0.0, cold[name] - warm) * len(genotypes)
        least = unit(name.split(", ")[-1])
        total = (compiling / setting.total + warm) / least
        lines.append(f"| {name} | {warm / least:.2f} | {compiling / warm:.0f} | {total:.2f} |")
    if ranked:
        lines += ["", *rankings(scorers, ranked)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def rankings(scorers: dict[str, scores.Scorer], ranked: Sequence[Any]) -> list[str]:
    """Returns a table of how far the sizes rank cells alike."""
    full, reduced = (
        [np.log(computed(scorers[size], draw, ranked)) for draw in map(scorers[size].draw, seeds)]
        for size, seeds in zip(scorers, ((0, 1, 2), (3, 4, 5)), strict=False)
    )
    taus = {
        "reduced size, the mean of three seeds of the full size": [tau(one, np.mean(full, axis=0)) for one in reduced],
        "full size, the mean of the other two": [tau(full[i], full[i - 1] + full[i - 2]) for i in range(3)],
        "full size, another one": [tau(full[i], full[i - 1]) for i in range(3)],
    }
    lines = [f"| a seed of the, with | Kendall's tau, {len(ranked)} other cells, over three seeds |"]
    lines += ["| --- | --- |"]
    lines += [f"| {name} | {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f} |" for name, found in taus.items()]
    return lines


def computed(scorer: scores.Scorer, draw: scores.Draw, genotypes: Sequence[Any]) -> list[float]:
    """Returns the scores of cells."""
    return [values[SCORE] for values in scorer.stream(draw, genotypes)]


def tau(a: Any, b: Any) -> float:
    """Returns Kendall's tau."""
    return float(np.asarray(scipy.stats.kendalltau(a, b))[0])


def peer(space: str, size: Networks, side_by_side: int) -> Callable[[Sequence[Any]], list[float]]:
    """Returns the scores in PyTorch, at a size and by its own initialisation, of so many cells at a time."""
    import torch  # pyright: ignore[reportMissingImports]
    import torch_darts
    import torch_nasbench201

    channels, depth, batch, side = size
    x, y = torch.randn(batch, 3, side, side), torch.randint(0, 10, (batch,))
    cores = os.cpu_count() or 1

    def network(genotype: Any) -> Any:
        if space == "nasbench201":
            return torch_nasbench201.network(genotype, channels, depth)
        built = torch_darts.Network(genotype, channels, depth)
        built.head_after = -1  # scores have no auxiliary head
        return built

    def squared_norm(genotype: Any) -> float:
        built = network(genotype)
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(built(x), y), list(built.parameters()), allow_unused=True
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
