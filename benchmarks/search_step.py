"""A step of NASI's search in the DARTS space, beside the same step in PyTorch where it is installed.

    python benchmarks/search_step.py --batch 8 16 --out benchmarks/results/search_step_cpu.md

One-shot network, Gumbel-Softmax weights, the penalised trace (13) of one batch and its gradient with respect to the
weights of the operations. Each program runs in a process of its own, one after the other, so that its peak of resident
memory is its own; times are medians over steps as ratios to the peer's, or to the first program where there is none.
Compilation is the first step, with the draw of the parameters. The peer differentiates twice in reverse.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import tyro

PROGRAMS = ("blocks", "space", "PyTorch")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        programs: ways to compile, and PyTorch.
        batch: images in a batch.
        cells: cells of the network.
        channels: channels of its first cells.
        image_size: height and width of the images.
        steps: steps that are timed, after the first.
        alone: runs one program in this process and prints its figures as JSON.
    """

    out: pathlib.Path | None = None
    programs: tuple[str, ...] = ("blocks", "PyTorch")
    batch: tuple[int, ...] = (8,)
    cells: int = 8
    channels: int = 16
    image_size: int = 32
    steps: int = 4
    alone: str | None = None


def main(options: Options) -> None:
    """Measures and prints the table."""
    if options.alone is not None:
        steps = peer_steps(options) if options.alone == "PyTorch" else our_steps(options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"first": steps[0], "step": statistics.median(steps[1:]), "gigabytes": peak}))
        return
    programs = [name for name in options.programs if name != "PyTorch" or importlib.util.find_spec("torch")]
    lines = ["| program | batch | a step | first step, in steps of its own | peak memory, GB |", "| --- " * 5 + "|"]
    for batch in options.batch:
        found = {name: measured(options, name, batch) for name in programs}
        unit = found.get("PyTorch", found[programs[0]])["step"]
        for name, figures in found.items():
            first = figures["first"] / figures["step"]
            lines.append(
                f"| {name} | {batch} | {figures['step'] / unit:.2f} | {first:.0f} | {figures['gigabytes']:.1f} |"
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


def our_steps(options: Options) -> list[float]:
    """Times our steps, the first with all compilation."""
    import jax

    from nasi_jax import data, search, spaces
    from nasi_jax.programs import choose_execution

    space = spaces.get("darts")
    config = dataclasses.replace(
        search.preset("nasi-fix", space),
        batch=options.batch[0], size=space.Size(options.channels, options.cells), steps=options.steps + 1,
    )  # fmt: skip
    source = data.Gaussian((options.image_size, options.image_size, 3))
    execution = choose_execution("search", {"blocks"}, blocks=options.alone == "blocks")
    times, start = [], time.perf_counter()
    for states, _ in search.iterate(jax.random.key(0)[None], space, source, config, execution=execution):
        jax.block_until_ready(states)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return times


def peer_steps(options: Options) -> list[float]:
    """Times the steps of a network written as in the authors' code."""
    import torch_darts

    torch, functional = torch_darts.torch, torch_darts.functional
    network, times = torch_darts.Network(None, options.channels, options.cells), []
    logits = [torch.zeros(14, 7, requires_grad=True) for _ in range(2)]
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        x = torch.randn(options.batch[0], 3, options.image_size, options.image_size)
        y = torch.randint(0, 10, (options.batch[0],))
        weights = [functional.gumbel_softmax(values) for values in logits]
        loss = functional.cross_entropy(network(x, weights), y)
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        trace = sum((g**2).sum() for g in gradients)
        objective = trace - 2 * functional.relu(trace - 100)
        torch.autograd.grad(objective, logits)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
