"""Searches graph networks without training: in NAS-Bench-Graph on its table, and EGNAS's cells for molecules.

    python experiments/graph_search.py --table nbgraph_cora.csv.gz --graph cora.npz --molecules mutag.npz
    python experiments/graph_search.py --table nbgraph_cora.csv.gz --graph cora.npz --molecules esol.npz --trainings 5 \
        --epochs 20

On the table: `nasi search` on Cora by NASI, by evolution and by random sampling, both with a training-free score, from
several seeds. The test accuracy of what each search selects is looked up. Random sampling takes the best of 100 by the
score; beside it stands the least deep of 100.

For molecules: `nasi search --space egnas`, with and without the features of edges. The selected cells and random ones
are trained under one short protocol, from several seeds, each with another fold as the test set where there are folds.

What is there is not searched or trained again. Writes tables and figures into experiments/results/graph_search;
expected: experiments/README.md.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import tyro
from graph_scores import depth
from matplotlib.figure import Figure
from scipy import stats

from nasi_jax import cli, data, spaces, tabular, train

COLUMNS = ("edges", "name", "genotype", "seed", "merit", "parameters")
WITH, WITHOUT = "with", "without"


@dataclasses.dataclass(frozen=True)
class Options:
    """Search graph networks.

    Attributes:
        table: CSV file of the benchmark, for the data set of the graph.
        graph: .npz file of the graph.
        molecules: .npz file of many small graphs with features of edges; without, there is the table alone.
        out: folder of the results.
        runs: where the run folders of searches go.
        score: what evolution and random sampling maximise.
        seeds: searches of each strategy.
        evaluations: of each search by a score.
        steps: of each search by NASI.
        hidden: channels of the networks on the graph.
        batch: nodes in a batch there.
        space: that of the molecules.
        strategy: how the cells are chosen, see `nasi search`.
        molecule_steps: steps of that search, or evaluations where it is one by a score.
        random: random cells that are trained.
        trainings: of each cell.
        epochs: of each training.
        learning_rate: the highest, which the few epochs ask to be above that of the recipe `egnas`.
        smoke: a few short searches and trainings, to see that everything works.
    """

    table: pathlib.Path
    graph: pathlib.Path
    molecules: pathlib.Path | None = None
    out: pathlib.Path = pathlib.Path("experiments/results/graph_search")
    runs: pathlib.Path = pathlib.Path("runs/graph_search")
    score: str = "input-alignment"
    seeds: int = 10
    evaluations: int = 100
    steps: int = 100
    hidden: int = 64
    batch: int = 128
    space: str = "egnas(cells=1)"
    strategy: str = "evolution"
    molecule_steps: int = 100
    random: int = 5
    trainings: int = 10
    epochs: int = 40
    learning_rate: float = 0.005
    smoke: bool = False


def main(options: Options) -> int:
    """Searches, trains, and writes the results.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    if options.smoke:
        options = dataclasses.replace(
            options,
            seeds=1,
            evaluations=4,
            steps=2,
            hidden=4,
            batch=4,
            molecule_steps=2,
            random=1,
            trainings=1,
            epochs=1,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, np.ndarray] = {}
    table = tabular.Table.read(options.table, ("test",))
    for strategy in ("nasi", "evolution", "random"):
        folder = options.runs / f"graph-{strategy}"
        if status := searched(folder, on_graph(options, strategy)):
            return status
        space = spaces.get("nasbench-graph")
        rows = [table.row(space, text) for text in selected(folder)]
        found[strategy] = table.columns["test"][[row for row in rows if row is not None]]
    found["least depth"] = least_deep(options, table)
    lines = table_lines(options, found, table)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    drawn(found, table).savefig(options.out / "accuracy.png", dpi=120)
    print("\n".join(lines))
    if options.molecules is not None:
        rows = molecule_rows(options)
        if isinstance(rows, int):
            return rows
        lines, name = molecule_lines(rows), options.molecules.stem
        (options.out / f"{name}.md").write_text("\n".join(lines) + "\n")
        molecule_figure(rows).savefig(options.out / f"{name}.png", dpi=120)
        print("\n".join(lines))
    return 0


def searched(folder: pathlib.Path, arguments: list[str]) -> int:
    """Runs `nasi search` unless the folder holds what it finds; returns its exit status."""
    if (folder / "genotype.json").exists():
        return 0
    return cli.main(["search", "--out", str(folder), *arguments])


