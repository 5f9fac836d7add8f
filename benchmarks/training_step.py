"""A training step beside PyTorch's, and a population in one program beside its members one after the other.

    python benchmarks/training_step.py --out benchmarks/results/training_step_cpu.md

Times are medians of steps, taken in one process and in turn, of a ResNet-like cell under NAS-Bench-201's recipe; the
images are random and stay on the device. PyTorch's step is SGD with Nesterov's momentum on images that need no change,
ours crops and mirrors them too. A population is a `vmap` of the step over its members.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nasi_jax import data, spaces, train

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        channels: channels of the network, and those of a member of the population.
        cells: cells a stage of both.
        batch: images in a batch.
        image_size: height and width of both.
        members: networks in the population.
        steps: timed steps of each, after one that compiles.
    """

    out: pathlib.Path | None = None
    channels: tuple[int, int] = (16, 4)
    cells: tuple[int, int] = (5, 1)
    batch: int = 64
    image_size: tuple[int, int] = (32, 16)
    members: int = 8
    steps: int = 5


def main(options: Options) -> None:
    """Measures and prints the table."""
    rows = []
    single = {"nasi_jax": ours(options, 0, 1, together=True)}
    if importlib.util.find_spec("torch"):
        single["PyTorch"] = peer(options)
    rows += measured(options, single, "one network")
    ways = {way: ours(options, 1, options.members, together=way == "vmap") for way in ("one by one", "vmap")}
    rows += measured(options, ways, f"{options.members} small networks")
    head = f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options}\n\n"
    lines = ["| what | program | a step, ratio to the last row | first step, in steps of its own |", "| --- " * 4 + "|"]
    text = head + "\n".join([*lines, *rows]) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def measured(options: Options, programs: dict[str, Callable[[], Any]], what: str) -> list[str]:
    """Runs programs in turn and returns rows of the table; the last program is the unit."""
    first, seconds = {}, {name: [] for name in programs}
    for turn in range(options.steps + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            else:
                first[name] = time.perf_counter() - start
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    unit = list(medians.values())[-1]
    return [f"| {what} | {name} | {s / unit:.2f} | {first[name] / s:.0f} |" for name, s in medians.items()]


def ours(options: Options, which: int, members: int, together: bool) -> Callable[[], Any]:
    """Returns a function that takes a step of each member."""
    space, side = spaces.get("nasbench201"), options.image_size[which]
    recipe = dataclasses.replace(
        train.RECIPES["nasbench201"],
        batch=options.batch,
        channels=options.channels[which],
        cells=options.cells[which],
        crop=side // 8,
    )
    rng = np.random.default_rng(0)
    count = 4 * options.batch
    x = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    images = data.from_arrays(x, rng.integers(0, 10, count), classes=10)
    network = train.network(space, space.parse(CELL), recipe, 10)
    keys = jax.vmap(jax.random.key)(jnp.arange(members))
    states: Any = train.init_states(keys, network, recipe, images)
    ordered = jnp.stack([train.order(images, key, 0) for key in keys])
    one = jax.jit(train.step, static_argnums=(0, 1, 2))
    if together and members > 1:
        every = jax.jit(jax.vmap(train.step, in_axes=(*(None,) * 4, 0, 0, 0)), static_argnums=(0, 1, 2))

        def run() -> None:
            nonlocal states
            states = jax.block_until_ready(every(network, recipe, None, images, states, ordered, keys))

        return run
    apart = [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(members)]

    def run_apart() -> None:
        for i in range(members):
            apart[i] = one(network, recipe, None, images, apart[i], ordered[i], keys[i])
        jax.block_until_ready(apart)

    return run_apart


def peer(options: Options) -> Callable[[], Any]:
    """Returns a function that takes a step in PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]
    import torch_nasbench201

    device = "cuda" if torch.cuda.is_available() else "cpu"
    space = spaces.get("nasbench201")
    network = torch_nasbench201.network(space.parse(CELL), options.channels[0], options.cells[0]).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    x = torch.randn(options.batch, 3, options.image_size[0], options.image_size[0], device=device)
    y = torch.randint(0, 10, (options.batch,), device=device)

    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
