"""A training step beside PyTorch's, and a population in one program beside its members one after the other.

    python benchmarks/training_step.py --out benchmarks/results/training_step_cpu.md
    python benchmarks/training_step.py --batch 96 --precision bfloat16 --steps 50    # an accelerator

Two networks under their recipes: a ResNet-like cell of NAS-Bench-201, and DARTS_V2 in 20 cells with 36 channels and the
auxiliary head. Times are medians of steps, taken in one process and in turn; the images are random and stay on the
device. PyTorch's step has the same optimiser and losses on images that need no change, ours changes them too. Separable
convolutions are computed as they are written, or "fused" as the dense ones that they equal. "Peak" is the share of the
rate of one large matrix product in the same type, for three times the multiply-adds of the network as it is written
(forward, and gradients by inputs and by parameters). A population is a `vmap` of the step over its members.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nasi_jax import data, programs, scores, spaces, train
from nasi_jax.programs import Execution

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
NETWORKS = {
    "NAS-Bench-201 cell": ("nasbench201", spaces.get("nasbench201").parse(CELL), train.RECIPES["nasbench201"]),
    "DARTS_V2": ("darts", spaces.DARTS_V2, train.RECIPES["darts-cifar"]),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        networks: those that are compared with PyTorch.
        channels: channels of both networks, and those of a member of the population.
        cells: size in cells of all three.
        batch: images in a batch.
        image_size: height and width of all three.
        members: networks in the population; 0 is none.
        precision: see `nasi_jax.train.Recipe`; PyTorch's is its autocast.
        steps: timed steps of each, after one that compiles.
        product: rows and columns of the large matrix product.
    """

    out: pathlib.Path | None = None
    networks: tuple[str, ...] = tuple(NETWORKS)
    channels: tuple[int, int, int] = (16, 36, 4)
    cells: tuple[int, int, int] = (5, 20, 1)
    batch: int = 16
    image_size: tuple[int, int, int] = (32, 32, 16)
    members: int = 8
    precision: Literal["float32", "bfloat16"] = "float32"
    steps: int = 5
    product: int = 4096


def main(options: Options) -> None:
    """Measures and prints the table."""
    rate, rows = product_rate(options), []
    for which, name in enumerate(NETWORKS):
        if name in options.networks:
            programs = {"nasi_jax": ours(options, which, 1, fused=False)}
            if name == "DARTS_V2":
                programs["nasi_jax, fused"] = ours(options, which, 1, fused=True)
            if importlib.util.find_spec("torch"):
                programs["PyTorch"] = peer(options, which)
            rows += measured(options, programs, name, operations(options, which) / rate)
    if options.members:
        ways = {way: ours(options, 2, options.members, together=way == "vmap") for way in ("one by one", "vmap")}
        rows += measured(
            options, ways, f"{options.members} small networks", options.members * operations(options, 2) / rate
        )
    measured_at = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(options).items() if name != "out")
    head = f"{jax.devices()[0].device_kind}, jax {jax.__version__}; {measured_at}.\n\n"
    lines = ["| what | program | a step, ratio to the last row | peak | first step, in steps of its own |"]
    text = head + "\n".join([*lines, "| --- " * 5 + "|", *rows]) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def measured(options: Options, programs: dict[str, Callable[[], Any]], what: str, least: float) -> list[str]:
    """Runs programs in turn and returns rows of the table; the last program is the unit, `least` seconds the peak."""
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
    return [
        f"| {what} | {name} | {s / unit:.2f} | {100 * least / s:.0f} % | {first[name] / s:.0f} |"
        for name, s in medians.items()
    ]


def product_rate(options: Options) -> float:
    """Returns the operations a second, two for each multiply-add, of one large matrix product."""
    a = jnp.ones((options.product, options.product), options.precision)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        seconds.append(time.perf_counter() - start)
    return 2 * options.product**3 / statistics.median(seconds)


def operations(options: Options, which: int) -> float:
    """Returns the operations of a step, two for each multiply-add."""
    name, genotype, recipe = settings(options, which)
    space, side = spaces.get(name), options.image_size[which]
    x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    counted = scores.Counter(space, x, train.size(space, recipe), 10)(genotype)
    return 3 * 2 * counted["flops"] * options.batch


def settings(options: Options, which: int) -> tuple[str, Any, train.Recipe]:
    """Returns space, genotype and recipe; the population has the first cell's."""
    name, genotype, recipe = list(NETWORKS.values())[which % 2]
    size = {"batch": options.batch, "channels": options.channels[which], "cells": options.cells[which]}
    return name, genotype, dataclasses.replace(recipe, **size, precision=options.precision, crop=2)


def ours(options: Options, which: int, members: int, *, together: bool = True, fused: bool = True) -> Callable[[], Any]:
    """Returns a function that takes a step of each member."""
    name, genotype, recipe = settings(options, which)
    rng, count, side = np.random.default_rng(0), 4 * options.batch, options.image_size[which]
    x = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    images = data.from_arrays(x, rng.integers(0, 10, count), classes=10)
    network = train.network(spaces.get(name), genotype, recipe, 10).clone(execution=Execution(fused=fused))
    keys = jax.vmap(jax.random.key)(jnp.arange(members))
    states: Any = train.init_states(keys, network, recipe, images)
    ordered = jnp.stack([train.order(images, key, 0) for key in keys])
    one = programs.jit_network(train.step, static_argnums=(0, 1, 2), donate_argnums=4)
    if together and members > 1:
        every = programs.jit_network(jax.vmap(train.step, in_axes=(*(None,) * 4, 0, 0, 0)), static_argnums=(0, 1, 2))

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


def peer(options: Options, which: int) -> Callable[[], Any]:
    """Returns a function that takes a step in PyTorch."""
    torch: Any = importlib.import_module("torch")
    import torch_darts
    import torch_nasbench201

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, genotype, recipe = settings(options, which)
    build: Any = torch_darts.Network if which else torch_nasbench201.network
    network = build(genotype, recipe.channels, recipe.cells).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )  # fmt: skip
    side = options.image_size[which]
    x = torch.randn(options.batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (options.batch,), device=device)
    half = torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16")

    def run() -> None:
        optimizer.zero_grad()
        with half:
            outputs = network(x)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            losses = [torch.nn.functional.cross_entropy(logits, y) for logits in outputs]
        sum(w * loss for w, loss in zip((1, recipe.auxiliary), losses, strict=False)).backward()  # type: ignore[union-attr]
        if recipe.gradient_clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
