"""Searches NAS-BERT's space block by block, and trains a front of four sizes beside networks of equal size.

    python experiments/nasbert_search.py --text wikitext2_valid.npz

Reads token ids of a running text from an .npz file with `tokens`, keeps its most frequent words, and searches at toy
size by both estimates of a block: the NTK score at initialisation, and the distillation loss against a teacher that is
trained first. From each search the best network below the size of each of four networks made by hand is taken, and
random networks of that size are drawn. All of them are trained on masked words from the start, with several seeds, and
compared by their loss on sequences that none of them has seen. How the estimates rank the same drawn blocks is measured
too. Writes results.json, a table and a figure into experiments/results/nasbert_search; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from nasi_jax import data, scores, search, spaces, train
from nasi_jax.scores import Limits

SPACE = spaces.NASBERT()
HAND_MADE = ("256:M,F,M,F,M,F", "384:M,F,M,F", "512:M,F,M,F", "512:M,F,M,F,M,F")
"""In each of the four blocks."""
TEACHER = "|".join(["512:M,F"] * 4)


@dataclasses.dataclass(frozen=True)
class Options:
    """A search of NAS-BERT's space at toy size.

    Attributes:
        text: .npz file with token ids of a running text of BERT's vocabulary.
        out: folder of the results.
        seeds: trainings of each network; of random ones each of another network.
        width: largest width.
        embedding: channels of the embedding.
        length: tokens of a sequence.
        words: words that are kept, the most frequent ones.
        teacher_steps: steps of the teacher.
        round_steps: steps of the shared weights of a block in each round.
        pool: candidates of each of ten bins that a search begins with.
        drawn: blocks that both estimates rank.
        steps: steps of each training.
        batch: sequences in a batch.
        smoke: run everything in about a minute, with numbers that mean nothing.
    """

    text: pathlib.Path
    out: pathlib.Path = pathlib.Path("experiments/results/nasbert_search")
    seeds: int = 3
    width: int = 64
    embedding: int = 32
    length: int = 32
    words: int = 2000
    teacher_steps: int = 2000
    round_steps: int = 200
    pool: int = 8
    drawn: int = 60
    steps: int = 1000
    batch: int = 32
    smoke: bool = False


def main(options: Options) -> None:
    """Searches, trains, and writes the results."""
    if options.smoke:
        options = dataclasses.replace(
            options, seeds=1, width=16, embedding=4, length=8, words=50, teacher_steps=4, round_steps=4, pool=2,
            drawn=6, steps=3, batch=4,
        )  # fmt: skip
    training, test = read(options)
    size = SPACE.Size(options.width, options.embedding, options.length)
    costs = scores.block_costs(SPACE, size, training.outputs, data.shapes(training, 2).x)
    by_hand = [SPACE.parse("|".join([block] * 4)) for block in HAND_MADE]
    counter = scores.Counter(SPACE, data.shapes(training, 2).x, size, training.outputs)
    limits = [counter(genotype)["params"] for genotype in by_hand]

    networks: dict[str, list[list[Any]]] = {"made by hand": [[genotype] * options.seeds for genotype in by_hand]}
    ranks, searches = {}, {}
    for name, estimate in estimates(options, size, training).items():
        start = time.monotonic()
        found, ranks[name] = searched(options, costs, estimate, limits)
        networks[f"blockwise, {name}"] = [[genotype] * options.seeds for genotype in found]
        searches[name] = {"seconds": time.monotonic() - start, "genotypes": [SPACE.format(g) for g in found]}
    networks["random"] = [[random(costs, limit, seed) for seed in range(options.seeds)] for limit in limits]

    rows = []
    for name, of_sizes in networks.items():
        for limit, genotypes in zip(limits, of_sizes, strict=True):
            for seed, genotype in enumerate(genotypes):
                row = {"network": name, "limit": limit, "seed": seed, "genotype": SPACE.format(genotype)}
                row |= {"params": counter(genotype)["params"]}
                row["loss"] = trained(options, size, genotype, training, test, seed)
                rows.append(row)
                print(row, flush=True)
    blocks = correlations(ranks)
    write(options, limits, rows, {"searches": searches, "correlations": blocks})


def read(options: Options) -> tuple[data.TokenData, data.TokenData]:
    """Returns training and held-out sequences, the last tenth, whose words are masked out."""
    with np.load(options.text) as file:
        tokens = file["tokens"].astype(int)
    known, counts = np.unique(tokens[tokens > data.Vocabulary().mask], return_counts=True)
    kept = known[np.argsort(-counts, kind="stable")[: options.words]]
    vocabulary = data.Vocabulary(5 + len(kept), padding=0, unknown=1, begin=2, end=3, mask=4)
    ids = np.full(1 + max(tokens.max(), kept.max()), vocabulary.unknown)
    ids[kept] = np.arange(5, 5 + len(kept))
    rows = ids[tokens[: len(tokens) // options.length * options.length]].reshape(-1, options.length)
    # what stands for rare words is never to be guessed
    rows = rows[(rows != vocabulary.unknown).mean(axis=1) > 0.5]
    whole = data.from_tokens(rows, labels="masked", vocabulary=vocabulary)
    first = np.arange(len(whole) - len(whole) // 10)
    return whole.part(first), whole.part(np.arange(len(first), len(whole)))


def estimates(options: Options, size: Any, training: data.TokenData) -> dict[str, search.BlockEstimate]:
    """Returns the estimates of a block by name; trains the teacher."""
    genotype = SPACE.parse(TEACHER)
    params, loss = train.train_teacher(
        jax.random.key(0), SPACE, genotype, size, training, options.teacher_steps, options.batch
    )
    print(f"loss of the teacher {loss:.3f}", flush=True)
    noise = data.RandomTokens(options.length, training.vocabulary.size)
    return {
        "NTK at initialisation": scores.BlockNTK(SPACE, size, noise, batch=options.batch),
        "distillation": train.Distillation(
            SPACE, size, training, train.as_teacher(SPACE, genotype, size, params), steps=options.round_steps,
            batch=options.batch,
        ),
    }  # fmt: skip


def searched(
    options: Options, costs: scores.BlockCosts, estimate: search.BlockEstimate, limits: list[float]
) -> tuple[list[Any], np.ndarray]:
    """Returns the best network below each limit, and the values of drawn blocks, (blocks, drawn)."""
    strategy = search.Blockwise(pool=options.pool, kept=max(1, options.pool // 4), warmup=1)
    binned = strategy.binned({"params": costs.candidates["params"]})
    state = strategy.init(0, SPACE.blocks, binned, estimate)
    for latest, info in strategy.run(0, binned, estimate, state):
        state = latest
        print(info, flush=True)
    chain, left = search.table(state, costs.ports, costs.candidates, costs.joints)
    found = []
    for limit in limits:
        places = chain.best(Limits(max_params=limit))[0].places
        found.append(SPACE.joined([int(numbers[place]) for numbers, place in zip(left, places, strict=True)]))
    drawn = np.random.default_rng(0).integers(0, len(costs.ports), options.drawn)
    return found, np.stack([estimate.values(state.estimate, block, drawn) for block in range(SPACE.blocks)])


def random(costs: scores.BlockCosts, limit: float, seed: int) -> Any:
    """Draws networks until one has between 90 and 100 % of the parameters of a limit, after many at least 50 %."""
    generator = np.random.default_rng([seed, int(limit)])
    for attempt in range(100_000):
        numbers = generator.integers(0, len(costs.ports), SPACE.blocks).tolist()
        if (0.9 if attempt < 50_000 else 0.5) * limit <= costs.of(numbers)["params"] <= limit:
            return SPACE.joined(numbers)
    raise ValueError(f"limit: expected one that random networks meet, got {limit}")


def trained(
    options: Options, size: Any, genotype: Any, training: data.TokenData, test: data.TokenData, seed: int
) -> float:
    """Returns the loss of masked words on held-out sequences after a training from the start."""
    params, _ = train.train_teacher(jax.random.key(seed), SPACE, genotype, size, training, options.steps, options.batch)
    network = SPACE.network(genotype, size, test.outputs)

    @jax.jit
    def evaluate(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        outputs: Any = network.apply({"params": params}, test.prepare(x))
        return jnp.sum(test.loss(outputs, y))

    parts = [(x, y) for x, y in test.batches(options.batch) if len(x) == options.batch]
    return float(sum(evaluate(params, x, y) for x, y in parts)) / (options.batch * len(parts))


def correlations(ranks: dict[str, np.ndarray]) -> list[float]:
    """Returns Spearman's correlation of both estimates over the drawn blocks, for each block."""
    first, second = ranks.values()
    of_blocks: list[Any] = [spearmanr(a, b) for a, b in zip(first, second, strict=True)]
    return [float(found.statistic) for found in of_blocks]


