"""A step of DARTS and of SNAS in the DARTS space, beside the same step in PyTorch where it is installed.

    python benchmarks/bilevel_step.py --batch 8 16 --out benchmarks/results/bilevel_step_cpu.md

First and second order: a step of the logits by the validation loss and one of the weights by the training loss. SNAS:
one backward pass for both. PyTorch's second order is the authors' finite difference, ours is exact or the same
difference. Each program runs in a process of its own, one after the other, so that its peaks of resident memory are its
own: of the steps after the first, and of all with compilation. Linux alone tells the former. Times are the least over
the steps after the first, as ratios to the peer's, or to our own where there is none, by the clock on the wall and by
what all cores spent on it, which other processes disturb less. Compilation is the first step, with the draw of the
parameters. On a busy machine, one thread each compares best: OMP_NUM_THREADS=1 taskset -c 0.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import tyro

STEPS = {"first": "first order", "second": "second order", "finite-difference": "finite difference", "snas": "SNAS"}
_STATUS, _CLEAR = (pathlib.Path("/proc/self") / name for name in ("status", "clear_refs"))
PEER_OF = {"finite-difference": "second"}
"""Steps whose peer is that of another one: the authors' second order is a finite difference."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        kinds: which steps: first, second, finite-difference, snas.
        batch: images in each batch of a step.
        cells: cells of the network.
        channels: channels of its first cells.
        image_size: height and width of the images.
        steps: steps that are timed, after the first.
        alone: runs one program in this process and prints its figures as JSON: a kind, or "torch-" and a kind.
    """

    out: pathlib.Path | None = None
    kinds: tuple[str, ...] = ("first", "second", "snas")
    batch: tuple[int, ...] = (8,)
    cells: int = 8
    channels: int = 16
    image_size: int = 32
    steps: int = 8
    alone: str | None = None


def main(options: Options) -> None:
    """Measures and prints the table."""
    if options.alone is not None:
        kind = options.alone.removeprefix("torch-")
        clocks = Clocks()
        (our_steps if kind == options.alone else peer_steps)(options, kind, clocks)
        print(json.dumps(clocks.figures()))
        return
    lines = [
        "| step | program | batch | a step | processor time | first step, in steps of its own | memory of steps, GB | "
        "with compilation, GB |",
        "| --- " * 8 + "|",
    ]
    peers: dict[tuple[str, int], dict[str, float]] = {}
    for batch in options.batch:
        for kind in options.kinds:
            found, peer = {"nasi_jax": measured(options, kind, batch)}, PEER_OF.get(kind, kind)
            if importlib.util.find_spec("torch"):
                if (peer, batch) not in peers:
                    peers[peer, batch] = measured(options, f"torch-{peer}", batch)
                found["PyTorch"] = peers[peer, batch]
            unit = found.get("PyTorch", found["nasi_jax"])
            for name, figures in found.items():
                ratio, spent = (figures[clock] / unit[clock] for clock in ("step", "processor"))
                lines.append(
                    f"| {STEPS[kind]} | {name} | {batch} | {ratio:.2f} | {spent:.2f} | {figures['first']:.0f} | "
                    f"{figures['gigabytes']:.2f} | {figures['largest']:.2f} |"
                )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def measured(options: Options, program: str, batch: int) -> dict[str, float]:
    """Runs one program in a process of its own."""
    size = {name: getattr(options, name) for name in ("cells", "channels", "image_size", "steps")}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in size.items()]
    command = [sys.executable, __file__, "--alone", program, "--batch", str(batch), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


class Clocks:
    """Takes the time of steps one after the other, and memory from the end of the first on."""

    def __init__(self) -> None:
        """Starts the first step."""
        self._steps: list[tuple[float, float]] = []
        self._first_peak = 0.0
        self._start = self._now()

    def lap(self) -> None:
        """Ends a step and starts the next one."""
        before, now = self._start, self._now()
        self._steps.append((now[0] - before[0], now[1] - before[1]))
        if len(self._steps) == 1:
            self._first_peak = self._peak()
            _CLEAR.write_text("5")
        self._start = self._now()

    def figures(self) -> dict[str, float]:
        """Returns the least time of the steps after the first in seconds, its own in steps, and gigabytes."""
        wall, spent = (min(step[i] for step in self._steps[1:]) for i in range(2))
        peak = self._peak()
        first = self._steps[0][0] / wall
        return {
            "first": first,
            "step": wall,
            "processor": spent,
            "gigabytes": peak,
            "largest": max(peak, self._first_peak),
        }

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _peak(self) -> float:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20


def our_steps(options: Options, kind: str, clocks: Clocks) -> None:
    """Takes our steps, the first with all compilation."""
    import jax

    from nasi_jax import data, search, spaces

    space = spaces.get("darts")
    size, count = space.Size(options.channels, options.cells), options.steps + 1
    small: dict[str, Any] = {"steps": count, "batch": options.batch[0], "moments": 1, "size": size}
    strategy = search.SNAS(**small) if kind == "snas" else search.DARTS(**small, order=kind, auxiliary_skip=0.0)  # type: ignore[arg-type]
    source = data.Gaussian((options.image_size, options.image_size, 3))
    # what SNAS measures after its steps is no part of them
    strategy = dataclasses.replace(strategy, steps=count + 1)
    for states, _ in itertools.islice(search.iterate(jax.random.key(0)[None], space, source, strategy), count):
        jax.block_until_ready(states)
        clocks.lap()


def peer_steps(options: Options, kind: str, clocks: Clocks) -> None:
    """Takes the steps of a network written as in the authors' code."""
    import torch_darts

    torch, functional = torch_darts.torch, torch_darts.functional
    network = torch_darts.Network(None, options.channels, options.cells)
    params = list(network.parameters())
    logits = [torch.zeros(14, 7, requires_grad=True) for _ in range(2)]
    weights_optimizer = torch.optim.SGD(params, 0.025, momentum=0.9, weight_decay=3e-4)
    logits_optimizer = torch.optim.Adam(logits, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def loss(batch: Any, sampled: bool = False) -> Any:
        weigh = functional.gumbel_softmax if sampled else functional.softmax
        weights = [weigh(values, dim=-1) for values in logits]
        return functional.cross_entropy(network(batch[0], weights), batch[1])

    def move(by: list[Any], factor: float) -> None:
        with torch.no_grad():
            for param, direction in zip(params, by, strict=True):
                param.add_(direction, alpha=factor)

    def second(training: Any, validation: Any) -> list[Any]:
        velocities = [weights_optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)) for p in params]
        gradients = torch.autograd.grad(loss(training), params)
        ahead = [0.9 * v + g + 3e-4 * p.detach() for v, g, p in zip(velocities, gradients, params, strict=True)]
        move(ahead, -0.025)
        found = torch.autograd.grad(loss(validation), [*logits, *params])
        slopes, direction = found[:2], found[2:]
        move(ahead, 0.025)
        step = 0.01 / torch.sqrt(sum((d**2).sum() for d in direction)).item()
        move(direction, step)
        up = torch.autograd.grad(loss(training), logits)
        move(direction, -2 * step)
        down = torch.autograd.grad(loss(training), logits)
        move(direction, step)
        return [s - 0.025 * (a - b) / (2 * step) for s, a, b in zip(slopes, up, down, strict=True)]

    def descend(value: Any, along: list[Any]) -> None:
        for leaf, gradient in zip(along, torch.autograd.grad(value, along), strict=True):
            leaf.grad = gradient
        torch.nn.utils.clip_grad_norm_(params, 5.0)
        weights_optimizer.step()

    for _ in range(options.steps + 1):
        training, validation = (
            (
                torch.randn(options.batch[0], 3, options.image_size, options.image_size),
                torch.randint(0, 10, (options.batch[0],)),
            )
            for _ in range(2)
        )
        if kind == "snas":
            descend(loss(training, sampled=True), [*params, *logits])
            logits_optimizer.step()
        else:
            slopes = second(training, validation) if kind == "second" else torch.autograd.grad(loss(validation), logits)
            for leaf, slope in zip(logits, slopes, strict=True):
                leaf.grad = slope
            logits_optimizer.step()
            descend(loss(training), params)
        clocks.lap()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
