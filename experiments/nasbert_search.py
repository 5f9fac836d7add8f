"""Searches NAS-BERT's space block by block, and trains a front of four sizes beside networks of equal size.

    python experiments/nasbert_search.py --text wikitext2_valid.npz

Reads token ids of a running text from an .npz file with `tokens`, keeps its most frequent words, and searches at toy
size by both estimates of a block: the NTK score at initialisation, and the distillation loss against a teacher that is
trained first. From each search the best network below the size of each of four networks made by hand is taken, and
random networks of that size are drawn. All of them are trained on masked words from the start, with several seeds, and
compared by their loss on sequences that none of them has seen. How the NTK score and the number of parameters rank
blocks beside the distillation loss is measured on drawn candidates.

Writes results.json, two tables and a figure into experiments/results/nasbert_search; expected: experiments/README.md. A
run that was interrupted goes on behind the last network that is in results.json.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from nasi_jax import data, scores, search, spaces, train
from nasi_jax.runs.files import write_atomic
from nasi_jax.scores import Limits

SPACE = spaces.NASBERT()
HAND_MADE = ("256:M,F", "384:M,F", "512:M,F", "512:M,F,M,F")
"""In each of the four blocks."""
TEACHER = "|".join(["512:M,F"] * 4)
BY_HAND, RANDOM = "made by hand", "random"
NTK, DISTILLATION = "NTK at initialisation", "distillation"


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
        pool: candidates of each of twenty bins that a search begins with.
        judged: networks of the best sums below a size that distillation judges as a whole.
        drawn: blocks that both estimates rank, for each seed.
        ranking_steps: steps of the shared weights of a block before that.
        epochs: passes of each training.
        learning_rate: highest rate of each training.
        batch: sequences in a batch.
        sizes: how many of the four sizes are trained, the smallest first; 0 searches and ranks blocks alone.
        smoke: run everything for one size in some minutes, with numbers that mean nothing.
    """

    text: pathlib.Path
    out: pathlib.Path = pathlib.Path("experiments/results/nasbert_search")
    seeds: int = 3
    width: int = 32
    embedding: int = 32
    length: int = 16
    words: int = 200
    teacher_steps: int = 2000
    round_steps: int = 200
    pool: int = 16
    judged: int = 50
    drawn: int = 100
    ranking_steps: int = 600
    epochs: int = 3
    learning_rate: float = 1e-3
    batch: int = 8
    sizes: int = len(HAND_MADE)
    smoke: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns what decides the results, as JSON values."""
        return {name: value for name, value in vars(self).items() if name not in ("text", "out", "sizes")}


def main(options: Options) -> None:
    """Searches, trains, and writes the results."""
    if options.smoke:
        options = dataclasses.replace(
            options, seeds=1, width=16, embedding=4, length=8, words=50, teacher_steps=4, round_steps=4, pool=2,
            judged=2, drawn=10, ranking_steps=4, epochs=1, batch=4, sizes=1,
        )  # fmt: skip
    training, test = read(options)
    recipe = dataclasses.replace(
        train.RECIPES["masked-words"], epochs=options.epochs, warmup=0.5, learning_rate=options.learning_rate,
        batch=options.batch, dropout=0.0, initialisation="he", width=options.width, embedding=options.embedding,
    )  # fmt: skip
    size = train.size(SPACE, recipe)
    costs = scores.block_costs(SPACE, size, training.outputs, data.shapes(training, 2).x)
    counter = scores.Counter(SPACE, data.shapes(training, 2).x, size, training.outputs)
    by_hand = ["|".join([block] * 4) for block in HAND_MADE]
    limits = [counter(SPACE.parse(text))["params"] for text in by_hand]

    record = stored(options)
    found = record["searches"]
    missing = [name for name in (NTK, DISTILLATION) if name not in found]
    if missing or len(record["correlations"]) < options.seeds:
        noise = data.RandomTokens(options.length, training.vocabulary.size)
        distilled = train.Distillation(
            SPACE, size, training, taught(options, size, training), steps=options.round_steps, batch=options.batch
        )
        ntks = [scores.BlockNTK(SPACE, size, noise, batch=options.batch, seed=seed) for seed in range(options.seeds)]
        estimates: dict[str, search.BlockEstimate] = {NTK: ntks[0], DISTILLATION: distilled}
        for name in missing:
            start = time.monotonic()
            networks = searched(options, costs, estimates[name], limits)
            found[name] = {"seconds": round(time.monotonic() - start), "genotypes": networks}
            save(options, record)
        for seed in range(len(record["correlations"]), options.seeds):
            record["correlations"].append(ranked(options, ntks[seed], distilled, costs, seed))
            save(options, record)
    write_blocks(options, record)
    if not options.sizes:
        return
    networks = {BY_HAND: [[text] * options.seeds for text in by_hand]}
    for name in (NTK, DISTILLATION):
        networks[f"block-wise, {name}"] = [[text] * options.seeds for text in found[name]["genotypes"]]
    networks[RANDOM] = [[random(costs, limit, seed) for seed in range(options.seeds)] for limit in limits]

    done = {(row["network"], row["limit"], row["seed"]) for row in record["rows"]}
    for place, limit in enumerate(limits[: options.sizes]):
        for name, of_sizes in networks.items():
            texts = of_sizes[place]
            for text in dict.fromkeys(texts):
                seeds = [i for i, own in enumerate(texts) if own == text and (name, limit, i) not in done]
                if not seeds:
                    continue
                params = counter(SPACE.parse(text))["params"]
                for seed, loss in zip(seeds, trained(recipe, text, training, test, seeds), strict=True):
                    row = {"network": name, "limit": limit, "seed": seed, "genotype": text, "params": params}
                    record["rows"].append(row | {"loss": loss})
                    print(record["rows"][-1], flush=True)
                save(options, record)
    write(options, limits[: options.sizes], list(networks), record, by_frequency(training, test))


def stored(options: Options) -> dict[str, Any]:
    """Returns what results.json has, or that there is nothing yet."""
    path = options.out / "results.json"
    options.out.mkdir(parents=True, exist_ok=True)
    settings = options.settings()
    if not path.exists():
        return {"settings": settings, "searches": {}, "correlations": [], "rows": []}
    record = json.loads(path.read_text())
    if record["settings"] != settings:
        raise ValueError(f"out: expected results of {settings} in {str(path)!r}, got those of {record['settings']}")
    return record


def save(options: Options, record: dict[str, Any]) -> None:
    """Writes results.json."""
    write_atomic(options.out / "results.json", json.dumps(record, indent=1) + "\n")


def read(options: Options) -> tuple[data.TokenData, data.TokenData]:
    """Returns training and held-out sequences, the last fifth, whose words are masked out."""
    with np.load(options.text) as file:
        tokens = file["tokens"].astype(int)
    known, counts = np.unique(tokens[tokens > data.Vocabulary().mask], return_counts=True)
    kept = known[np.argsort(-counts, kind="stable")[: options.words]]
    vocabulary = data.Vocabulary(5 + len(kept), padding=0, unknown=1, begin=2, end=3, mask=4)
    ids = np.full(1 + max(tokens.max(), kept.max()), vocabulary.unknown)
    ids[kept] = np.arange(5, 5 + len(kept))
    rows = ids[tokens[: len(tokens) // options.length * options.length]].reshape(-1, options.length)
    # without sequences of which most is what stands for rare words
    rows = rows[(rows != vocabulary.unknown).mean(axis=1) > 0.5]
    whole = data.from_tokens(rows, labels="masked", vocabulary=vocabulary)
    first = np.arange(len(whole) - len(whole) // 5)
    return whole.part(first), whole.part(np.arange(len(first), len(whole)))


def taught(options: Options, size: Any, training: data.TokenData) -> scores.Teacher:
    """Trains the teacher."""
    genotype = SPACE.parse(TEACHER)
    params, loss = train.train_teacher(
        jax.random.key(0), SPACE, genotype, size, training, options.teacher_steps, options.batch
    )
    print(f"loss of the teacher {loss:.3f}", flush=True)
    return train.as_teacher(SPACE, genotype, size, params)


def searched(
    options: Options, costs: scores.BlockCosts, estimate: search.BlockEstimate, limits: Sequence[float]
) -> list[str]:
    """Returns the best network below each limit, of those that distillation judges as a whole."""
    strategy = search.Blockwise(bins=20, pool=options.pool, kept=max(1, options.pool // 8), warmup=1)
    binned = strategy.binned({"params": costs.candidates["params"]})
    state = strategy.init(0, SPACE.blocks, binned, estimate)
    for latest, info in strategy.run(0, binned, estimate, state):
        state = latest
        print(info, flush=True)
    chain, left = search.table(state, costs.ports, costs.candidates, costs.joints)
    found = []
    for limit in limits:
        best = chain.best(Limits(max_params=limit), options.judged)
        numbers = [[own[place] for own, place in zip(left, one.places, strict=True)] for one in best]
        first = 0
        if isinstance(estimate, train.Distillation):
            first = int(np.argmax(estimate.whole(state.estimate, np.array(numbers))))
        found.append(SPACE.format(SPACE.joined(numbers[first])))
    return found


def ranked(
    options: Options, ntk: scores.BlockNTK, distilled: train.Distillation, costs: scores.BlockCosts, seed: int
) -> list[dict[str, float]]:
    """Ranks drawn candidates of each block, by shared weights that are trained on others, drawn as uniformly.

    Returns:
        For each block Spearman's correlations with minus the distillation loss, of the NTK score and of the number of
        parameters; and their means over the widths.
    """
    generator, state, rows = np.random.default_rng(seed), distilled.init(seed), []
    for block in range(SPACE.blocks):
        state, _ = distilled.train(state, block, generator.integers(0, len(costs.ports), options.ranking_steps))
        drawn = generator.choice(len(costs.ports), options.drawn, replace=False)
        truth, ports = distilled.values(state, block, drawn), costs.ports[drawn]
        row: dict[str, float] = {}
        for name, values in {"NTK": ntk.values((), block, drawn), "params": costs.candidates["params"][drawn]}.items():
            row[name] = correlation(values, truth)
            own = [correlation(values[ports == port], truth[ports == port]) for port in np.unique(ports)]
            row[f"{name} of one width"] = float(np.nanmean(own))
        rows.append(row)
        print(row, flush=True)
    return rows


def correlation(values: np.ndarray, truth: np.ndarray) -> float:
    """Returns Spearman's correlation; NaN of fewer than three candidates."""
    found: Any = spearmanr(values, truth) if len(values) > 2 else None
    return float("nan") if found is None else float(found.statistic)


