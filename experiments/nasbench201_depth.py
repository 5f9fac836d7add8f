"""Shows why the depth of the scored network decides what a NAS-Bench-201 search finds.

Measures NASI's one-batch trace estimate and the participation ratio of the NTK for a few cells that differ in their
direct edge from input to output, in networks of one and of five cells a stage.

    python experiments/nasbench201_depth.py

Writes a Markdown table to experiments/results/nasbench201_depth.md; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib

import jax
import numpy as np
import tyro

from nasi_jax import data, ntk, search, spaces

CELLS = {
    "3x3 everywhere but skip 0→3": "|{c}~0|+|{c}~0|{c}~1|+|skip_connect~0|{c}~1|{c}~2|",
    "3x3 everywhere": "|{c}~0|+|{c}~0|{c}~1|+|{c}~0|{c}~1|{c}~2|",
    "3x3 everywhere but none 0→3": "|{c}~0|+|{c}~0|{c}~1|+|none~0|{c}~1|{c}~2|",
    "1x1 everywhere": "|{o}~0|+|{o}~0|{o}~1|+|{o}~0|{o}~1|{o}~2|",
    "skip everywhere": "|{s}~0|+|{s}~0|{s}~1|+|{s}~0|{s}~1|{s}~2|",
    "average pooling everywhere": "|{a}~0|+|{a}~0|{a}~1|+|{a}~0|{a}~1|{a}~2|",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure a few cells at two depths.

    Attributes:
        out: the table to write.
        seeds: initialisations and batches to average over.
        channels: channels of the first stage.
        image_size: height and width of the Gaussian images.
        batch: images in a batch.
        depths: cells a stage.
    """

    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_depth.md")
    seeds: int = 3
    channels: int = 16
    image_size: int = 16
    batch: int = 32
    depths: tuple[int, ...] = (1, 5)


def main(options: Options) -> None:
    """Measures all cells and writes the table."""
    columns = {depth: measure(options, depth) for depth in options.depths}
    head = [f"{name}, {depth} cell{'s' * (depth > 1)} a stage" for depth in columns for name in ("T~", "ratio")]
    lines = ["| cell | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(head)]
    for cell in CELLS:
        figures = [f"{figure:.3g}" for depth in columns for figure in columns[depth][cell]]
        lines.append(f"| {cell} | " + " | ".join(figures) + " |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def measure(options: Options, depth: int) -> dict[str, tuple[float, float]]:
    """Returns for each cell the geometric means over seeds of the one-batch estimate and the participation ratio."""
    space = spaces.get("nasbench201")
    strategy = search.NASI(size=space.Size(options.channels, depth), batch=options.batch)
    source = data.Gaussian((options.image_size, options.image_size, 3))
    module = strategy.one_shot(space, source)
    draw = jax.jit(lambda key: strategy.init_params(space, source, key))

    @jax.jit
    def figures(params: dict, weights: spaces.Weights, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, y = source.batch(key, strategy.batch)

        def network(p: dict, x: jax.Array) -> jax.Array:
            return module.apply({"params": p}, x, weights)  # type: ignore[return-value]

        return ntk.one_batch(network, params, x, y), ntk.participation_ratio(network, params, x, key).ratio

    results = {}
    for name, text in CELLS.items():
        operations = {"c": "nor_conv_3x3", "o": "nor_conv_1x1", "s": "skip_connect", "a": "avg_pool_3x3"}
        weights = space.encode(space.parse(text.format(**operations)))
        keys = [jax.random.key(seed) for seed in range(options.seeds)]
        drawn = np.array([figures(draw(key), weights, key) for key in keys])
        trace, ratio = (math.exp(mean) for mean in np.log(drawn).mean(axis=0))
        results[name] = (trace, ratio)
    return results


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