def write(options: Options, limits: list[float], rows: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Writes all rows, the table and the figure."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    head = " | ".join(f"up to {limit / 1e3:.0f}k" for limit in limits)
    lines = [f"| held-out loss of masked words | {head} |", "| --- " * (len(limits) + 1) + "|"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        of_sizes = [[row for row in rows if row["network"] == name and row["limit"] == limit] for limit in limits]
        losses = [np.array([row["loss"] for row in found]) for found in of_sizes]
        cells = [f"{x.mean():.3f} ± {x.std(ddof=1) if len(x) > 1 else 0:.3f}" for x in losses]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        means = [np.mean([row["params"] for row in found]) for found in of_sizes]
        axes.errorbar(means, [x.mean() for x in losses], [x.std() for x in losses], marker="o", capsize=3, label=name)
    shown = ", ".join(f"{value:.2f}" for value in more["correlations"])
    lines += ["", f"Spearman of both estimates over {options.drawn} drawn candidates of each block: {shown}."]
    axes.set(xscale="log", xlabel="parameters", ylabel="held-out loss of masked words")
    axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    figure.savefig(options.out / "losses.png", dpi=120)
    settings = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in vars(options).items()}
    settings.pop("text")
    settings.pop("out")
    record = {"settings": settings, "rows": rows} | more
    (options.out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
