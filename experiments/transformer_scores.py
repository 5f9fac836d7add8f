"""Ranks the encoders of NAS-Bench-BERT by the effective rank of their layers' outputs, on text and on random ids.

Scores the networks that the benchmark trained by `feature-effective-rank`, of singular values and of eigenvalues, and
compares with their GLUE and MNLI scores: Spearman's correlation for each seed and of the mean over seeds, with a
bootstrap interval, and the mean of the correlations within groups of equal width and depth. Beside them stand what
needs no score: parameters, depth, and width times depth. Encoders that begin alike share what they compute, which
halves the time; `nasi score --space nasbench-bert` gives the same scores for any architecture.

    python experiments/transformer_scores.py --table nasbench_bert.csv.gz --text wikitext2_valid.npz

Writes a Markdown table to experiments/results/transformer_scores.md; expected: experiments/README.md. `--smoke` runs a
few small encoders in a minute.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import spearmanr

from nasi_jax import data, proxies, tabular
from nasi_jax.nn import Dense
from nasi_jax.nn.transformer import Embedding, without_padding
from nasi_jax.spaces import NASBenchBERTSize
from nasi_jax.spaces.nasbench_bert_network import Layer
from nasi_jax.spaces.nasbench_bert_text import LAYERS, parse

RANKS: dict[str, Callable[[list[jax.Array]], jax.Array]] = {
    "feature-effective-rank(of=singular-values)": functools.partial(proxies.effective_rank, of="singular-values"),
    "feature-effective-rank": proxies.effective_rank,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Rank encoders by the effective rank of their layers' outputs.

    Attributes:
        table: CSV file, which may be compressed, with trained, hidden, layers, and glue and mnli where these are known.
        text: .npz file of token ids or a text, see `nasi score --help`; without, random ids alone.
        encoders: how many different ones are scored, drawn at random; 0 is all that have a GLUE score.
        seeds: initialisations and batches, of a text and of random ids.
        length: tokens of a sequence.
        batch: sequences in the batch.
        out: the table to write.
        smoke: run a few small encoders, to see that the script works.
    """

    table: pathlib.Path
    text: pathlib.Path | None = None
    encoders: int = 0
    seeds: tuple[int, int] = (3, 3)
    length: int = 32
    batch: int = 16
    out: pathlib.Path = pathlib.Path("experiments/results/transformer_scores.md")
    smoke: bool = False


