"""A gradient of graph networks over a whole graph beside PyTorch's with sparse products.

    python benchmarks/graph_step.py --graph cora.npz --out benchmarks/results/graph_step_cpu.md

Architectures of NAS-Bench-Graph at the benchmark's size for Cora, the mean loss of the labelled nodes and its gradient
by all parameters, the whole graph through the network. Both run in one process and in turn, from the same parameters;
times are medians. The difference is the largest one of the gradients, in units of their largest entry.
"""

from __future__ import annotations

import dataclasses
import importlib
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

from nasi_jax import data, spaces
from nasi_jax.programs import jit_network

SPACE = spaces.NASBenchGraph()
ARCHITECTURES = (
    "0122|gcn|gcn|skip|skip",
    "0123|gcn|gcn|gcn|gcn",
    "0012|cheb|sage|graph|arma",
    "0012|gat|gin|fc|gcn",
    "0000|gcn|gin|sage|fc",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        graph: .npz file of a graph; without, a random one of about Cora's size.
        out: Markdown file to write; only printed without.
        architectures: those whose gradients are taken.
        hidden: channels.
        steps: timed gradients of each, after one that compiles.
    """

    graph: pathlib.Path | None = None
    out: pathlib.Path | None = None
    architectures: tuple[str, ...] = ARCHITECTURES
    hidden: int = 256
    steps: int = 20


def main(options: Options) -> None:
    """Measures and prints the table."""
    if options.graph is None:
        random = data.RandomGraphs("node", nodes=2708, degree=4, node_features=1433, outputs=7)
        x, y = random.batch(jax.random.key(0), 140)
    else:
        source: Any = data.load(str(options.graph))
        x, y = source.prepare(source.x), source.y
    rows = [row(options, text, x, y) for text in options.architectures]
    lines = ["| architecture | nasi_jax, ratio to PyTorch | PyTorch, ms | compiled in, s | difference |"]
    head = f"{jax.devices()[0].device_kind}, jax {jax.__version__}; hidden {options.hidden}, steps {options.steps}, "
    head += f"graph {'random' if options.graph is None else options.graph.name}.\n\n"
    text = head + "\n".join([*lines, "| --- " * 5 + "|", *rows]) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def row(options: Options, text: str, x: Any, y: jax.Array) -> str:
    """Returns the line of an architecture."""
    module: Any = SPACE.network(SPACE.parse(text), SPACE.Size(hidden=options.hidden), int(np.max(y)) + 1)
    params = module.init(jax.random.key(0), x)["params"]

    def loss(params: Any, x: Any) -> jax.Array:
        logits = jax.nn.log_softmax(module.apply({"params": params}, x))
        return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))

    program = jit_network(jax.grad(loss))
    start = time.perf_counter()
    found = jax.block_until_ready(program(params, x))
    first = time.perf_counter() - start
    programs: dict[str, Callable[[], Any]] = {"ours": lambda: jax.block_until_ready(program(params, x))}
    difference = ""
    if importlib.util.find_spec("torch"):
        peer = importlib.import_module("torch_graph")
        graph = x.graphs.value
        there = np.asarray(graph.is_edge[0])
        links, operations = text.split("|")[0], tuple(text.split("|")[1:])
        programs["peer"] = peer.gradient(
            jax.tree.map(np.asarray, params), tuple(map(int, links)), operations, np.asarray(graph.nodes[0]),
            np.asarray(graph.senders[0])[there], np.asarray(graph.receivers[0])[there], np.asarray(x.targets),
            np.asarray(y),
        )  # fmt: skip
        difference = f"{apart(found, programs['peer']()):.1e}"
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.steps):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    name = text.replace("|", "\\|")
    if "peer" not in medians:
        return f"| `{name}` | | | {first - medians['ours']:.1f} | |"
    ratio = medians["ours"] / medians["peer"]
    return f"| `{name}` | {ratio:.2f} | {1e3 * medians['peer']:.0f} | {first - medians['ours']:.1f} | {difference} |"


def apart(ours: Any, theirs: Any) -> float:
    """Returns the largest difference of two gradients in units of the largest entry of all."""
    pairs = []

    def walk(mine: Any, other: Any) -> None:
        for name, leaf in mine.items():
            if isinstance(leaf, dict):
                walk(leaf, other[name])
            else:
                there = np.zeros(leaf.shape) if other[name] is None else other[name].numpy()
                pairs.append((float(np.abs(leaf).max()), float(np.abs(np.asarray(leaf) - there).max())))

    walk(ours, theirs)
    return max(gap for _, gap in pairs) / max(size for size, _ in pairs)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