def on_graph(options: Options, strategy: str) -> list[str]:
    """Returns the options of a search on the graph."""
    size = ["--hidden", f"{options.hidden}", "--batch", f"{options.batch}", "--seeds", f"{options.seeds}"]
    arguments = ["--space", "nasbench-graph", "--strategy", strategy, "--data", str(options.graph), *size]
    if strategy == "nasi":
        return [*arguments, "--steps", f"{options.steps}"] + ["--rounds", "1"] * options.smoke
    few = ["--population", "2", "--contenders", "1"] * (options.smoke and strategy == "evolution")
    return [*arguments, "--score", options.score, "--evaluations", f"{options.evaluations}", *few]


def selected(folder: pathlib.Path) -> list[str]:
    """Returns what each search of a run folder selected."""
    return [search["genotype"] for search in json.loads((folder / "genotype.json").read_text())["searches"]]


def least_deep(options: Options, table: tabular.Table) -> np.ndarray:
    """Returns the test accuracies of the least deep of as many random architectures, the first of equal ones."""
    texts, chosen = sorted(table.rows), []
    for seed in range(options.seeds):
        drawn = np.random.default_rng(seed).choice(len(texts), min(options.evaluations, len(texts)), replace=False)
        chosen.append(table.rows[min((texts[i] for i in drawn), key=depth)])
    return table.columns["test"][chosen]


def table_lines(options: Options, found: dict[str, np.ndarray], table: tabular.Table) -> list[str]:
    """Returns the lines of the table: mean and deviation over searches, and how many of all are worse."""
    everything, names = table.columns["test"], {"nasi": f"NASI, {options.steps} steps"}
    by_score = f"{options.evaluations} by {options.score}"
    names |= {"evolution": f"evolution, {by_score}", "random": f"best of {by_score}"}
    names["least depth"] = f"least depth of {options.evaluations}"
    lines = ["| search | searches | test accuracy | lowest | architectures that are worse |", "| --- " * 5 + "|"]
    for name, values in found.items():
        worse = np.mean([np.mean(everything < value) for value in values])
        lines.append(f"| {names[name]} | {len(values)} | {spread(values)} | {values.min():.3f} | {100 * worse:.0f} % |")
    lines.append(f"| one random architecture | | {spread(everything)} | {everything.min():.3f} | 50 % |")
    lines.append(f"| the median architecture | | {np.median(everything):.3f} | | 50 % |")
    return lines


def spread(values: np.ndarray) -> str:
    """Writes mean and standard deviation."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def drawn(found: dict[str, np.ndarray], table: tabular.Table) -> Figure:
    """Draws the accuracy of what every search selected above the distribution of all."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(table.columns["test"], 80, density=True, color="0.85", label="all architectures, density")
    top = axes.get_ylim()[1]
    for place, (name, values) in enumerate(found.items(), start=1):
        height = top * place / (len(found) + 1)
        axes.plot(values, [height] * len(values), "o", color=f"C{place - 1}", alpha=0.4, markersize=5, label=name)
        axes.plot(values.mean(), height, "|", color=f"C{place - 1}", markersize=18, markeredgewidth=2)
    low = min(np.quantile(table.columns["test"], 0.05), *(values.min() for values in found.values()))
    axes.set(xlim=(low - 0.01, table.columns["test"].max() + 0.01), yticks=[], xlabel="test accuracy of the table")
    axes.legend(fontsize=8, loc="upper left")
    return figure


