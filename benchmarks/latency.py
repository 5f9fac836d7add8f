"""How well a latency that is added up from choices agrees with one that is measured.

    python benchmarks/latency.py --out benchmarks/results/latency_cpu.md

Random architectures of a space at the size that is trained, other ones than those that the sum is fitted to. They are
measured twice: how well two measurements agree is what any estimate can reach on this machine.
"""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import numpy as np
import scipy.stats
import tyro

from nasi_jax import data, scores, spaces


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare both ways to find a latency.

    Attributes:
        out: Markdown file to write; only printed without.
        space: search space.
        architectures: that are measured, twice.
        fitted: further ones, to which the sum is fitted.
    """

    out: pathlib.Path | None = None
    space: str = "nasbench201"
    architectures: int = 60
    fitted: int = 40


def main(options: Options) -> None:
    """Measures and prints the table."""
    space = spaces.get(options.space)
    inputs, outputs = data.shapes(space.noise(10), 2).x, 10
    once, again = (
        scores.Latency(space, inputs, space.evaluation_size, outputs, fitted=options.fitted) for _ in range(2)
    )
    drawn = [space.sample(jax.random.key(options.fitted + i)) for i in range(options.architectures)]
    measured = np.array([once.measured(genotype) for genotype in drawn])
    columns = {
        "measured again": np.array([again.measured(genotype) for genotype in drawn]),
        f"added up, fitted to {options.fitted}": np.array([once(genotype) for genotype in drawn]),
    }
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    lines = [
        f"{device}, {options.space}: {len(drawn)} architectures; the slowest takes "
        f"{measured.max() / measured.min():.1f} times as long as the fastest.",
        "",
        "| beside a measurement | Spearman | Kendall | error, median | error, 90 % below |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, values in columns.items():
        errors = np.abs(values / measured - 1)
        figures = [scipy.stats.spearmanr(values, measured)[0], scipy.stats.kendalltau(values, measured)[0]]
        shares = [np.median(errors), np.quantile(errors, 0.9)]
        lines.append(f"| {name} | {' | '.join([*(f'{f:.3f}' for f in figures), *(f'{s:.1%}' for s in shares)])} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
