"""Cells scored in a given time, by both ways to compile, beside PyTorch where it is installed.

    python benchmarks/score_throughput.py --out benchmarks/results/score_throughput_cpu.md

NASI's one-batch score (12), the squared norm of a batch's gradient, of random NAS-Bench-201 cells at the benchmark's
size and at a reduced one, in one process and in turn; the peer computes the same of the same network in PyTorch. Times
are medians over cells as ratios to the peer's, or to the full size where there is none. Compilation is what the cells
took longer when they were first scored; "500 cells" has it in it. Kendall's tau tells how far the reduced size keeps
the ranking; between two seeds of the full size it is what the score's own noise allows.
"""

from __future__ import annotations

import dataclasses
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
from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS

SCORE = "ntk-one-batch"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        cells: random cells that are timed at both sizes and in PyTorch.
        channels: channels of the full and of the reduced networks.
        depth: cells a stage of both.
        batch: images in a batch of both.
        image_size: height and width of both.
    """

    out: pathlib.Path | None = None
    cells: int = 40
    channels: tuple[int, int] = (16, 8)
    depth: tuple[int, int] = (5, 5)
    batch: tuple[int, int] = (64, 64)
    image_size: tuple[int, int] = (32, 16)


def main(options: Options) -> None:
    """Measures and prints the table."""
    space = spaces.get("nasbench201")
    genotypes = [space.sample(jax.random.key(i)) for i in range(options.cells)]
    programs: dict[str, Callable[[Any], float]] = {}
    cold: dict[str, float] = {}
    repeated: list[float] = []
    for compilation in get_args(search.Compilation):
        for size, i in (("full", 0), ("reduced", 1)):
            config = search.ScoreConfig(options.channels[i], options.depth[i], options.batch[i])
            source = data.Gaussian((options.image_size[i], options.image_size[i], 3))
            scorer = search.Scorer(space, source, (SCORE,), config, compilation=compilation)
            start = time.perf_counter()
            draw = scorer.draw(0)

            def run(genotype: Any, scorer: search.Scorer = scorer, draw: search.Draw = draw) -> float:
                return scorer.score(draw, [genotype])[0][SCORE]

            for genotype in genotypes:
                run(genotype)
            cold[f"{compilation}, {size}"] = time.perf_counter() - start
            programs[f"{compilation}, {size}"] = run
            if (compilation, size) == ("blocks", "full"):
                other = scorer.draw(1)
                repeated = [run(genotype, draw=other) for genotype in genotypes]
    if importlib.util.find_spec("torch"):
        programs["PyTorch"] = peer(options)
        start = time.perf_counter()
        for genotype in genotypes:
            programs["PyTorch"](genotype)
        cold["PyTorch"] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    values: dict[str, list[float]] = {name: [] for name in programs}
    for genotype in genotypes:
        for name, program in programs.items():
            start = time.perf_counter()
            values[name].append(program(genotype))
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    unit = "PyTorch" if "PyTorch" in medians else "blocks, full"
    lines = [f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options.cells} cells; {unit} is 1."]
    lines += [f"Kendall's tau between two seeds of the full size: {tau(values['blocks, full'], repeated):.2f}.", ""]
    lines += ["| compiled, size | a cell | compilation, in cells | 500 cells | tau with the full size |"]
    lines += ["| --- " * 5 + "|"]
    for name, median in medians.items():
        compiling = max(0.0, cold[name] - sum(seconds[name]))
        total = (compiling + 500 * statistics.mean(seconds[name])) / (500 * statistics.mean(seconds[unit]))
        shown = "" if name == "PyTorch" else f"{tau(values['blocks, full'], values[name]):.2f}"
        lines.append(f"| {name} | {median / medians[unit]:.2f} | {compiling / median:.0f} | {total:.2f} | {shown} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def tau(a: list[float], b: list[float]) -> float:
    """Returns Kendall's tau."""
    return float(np.asarray(scipy.stats.kendalltau(a, b))[0])


def peer(options: Options) -> Callable[[Any], float]:
    """Returns the score in PyTorch, at the full size and by its own initialisation."""
    torch: Any = importlib.import_module("torch")
    nn = torch.nn
    size = options.image_size[0]
    x = torch.randn(options.batch[0], 3, size, size)
    y = torch.randint(0, 10, (options.batch[0],))

    def relu_conv_norm(inputs: int, outputs: int, window: int, stride: int = 1) -> Any:
        conv = nn.Conv2d(inputs, outputs, window, stride, window // 2, bias=False)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))

    class Cell(nn.Module):
        def __init__(self, features: int, choices: list[str]):
            super().__init__()
            made = {"nor_conv_3x3": 3, "nor_conv_1x1": 1}
            self.choices = choices
            self.layers = nn.ModuleList(
                relu_conv_norm(features, features, made[c]) if c in made
                else nn.AvgPool2d(3, 1, 1, count_include_pad=False) if c == "avg_pool_3x3"
                else nn.Identity()
                for c in choices
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            nodes = [x, 0, 0, 0]
            for (source, target), choice, layer in zip(EDGES, self.choices, self.layers, strict=True):
                term = torch.zeros_like(x) if choice == "none" else layer(nodes[source])
                nodes[target] = nodes[target] + term
            return nodes[3]

    class Reduction(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.main = nn.Sequential(relu_conv_norm(inputs, outputs, 3, 2), relu_conv_norm(outputs, outputs, 3))
            self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

        def forward(self, x: Any) -> Any:
            return self.main(x) + self.shortcut(x)

    def score(genotype: Any) -> float:
        choices = [OPERATIONS[i] for i in np.asarray(genotype.operations)]
        channels = options.channels[0]
        layers = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)]
        for stage in range(3):
            features = channels * 2**stage
            layers += [Reduction(features // 2, features)] if stage else []
            layers += [Cell(features, choices) for _ in range(options.depth[0])]
        layers += [nn.BatchNorm2d(features), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10)]
        network = nn.Sequential(*layers)
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(network(x), y), list(network.parameters()), allow_unused=True
        )
        return float(sum((g**2).sum() for g in gradients if g is not None))

    return score


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
