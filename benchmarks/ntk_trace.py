"""Cost, memory and error of every trace estimate, over widths, batch sizes and classes.

    python benchmarks/ntk_trace.py --out benchmarks/results/ntk_trace_cpu.md

The peer is neural-tangents' exact trace, by the diagonal of its kernel, in its implementations 1 and 3. All run in one
process, in turn, and times are ratios of medians to one gradient of the batch's loss in the same network, of a
NAS-Bench-201 cell with batch statistics. They are of all processors together, which other work on the machine changes
less than the clock. Compilation is counted apart, as a ratio to that of the gradient. Memory is
XLA's own analysis of the largest compiled program; a program that needs more than the limit is not run. The error is
the root mean square over keys, relative to the exact trace, and beside it the error that the estimate itself reports.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nasi_jax import data, ntk, spaces
from nasi_jax.ntk.cotangents import RANDOM

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
COMPILED = {"_squared_norms": "nasi_jax.ntk._trace", "_products": "nasi_jax.ntk.probes"}
PEERS = {"neural-tangents 1": "jacobian-contraction", "neural-tangents 3": "structured-derivatives"}
ESTIMATES: dict[str, dict[str, Any]] = {
    "exact, chunks of 8": {"method": "exact"},
    "Hutchinson, 1 probe": {"method": "hutchinson", "probes": 1},
    "Hutchinson, 4 probes": {"method": "hutchinson", "probes": 4},
    "Hutchinson, 16 probes": {"method": "hutchinson", "probes": 16},
    "Hutchinson, to 1%": {"method": "hutchinson", "probes": 4000, "tolerance": 0.01},
    "Hadamard, one block": {"method": "hadamard", "probes": 1},
    "Hadamard, to 1%": {"method": "hadamard", "probes": 4000, "tolerance": 0.01},
    "Hutch++, 32 probes": {"method": "hutch++", "probes": 32},
    "XTrace, 32 products": {"method": "xtrace", "probes": 32},
    "XNysTrace, 32 products": {"method": "xnystrace", "probes": 32},
    "per-sample bound": {"method": "per-sample"},
    "one-batch bound (12)": {"method": "one-batch"},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the networks and number of runs.

    Attributes:
        out: Markdown file to write; only printed without.
        channels: widths; the first value of each of these three is held while another varies.
        batch: images in a batch.
        classes: outputs of the network.
        cells: cells a stage.
        image_size: height and width of the Gaussian images.
        runs: timed runs of each program, after one that compiles; programs of more than 5 seconds run once.
        keys: keys over which the error is taken.
        memory: largest memory of a program that is run, in GiB.
    """

    out: pathlib.Path | None = None
    channels: tuple[int, ...] = (16, 8, 32)
    batch: tuple[int, ...] = (32, 16, 64)
    classes: tuple[int, ...] = (10, 30, 100)
    cells: int = 1
    image_size: int = 16
    runs: int = 5
    keys: int = 8
    memory: float = 12.0


class Problem(NamedTuple):
    """A network, a batch and labels."""

    apply_fn: ntk.ApplyFn
    params: Any
    x: jax.Array
    y: jax.Array


class Program(NamedTuple):
    """What runs, and what XLA says of the compiled program: seconds and bytes."""

    run: Callable[[jax.Array], Any]
    compile: float
    memory: float


