"""Cost of a search step's gradient: forward over reverse beside reverse over reverse, and beside one loss gradient.

    python benchmarks/architecture_gradient.py --out benchmarks/results/architecture_gradient_cpu.md

The peer is `jax.jacrev` of the objective, which differentiates through the backward pass; all run in one process, in
turn, and figures are ratios of medians to one gradient of the batch's loss in the same one-shot network. Compilation
is counted apart. Temporary memory is XLA's own analysis of the compiled program.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from nasi_jax import data, ntk, search, spaces


@dataclasses.dataclass(frozen=True)
class Options:
    """Size of the one-shot network and number of runs.

    Attributes:
        channels: channels of the first stage.
        cells: cells a stage.
        image_size: height and width of the Gaussian images.
        batch: images in a batch.
        runs: timed runs of each program, after one that compiles.
        out: file for the table.
    """

    channels: int = 16
    cells: int = 1
    image_size: int = 16
    batch: int = 32
    runs: int = 5
    out: pathlib.Path | None = None


def main(options: Options) -> None:
    """Prints the table, and writes it where a file is given."""
    space = spaces.get("nasbench201")
    size = space.Size(options.channels, options.cells)
    strategy = search.NASI(size=size, batch=options.batch, estimator="soft", objective="one-batch")
    source = data.Gaussian((options.image_size, options.image_size, 3))
    module = strategy.one_shot(space, source)
    params = jax.jit(lambda key: strategy.init_params(space, source, key))(jax.random.key(0))
    sample = search.Sample(source.batch(jax.random.key(1), options.batch), source.loss, jax.random.key(2))
    weights = jax.tree.map(jax.nn.softmax, space.alphas())

    def network(p: Any, w: spaces.Weights, x: jax.Array) -> jax.Array:
        return module.apply({"params": p}, x, w)  # type: ignore[return-value]

    def loss(p: Any, w: spaces.Weights) -> jax.Array:
        return jnp.mean(ntk.cross_entropy(network(p, w, sample.batch.x), sample.batch.y))

    programs: dict[str, Callable[[Any, spaces.Weights], Any]] = {"loss gradient": jax.grad(loss)}
    for objective in ("one-batch", "participation-ratio"):

        def value(p: Any, w: spaces.Weights, objective: search.Objective = objective) -> search.Measurement:
            return search.measure(objective, network, p, w, sample)

        def forward(p: Any, w: spaces.Weights, objective: search.Objective = objective) -> Any:
            return search.measure_with_gradient(objective, network, p, w, sample)

        programs[f"{objective}, value"] = value
        programs[f"{objective}, gradient, forward over reverse"] = forward
        programs[f"{objective}, gradient, reverse over reverse"] = jax.jacrev(value, argnums=1)

    compiled, rows = {}, {}
    for name, program in programs.items():
        start = time.perf_counter()
        compiled[name] = jax.jit(program).lower(params, weights).compile()
        rows[name] = [time.perf_counter() - start, compiled[name].memory_analysis().temp_size_in_bytes]
        jax.block_until_ready(compiled[name](params, weights))
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(options.runs):
        for name, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params, weights))
            seconds[name].append(time.perf_counter() - start)
    unit = statistics.median(seconds["loss gradient"])
    images = f"batch {options.batch} of {options.image_size}x{options.image_size} images"
    lines = [
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options.channels} channels, {options.cells} cell(s) a"
        f" stage, {images}; ratios to the gradient of the loss.", "",
        "| program | run | compile | temporary memory |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, (compile_seconds, memory) in rows.items():
        run = statistics.median(seconds[name]) / unit
        first = rows["loss gradient"]
        lines.append(f"| {name} | {run:.1f} | {compile_seconds / first[0]:.1f} | {memory / first[1]:.1f} |")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