def molecule_rows(options: Options) -> list[dict[str, str]] | int:
    """Searches and trains what is missing; returns a row for each training, or the exit status of a search."""
    assert options.molecules is not None
    options.runs.mkdir(parents=True, exist_ok=True)
    bare = options.runs / f"{options.molecules.stem}_without_edges.npz"
    with np.load(options.molecules, allow_pickle=False) as file:
        kept = ("edge_index", "edge_ptr")
        np.savez(bare, **{name: file[name] for name in file.files if not name.startswith("edge_") or name in kept})
    space = spaces.get(options.space)
    path = options.out / f"{options.molecules.stem}.csv"
    before = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    path.write_text(before[: before.rfind("\n") + 1])  # the last row may be cut short
    done = {(row["edges"], row["name"], int(row["seed"])) for row in rows_of(path)}
    for edges, file in ((WITH, options.molecules), (WITHOUT, bare)):
        folder = options.runs / f"{options.molecules.stem}-{edges}"
        budget = ["--steps" if options.strategy == "nasi" else "--evaluations", f"{options.molecule_steps}"]
        if options.smoke:
            budget += ["--batch", "4", "--population", "2", "--contenders", "1"]
        arguments = ["--space", options.space, "--strategy", options.strategy, "--data", str(file), *budget]
        if status := searched(folder, arguments):
            return status
        cells = {"selected": space.parse(selected(folder)[0])}
        cells |= {f"random {i}": space.sample(jax.random.key(i)) for i in range(options.random)}
        for name, genotype in cells.items():
            for seed in range(options.trainings):
                if (edges, name, seed) in done:
                    continue
                merit, parameters = trained(options, space, genotype, file, seed)
                with path.open("a", newline="") as rows:
                    line = [edges, name, space.format(genotype), seed, merit, parameters]
                    csv.writer(rows, lineterminator="\n").writerow(line)
    return rows_of(path)


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of the file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trained(
    options: Options, space: spaces.SearchSpace, genotype: Any, file: pathlib.Path, seed: int
) -> tuple[float, int]:
    """Trains once; returns the test accuracy, or of a regression minus the mean absolute error, and the parameters."""
    with np.load(file, allow_pickle=False) as arrays:
        fold = seed % (int(arrays["fold"].max()) + 1) if "fold" in arrays.files else None
    training: Any = data.load(str(file), fold=fold)
    test: Any = data.load(str(file), split="test", fold=fold)
    test = test.like(training)
    recipe = train.RECIPES["egnas"]
    settings = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    recipe = dataclasses.replace(recipe, **settings, batch=min(recipe.batch, len(training)))
    network = space.network(genotype, space.search_size, training.outputs)
    states: Any = None
    for latest in train.iterate(jax.random.key(seed)[None], network, recipe, training):
        states = latest
    state = jax.tree.map(lambda leaf: leaf[0], states)
    return train.evaluate(network, state, test).merit, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def molecule_lines(rows: list[dict[str, str]]) -> list[str]:
    """Returns the lines of the table, and what the selected cell and the features of edges are worth.

    Differences are taken within each seed, and so within a fold, between means over cells; intervals are Student's.
    """
    found = merits(rows)
    lines = ["| features of edges | cells | trainings | merit | range of cells |", "| --- " * 5 + "|"]
    for edges in (WITH, WITHOUT):
        chosen, others = found[edges]["selected"], np.stack([v for k, v in found[edges].items() if k != "selected"])
        means = others.mean(axis=1)
        lines.append(f"| {edges} | selected | {chosen.size} | {spread(chosen)} | |")
        lines.append(f"| {edges} | {len(others)} random | {others.size} | {spread(others)} | {extremes(means)} |")
    lines += ["", "| difference | seeds | mean (95% interval) | cells that are worse |", "| --- " * 4 + "|"]
    for edges in (WITH, WITHOUT):
        chosen, others = found[edges]["selected"], np.stack([v for k, v in found[edges].items() if k != "selected"])
        worse = f"{(others.mean(axis=1) < chosen.mean()).sum()} of {len(others)}"
        lines.append(
            f"| selected minus random, {edges} features | {interval(chosen - others.mean(axis=0))} | {worse} |"
        )
    gains = np.stack([found[WITH][name] - found[WITHOUT][name] for name in found[WITH] if name != "selected"])
    worse = f"{(gains.mean(axis=1) < 0).sum()} of {len(gains)}"
    lines.append(f"| with minus without features, the random cells | {interval(gains.mean(axis=0))} | {worse} |")
    return lines


def extremes(values: np.ndarray) -> str:
    """Writes the smallest and the largest value."""
    return f"{values.min():.3f} to {values.max():.3f}"


def interval(values: np.ndarray) -> str:
    """Writes how many values there are, their mean, and its interval."""
    text = f"{len(values)} | {values.mean():+.3f}"
    if len(values) < 2:
        return text
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{text} ({values.mean() - half:+.3f} to {values.mean() + half:+.3f})"


def merits(rows: list[dict[str, str]]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the merits of every cell in the order of seeds, with and without features of edges."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {WITH: {}, WITHOUT: {}}
    for row in rows:
        found[row["edges"]].setdefault(row["name"], []).append((int(row["seed"]), float(row["merit"])))
    return {
        edges: {name: np.array([merit for _, merit in sorted(values)]) for name, values in cells.items()}
        for edges, cells in found.items()
    }


def molecule_figure(rows: list[dict[str, str]]) -> Figure:
    """Draws the merit of every training, and its mean over the trainings of a cell."""
    lines = [(edges, name, values) for edges, cells in merits(rows).items() for name, values in cells.items()]
    figure = Figure(figsize=(7, 0.8 + 0.22 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, name, values) in enumerate(lines):
        colour = "tab:red" if name == "selected" else "tab:blue"
        axes.scatter(values, np.full(len(values), place), s=16, alpha=0.4, color=colour, linewidths=0)
        axes.scatter(values.mean(), place, marker="|", s=160, color=colour)
    axes.set_yticks(range(len(lines)), [f"{name}, {edges} edges' features" for edges, name, _ in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, or minus the mean absolute error; bars are means")
    return figure


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
