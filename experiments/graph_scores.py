"""Ranks graph networks of NAS-Bench-Graph by training-free scores, on a graph and on random ones.

Draws architectures of the benchmark, scores them by `nasi score` on the nodes of a graph and of random graphs, and
compares each score with the published test accuracies of every table given: Spearman's correlation with a bootstrap
interval, and the correlation that is left when the depth is known, the longest chain of operations that are not skips.
Beside the scores stand two counts: the depth, and the number of plain sums over neighbours, which gin and graph are.

    python experiments/graph_scores.py --tables nbgraph_cora.csv.gz nbgraph_photo.csv.gz nbgraph_arxiv.csv.gz \
        --graph cora.npz --first 1000

The first 1000 of the random order served to choose among forms of `input-alignment`, and are left out. Writes a
Markdown table to experiments/results/graph_scores.md, and beside it what the best of a hundred by each score has in the
first table; expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import tyro
from scipy.stats import rankdata

from nasi_jax import cli, tabular
from nasi_jax.scores import ScoreTable
from nasi_jax.spaces import nasbench_graph_text as notation

NAMES = (
    "input-alignment", "ntk-probe", "ntk-one-batch", "ntk-participation-ratio", "grad_norm", "snip", "fisher", "naswot",
    "zico", "synflow", "plain", "l2_norm", "grasp", "swap", "swap-regularised", "params", "flops",
)  # fmt: skip
KERNEL = ("ntk-per-sample", "ntk-condition-number", "ntk-effective-rank")
"""Scores that take a gradient for each node of the batch; the exact trace takes one for each output of each node."""

Scored = tuple[list[str], dict[str, np.ndarray], dict[str, int]]
"""Architectures, what is better the larger by its name, and how many seeds have all of a score."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Rank graph networks by training-free scores.

    Attributes:
        tables: the benchmark's tables, of the same architectures.
        graph: .npz file of a graph; without, random graphs alone.
        column: the column that scores are compared with.
        architectures: how many are drawn.
        first: place of the first one in the random order.
        seeds: initialisations and batches, over which scores are averaged.
        hidden: channels of the networks.
        batch: nodes in the batch.
        names: the scores.
        kernel: scores that take a gradient for each node, and so fewer nodes and one seed.
        kernel_batch: nodes in their batch.
        scores: folder of the score files; what is there is not computed again.
        out: the table to write.
    """

    tables: tuple[pathlib.Path, ...]
    graph: pathlib.Path | None = None
    column: str = "test"
    architectures: int = 1000
    first: int = 0
    seeds: int = 3
    hidden: int = 64
    batch: int = 128
    names: tuple[str, ...] = NAMES
    kernel: tuple[str, ...] = KERNEL
    kernel_batch: int = 8
    scores: pathlib.Path = pathlib.Path("experiments/scores/graph_scores")
    out: pathlib.Path = pathlib.Path("experiments/results/graph_scores.md")


def main(options: Options) -> None:
    """Scores, ranks, and writes the table."""
    options.scores.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tables = {path.name.split(".")[0]: tabular.Table.read(path, (options.column,)) for path in options.tables}
    known = sorted(next(iter(tables.values())).rows)
    chosen = np.random.default_rng(0).permutation(len(known))[options.first :][: options.architectures]
    drawn = options.scores / "architectures.txt"
    drawn.write_text("\n".join(known[i] for i in chosen) + "\n")
    kinds = {} if options.graph is None else {"the graph": ["--data", str(options.graph)]}
    kinds |= {"random graphs": []}
    lines, best = head([*tables]), ["| scored on | selected by | draws | accuracy |", "| --- " * 4 + "|"]
    for kind, arguments in kinds.items():
        stem = kind.replace(" ", "-")
        common = ["--space", "nasbench-graph", "--genotypes", str(drawn), "--hidden", f"{options.hidden}", *arguments]
        commands = {
            f"{stem}.csv": ["--batch", f"{options.batch}", "--seeds", f"{options.seeds}", "--score", *options.names],
            f"{stem}-kernel.csv": ["--batch", f"{options.kernel_batch}", "--score", *options.kernel],
        }
        for name, command in commands.items():
            if status := cli.main(["score", "--out", str(options.scores / name), *common, *command]):
                raise SystemExit(status)
        found = read([options.scores / name for name in commands])
        lines += rows(kind, found, tables, options.column)
        best += selections(kind, found, next(iter(tables.values())), options.column)
    options.out.with_name(f"{options.out.stem}_best.md").write_text("\n".join(best) + "\n")
    text = "\n".join(lines) + "\n"
    options.out.write_text(text)
    print(text)


def head(tables: list[str]) -> list[str]:
    """Returns the first lines of the table."""
    columns = [name for table in tables for name in (table, f"{table}, given depth")]
    return ["| scored on | score | seeds | " + " | ".join(columns) + " |", "| --- " * (3 + len(columns)) + "|"]


def rows(kind: str, scored: Scored, tables: dict[str, tabular.Table], column: str) -> list[str]:
    """Returns a line for each score, and for each count of the architectures."""
    texts, found, seeds = scored
    depths, lines = -found["minus depth"], []
    for name, values in found.items():
        cells = []
        for table in tables.values():
            truth = table.columns[column][[table.rows[text] for text in texts]]
            value, low, high = tabular.rank(values, truth, resamples=300, only=("spearman",)).statistics["spearman"]
            known = "" if name == "minus depth" else f"{partial(values, truth, depths):.2f}"
            cells += [f"{value:.2f} ({low:.2f} to {high:.2f})", known]
        lines.append(f"| {kind} | {name} | {seeds.get(name, '')} | {' | '.join(cells)} |")
    return lines


def read(paths: list[pathlib.Path]) -> Scored:
    """Returns what files of scores of the same architectures have."""
    values: dict[str, np.ndarray] = {}
    seeds: dict[str, int] = {}
    texts: list[str] = []
    for path in paths:
        written = ScoreTable.read([path])
        texts = written.architectures
        for name, column in written.oriented().items():
            whole = [figures for figures in column if np.isfinite(figures).all()]
            if whole:
                values[name], seeds[name] = np.mean(whole, axis=0), len(whole)
    counts = {"minus depth": depth, "minus sums": sums}
    values |= {name: -np.array([count(text) for text in texts], float) for name, count in counts.items()}
    return texts, values, seeds


def selections(kind: str, scored: Scored, table: tabular.Table, column: str) -> list[str]:
    """Returns a line for each score: the accuracy of the best of a hundred by it, over draws without repetition."""
    texts, found, _ = scored
    truth = table.columns[column][[table.rows[text] for text in texts]]
    draws = [range(start, min(start + 100, len(texts))) for start in range(0, max(1, len(texts) - 99), 100)]
    chosen = {name: [truth[max(draw, key=lambda i, v=v: v[i])] for draw in draws] for name, v in found.items()}
    chosen |= {
        "none, a random one": list(truth),
        "the best of the hundred": [truth[list(draw)].max() for draw in draws],
    }
    spreads = {name: np.std(got, ddof=min(1, len(got) - 1)) for name, got in chosen.items()}
    return [
        f"| {kind} | {name} | {len(draws)} | {100 * np.mean(got):.1f} ± {100 * spreads[name]:.1f} |"
        for name, got in chosen.items()
    ]


def depth(text: str) -> int:
    """Returns the longest chain of operations that are not skips."""
    links, operations = notation.parse(text)
    depths = [0]
    for link, operation in zip(links, operations, strict=True):
        depths.append(depths[link] + (operation != notation.SKIP))
    return max(depths)


def sums(text: str) -> int:
    """Returns the number of operations that sum over neighbours without a mean or a norm."""
    return sum(notation.OPERATIONS[operation] in ("gin", "graph") for operation in notation.parse(text)[1])


def partial(values: np.ndarray, truth: np.ndarray, known: np.ndarray) -> float:
    """Returns the correlation of ranks that is left when a third quantity is known."""
    a, b, c = (rankdata(x) for x in (values, truth, known))
    rest = [x - np.polyval(np.polyfit(c, x, 1), c) for x in (a, b)]
    return float(np.corrcoef(*rest)[0, 1])


if __name__ == "__main__":
    main(tyro.cli(Options))