def main(options: Options) -> None:
    """Scores, ranks, and writes the table."""
    size = NASBenchBERTSize()
    if options.smoke:
        options = dataclasses.replace(options, encoders=8, seeds=(2, 2), length=8, batch=4)
        size = NASBenchBERTSize(8, 4, 8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = known(options.table, options.encoders)
    sources: dict[str, Any] = {"random ids": data.RandomTokens(options.length)}
    if options.text is not None:
        sources = {"text": data.load(str(options.text), length=options.length)} | sources
    lines = [
        f"{len(rows)} encoders, {len({row['trained'] for row in rows})} different networks; {options.batch} sequences "
        f"of {options.length} tokens.", "",
        "| scored on | score | seeds | GLUE | MNLI | GLUE, each seed | GLUE within groups | MNLI within groups |",
        "| --- " * 8 + "|",
        *(line("", name, [values], rows) for name, values in figures(rows).items()),
    ]  # fmt: skip
    for kind, source in sources.items():
        found = []
        for seed in range(options.seeds[kind != "text"]):
            start = time.process_time()
            found.append(scored([row["trained"] for row in rows], source, seed, options.batch, size))
            print(f"{kind}, seed {seed}: {time.process_time() - start:.0f} s of processor time", flush=True)
            for name in RANKS:
                print(line(kind, name, [values[name] for values in found], rows), flush=True)
        lines += [line(kind, name, [values[name] for values in found], rows) for name in RANKS if found]
    text = "\n".join(lines) + "\n"
    options.out.write_text(text)
    print(text)


def scored(
    texts: list[str], source: data.Source, seed: int, batch: int, size: NASBenchBERTSize
) -> dict[str, np.ndarray]:
    """Scores encoders, each layer that several of them have behind the same ones once.

    Args:
        texts: the encoders.
        source: gives token ids.
        seed: of parameters and batch.
        batch: sequences in the batch.
        size: size of the networks.

    Returns:
        For each of `RANKS` an array (encoders,).
    """
    key, batch_key = jax.random.split(jax.random.key(seed))
    x = jax.jit(lambda key: unmasked(source, key, batch))(batch_key)

    @functools.cache
    def begun(width: int) -> tuple[jax.Array, dict[str, float]]:
        embedding = Embedding(size.embedding, size.positions)
        states = jax.jit(lambda key, x: embedding.init_with_output(key, x)[0][0])(key, x)
        if size.channels(width) != size.embedding:
            states = jax.jit(Dense(size.channels(width)).init_with_output)(key, states)[0]
        return states, ranks(states, x.mask)

    @functools.cache
    def params(width: int, number: int) -> Any:
        h, every = begun(width)[0], Layer(size, tuple(range(len(LAYERS))))
        return _initial(every, jax.random.fold_in(key, number), h, x.mask)

    @functools.cache
    def behind(width: int, layers: tuple[int, ...]) -> tuple[jax.Array, dict[str, float]]:
        if not layers:
            return begun(width)
        h, sums = behind(width, layers[:-1])
        h = _applied(Layer(size, layers[-1:]), params(width, len(layers)), h, x.mask)
        return h, {name: sums[name] + value for name, value in ranks(h, x.mask).items()}

    found = [behind(*parse(text))[1] for text in texts]
    return {name: np.array([values[name] for values in found]) for name in RANKS}


def unmasked(source: data.Source, key: jax.Array, batch: int) -> data.TokenInput:
    """Draws a batch of token ids, of which none is masked out."""
    x = source.batch(key, batch).x
    return x.replace(targets=None)


def ranks(states: jax.Array, mask: jax.Array) -> dict[str, float]:
    """Returns the effective ranks of what a block hands on, (batch, length, channels)."""
    shown = [without_padding(states, mask)]
    return {name: float(rank(shown)) for name, rank in RANKS.items()}


@functools.partial(jax.jit, static_argnums=0)
def _initial(module: Layer, key: jax.Array, h: jax.Array, mask: jax.Array) -> Any:
    return module.init(key, h, mask, jnp.ones(len(LAYERS)))["params"]


@functools.partial(jax.jit, static_argnums=0)
def _applied(module: Layer, params: Any, h: jax.Array, mask: jax.Array) -> jax.Array:
    return module.apply({"params": params}, h, mask)  # type: ignore[return-value]


def known(table: pathlib.Path, encoders: int) -> list[dict[str, str]]:
    """Returns the rows of the table with a GLUE score; of some different networks alone where a number is given."""
    opened = gzip.open if table.suffix == ".gz" else open
    with opened(table, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["glue"]]
    networks = sorted({row["trained"] for row in rows})
    drawn = np.random.default_rng(0).permutation(len(networks))[: encoders or None]
    chosen = {networks[i] for i in drawn}
    return [row for row in rows if row["trained"] in chosen]


def figures(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Returns what needs no score."""
    width, depth, params = (
        np.array([float(row[name]) for row in rows]) for name in ("hidden", "layers", "params_trained")
    )
    return {"parameters": params, "depth": depth, "width times depth": width * depth}


def line(kind: str, name: str, values: list[np.ndarray], rows: list[dict[str, str]]) -> str:
    """Returns the line of a score, of its values for each seed."""
    mean, cells = np.mean(values, axis=0), []
    targets = [np.array([float(row[column]) for row in rows]) for column in ("glue", "mnli")]
    for truth in targets:
        value, low, high = tabular.rank(mean, truth, resamples=300, only=("spearman",)).statistics["spearman"]
        cells.append(f"{value:.3f} ({low:.2f} to {high:.2f})")
    seeds = [f"{spearmanr(own, targets[0])[0]:.3f}" for own in values]
    cells.append(", ".join(seeds) if len(values) > 1 else "")
    cells += [f"{within(mean, truth, rows):.2f}" for truth in targets]
    return f"| {kind} | {name} | {len(values) if kind else ''} | {' | '.join(cells)} |"


def within(values: np.ndarray, truth: np.ndarray, rows: list[dict[str, str]]) -> float:
    """Returns the mean correlation within groups of equal width and depth, 0 in one where all values are equal."""
    groups = np.array([f"{row['hidden']} {row['layers']}" for row in rows])
    found = []
    for group in np.unique(groups):
        own = groups == group
        if own.sum() > 2:
            constant = np.ptp(values[own]) == 0
            found.append(0.0 if constant else spearmanr(values[own], truth[own])[0])
    return float(np.mean(found)) if found else float("nan")


if __name__ == "__main__":
    main(tyro.cli(Options))
