"""Ranks the encoders of NAS-Bench-BERT by training-free scores, on text and on random token ids.

Scores the networks that the benchmark trained by `nasi score`, on the words of a text that are masked out and on random
ids with random labels, and compares each score with their GLUE and MNLI scores: Spearman's correlation for each seed
and of the mean over seeds, with a bootstrap interval, and the mean of the correlations within groups of equal width and
depth. Beside them stand what needs no score: parameters, depth, and width times depth.

    python experiments/transformer_scores.py --table nasbench_bert.csv.gz --text wikitext2_valid.npz

Writes a Markdown table to experiments/results/transformer_scores.md; expected: experiments/README.md. `--smoke` runs a
few small encoders in a minute.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import pathlib
import time

import numpy as np
import tyro
from scipy.stats import spearmanr

from nasi_jax import cli, tabular
from nasi_jax.scores import SCORES

NAMES = ("feature-effective-rank(of=singular-values)", "feature-effective-rank", "feature-participation-ratio")


@dataclasses.dataclass(frozen=True)
class Options:
    """Rank encoders by training-free scores.

    Attributes:
        table: CSV file, which may be compressed, with trained, hidden, layers, and glue and mnli where these are known.
        text: .npz file of token ids or a text, see `nasi score --help`; without, random ids alone.
        encoders: how many different ones are scored, drawn at random; 0 is all that have a GLUE score.
        seeds: initialisations and batches.
        length: tokens of a sequence.
        batch: sequences in the batch.
        names: the scores.
        scores: folder of the score files; what is there is not computed again.
        out: the table to write.
        smoke: run a few small encoders, to see that the script works.
    """

    table: pathlib.Path
    text: pathlib.Path | None = None
    encoders: int = 0
    seeds: int = 3
    length: int = 64
    batch: int = 16
    names: tuple[str, ...] = NAMES
    scores: pathlib.Path = pathlib.Path("experiments/scores/transformer_scores")
    out: pathlib.Path = pathlib.Path("experiments/results/transformer_scores.md")
    smoke: bool = False


def main(options: Options) -> None:
    """Scores, ranks, and writes the table."""
    if options.smoke:
        options = dataclasses.replace(options, encoders=8, seeds=1, length=8, batch=4)
    options.scores.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = known(options.table, options.encoders)
    listed = options.scores / "encoders.txt"
    listed.write_text("\n".join(dict.fromkeys(row["trained"] for row in rows)) + "\n")
    kinds = ({} if options.text is None else {"text": ["--data", str(options.text)]}) | {"random ids": []}
    size = ["--hidden", "16", "--embedding", "8"] if options.smoke else []
    lines = [
        f"{len(rows)} encoders, {len({row['trained'] for row in rows})} different networks; {options.batch} sequences "
        f"of {options.length} tokens.", "",
        "| scored on | score | seeds | GLUE | MNLI | GLUE, each seed | GLUE within groups | MNLI within groups |",
        "| --- " * 8 + "|",
        *(line("", name, [values], rows) for name, values in figures(rows).items()),
    ]  # fmt: skip
    for kind, arguments in kinds.items():
        path = options.scores / f"{kind.replace(' ', '-')}.csv"
        command = ["--space", "nasbench-bert", "--genotypes", str(listed), "--score", *options.names, *size]
        command += ["--length", f"{options.length}", "--batch", f"{options.batch}", "--seeds", f"{options.seeds}"]
        start = time.monotonic()
        if status := cli.main(["score", "--out", str(path), *command, *arguments]):
            raise SystemExit(status)
        print(f"{kind}: {time.monotonic() - start:.0f} s")
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
        for name in options.names:
            sign = 1 if SCORES[name.partition("(")[0]].higher_is_better else -1
            seeds = [
                {row["genotype"]: sign * float(row[name]) for row in found if int(row["seed"]) == seed}
                for seed in range(options.seeds)
            ]
            if name not in ("params", "flops"):
                values = [np.array([seed[row["trained"]] for row in rows]) for seed in seeds]
                lines.append(line(kind, name, values, rows))
    text = "\n".join(lines) + "\n"
    options.out.write_text(text)
    print(text)


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