def random(costs: scores.BlockCosts, limit: float, seed: int) -> str:
    """Draws networks until one has between 90 and 100 % of the parameters of a limit, after many at least 50 %."""
    generator = np.random.default_rng([seed, int(limit)])
    for attempt in range(100_000):
        numbers = generator.integers(0, len(costs.ports), SPACE.blocks).tolist()
        if (0.9 if attempt < 50_000 else 0.5) * limit <= costs.of(numbers)["params"] <= limit:
            return SPACE.format(SPACE.joined(numbers))
    raise ValueError(f"limit: expected one that random networks meet, got {limit}")


def trained(
    recipe: train.Recipe, text: str, training: data.TokenData, test: data.TokenData, seeds: Sequence[int]
) -> list[float]:
    """Trains a network from several seeds, by one program; returns the losses on held-out sequences."""
    network = train.network(SPACE, SPACE.parse(text), recipe, training.outputs)
    keys, states = jnp.stack([jax.random.key(seed) for seed in seeds]), None
    for latest in train.iterate(keys, network, recipe, training):
        states = latest
    own = [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(len(seeds))]
    losses = [train.evaluate(network, state, test).loss for state in own]
    jax.clear_caches()  # the programs of this network, some hundred megabytes, do not come again
    return losses


def write_blocks(options: Options, record: dict[str, Any]) -> None:
    """Writes the table of the correlations over drawn blocks, those of each seed."""
    columns = list(record["correlations"][0][0])
    blocks = [f"| block | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for block in range(SPACE.blocks):
        values = [[of_seed[block][column] for of_seed in record["correlations"]] for column in columns]
        blocks.append(f"| {block + 1} | {' | '.join(', '.join(f'{x:.2f}' for x in own) for own in values)} |")
    write_atomic(options.out / "blocks.md", "\n".join(blocks) + "\n")
    print("\n".join(blocks))


def by_frequency(training: data.TokenData, test: data.TokenData) -> float:
    """Returns the held-out loss of guessing each word by how frequent it is in training, whatever stands around it."""
    ids, masked = np.asarray(training.ids)[np.asarray(training.x)], np.asarray(test.y)
    counts = np.bincount(ids.ravel(), minlength=training.vocabulary.size) + 1.0
    losses = -np.log(counts / counts.sum())
    there = masked >= 0
    return float(np.mean(np.sum(losses[masked] * there, axis=1) / np.maximum(there.sum(axis=1), 1)))


def write(
    options: Options, limits: Sequence[float], names: Sequence[str], record: dict[str, Any], frequency: float
) -> None:
    """Writes the table of the trainings and the figure, beside the loss of guessing by frequency."""
    head = " | ".join(f"up to {limit / 1e3:.0f}k" for limit in limits)
    lines = [f"| held-out loss of masked words | {head} |", "| --- " * (len(limits) + 1) + "|"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        of_sizes = [[row for row in record["rows"] if (row["network"], row["limit"]) == (name, x)] for x in limits]
        losses = [np.array([row["loss"] for row in found]) for found in of_sizes]
        cells = [f"{x.mean():.3f} ± {x.std(ddof=1) if len(x) > 1 else 0:.3f}" for x in losses]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        means = [np.mean([row["params"] for row in found]) for found in of_sizes]
        axes.errorbar(means, [x.mean() for x in losses], [x.std() for x in losses], marker="o", capsize=3, label=name)
    lines.append(f"| guessing by frequency | {' | '.join([f'{frequency:.3f}'] * len(limits))} |")
    axes.axhline(frequency, color="0.6", linestyle="--", linewidth=1, label="guessing by frequency")
    axes.set(xscale="log", xlabel="parameters", ylabel="held-out loss of masked words")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(options.out / "losses.png", dpi=120)
    write_atomic(options.out / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