def main(options: Options) -> None:
    """Prints and writes the tables."""
    values = (options.channels, options.batch, options.classes)
    base = tuple(value[0] for value in values)
    tables = {base: measure(options, *base)}
    slopes: dict[str, list[str]] = {name: [] for name in tables[base]}
    for axis, along in enumerate(values):
        sizes = [(*base[:axis], value, *base[axis + 1 :]) for value in along]
        for size in sizes:
            if size not in tables:
                tables[size] = measure(options, *size)
        for name, column in slopes.items():
            times = np.array([tables[size][name]["seconds"] for size in sizes])
            known = np.isfinite(times)
            enough = known.sum() > 1
            column.append(f"{np.polyfit(np.log(along)[known], np.log(times[known]), 1)[0]:.2f}" if enough else "")
    device = jax.devices()[0]
    lines = [f"{device.device_kind}, jax {jax.__version__}, {options.cells} cell(s) a stage, "]
    lines[0] += f"images of {options.image_size}x{options.image_size}, {options.runs} runs, {options.keys} keys."
    for size, rows in sorted(tables.items()):
        lines += ["", "{} channels, batch {}, {} classes:".format(*size), "", *table(rows)]
    if len(tables) > 1:
        lines += ["", "Exponents of the run time, fitted: time grows with the size to this power.", ""]
        lines += ["| estimate | width | batch | classes |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {' | '.join(column)} |" for name, column in slopes.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Formats the rows of one size, in units of the loss gradient."""
    unit = rows["loss gradient"]
    lines = ["| estimate | compile | run | peer / run | memory, MiB | error | reported |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    peer = np.nanmin([rows[name]["seconds"] for name in PEERS])

    def number(value: float, form: str) -> str:
        return format(value, form) if np.isfinite(value) else ""

    for name, row in rows.items():
        figures = (
            number(row["compile"] / unit["compile"], ".1f"),
            number(row["seconds"] / unit["seconds"], ".1f") or "not run",
            number(peer / row["seconds"], ".1f"),
            number(row["memory"] / 2**20, ".0f"),
            number(row["error"], ".2%"),
            number(row["stderr"], ".2%"),
        )
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return lines


def measure(options: Options, channels: int, batch: int, classes: int) -> dict[str, dict[str, float]]:
    """Compiles and runs every estimate at one size."""
    space = spaces.get("nasbench201")
    module = space.network(space.parse(CELL), space.Size(channels, options.cells), classes)
    x, y = data.Gaussian((options.image_size, options.image_size, 3), classes).batch(jax.random.key(1), batch)
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        return module.apply({"params": params}, x)  # type: ignore[return-value]

    problem = Problem(apply_fn, params, x, y)
    programs = {name: prepare(name, problem) for name in ("loss gradient", *PEERS, *ESTIMATES)}
    runnable = {name: program for name, program in programs.items() if program.memory < options.memory * 2**30}
    first = {name: seconds_of(program, jax.random.key(0)) for name, program in runnable.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runnable}
    for _ in range(options.runs):
        for name, program in runnable.items():
            seconds[name].append(first[name] if first[name] > 5 else seconds_of(program, jax.random.key(0)))
    exact = float(runnable["exact, chunks of 8"].run(jax.random.key(0)).value)
    rows = {}
    for name, program in programs.items():
        rows[name] = {"compile": program.compile, "memory": program.memory}
        rows[name] |= {"seconds": statistics.median(seconds[name]) if name in runnable else math.nan}
        rows[name] |= {"error": math.nan, "stderr": math.nan}
        if name in ESTIMATES:
            keys = options.keys if ESTIMATES[name]["method"] in RANDOM else 1
            found = [program.run(jax.random.key(i)) for i in range(keys)]
            errors = np.array([float(estimate.value) / exact - 1 for estimate in found])
            rows[name] |= {"error": float(np.sqrt(np.mean(errors**2)))}
            rows[name] |= {"stderr": float(np.sqrt(np.mean([float(e.stderr) ** 2 for e in found]))) / exact}
        print(f"  {channels} channels, batch {batch}, {classes} classes: {name}", flush=True)
    return rows


def prepare(name: str, problem: Problem) -> Program:
    """Compiles one estimate."""
    apply_fn, params, x, y = problem
    if name in ESTIMATES:
        return prepare_trace(problem, **ESTIMATES[name])

    def loss(p: Any) -> jax.Array:
        return jnp.mean(ntk.cross_entropy(apply_fn(p, x), y))

    def peer(p: Any) -> jax.Array:
        return jnp.sum(ntk.kernel(apply_fn, p, x, form="diagonal", implementation=PEERS[name]))  # type: ignore[arg-type]

    start = time.perf_counter()
    compiled = jax.jit(jax.grad(loss) if name == "loss gradient" else peer).lower(params).compile()
    elapsed = time.perf_counter() - start
    return Program(lambda _: compiled(params), elapsed, temporary(compiled))


def prepare_trace(problem: Problem, **options: Any) -> Program:
    """Compiles an estimate of `ntk.trace`, whose loop is on the host, by asking the functions that it compiles."""
    compiled = {name: getattr(importlib.import_module(module), name) for name, module in COMPILED.items()}
    calls: dict[str, list[tuple[Any, float]]] = {name: [] for name in COMPILED}

    def recording(name: str) -> Callable[..., jax.Array]:
        def record(*arguments: Any) -> jax.Array:
            start = time.perf_counter()
            result = jax.block_until_ready(compiled[name](*arguments))
            calls[name].append((arguments, time.perf_counter() - start))
            return result

        return record

    def run(key: jax.Array) -> ntk.Estimate:
        return ntk.trace(*problem, key=key, **options)

    loose = {"tolerance": 1e9} if options.get("method") in ("hutchinson", "hadamard") else {}

    try:
        for name, module in COMPILED.items():
            setattr(importlib.import_module(module), name, recording(name))
        for _ in range(2):
            ntk.trace(*problem, key=jax.random.key(0), **(options | loose))  # type: ignore[arg-type]
    finally:
        for name, module in COMPILED.items():
            setattr(importlib.import_module(module), name, compiled[name])
    made = {name: found for name, found in calls.items() if found}
    memory = max(temporary(compiled[name].lower(*found[0][0]).compile()) for name, found in made.items())
    return Program(run, sum(found[0][1] - found[-1][1] for found in made.values()), memory)


def temporary(compiled: Any) -> float:
    """Returns the bytes that a compiled program takes beside its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def seconds_of(program: Program, key: jax.Array) -> float:
    """Times one run, on all processors together."""
    start = time.process_time()
    jax.block_until_ready(program.run(key))
    return time.process_time() - start


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
