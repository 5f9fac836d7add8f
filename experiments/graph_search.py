"""Searches graph networks without training: in NAS-Bench-Graph on its table, and EGNAS's cells for molecules.

    python experiments/graph_search.py --table nbgraph_cora.csv.gz --graph cora.npz --molecules mutag.npz

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
    molecule_steps: int = 50
    random: int = 5
    trainings: int = 5
    epochs: int = 50
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
        lines = molecule_lines(rows)
        (options.out / "molecules.md").write_text("\n".join(lines) + "\n")
        molecule_figure(rows).savefig(options.out / "molecules.png", dpi=120)
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
        axes.plot(values, [height] * len(values), "o", color=f"C{place - 1}", alpha=0.4, markersize=5)
        axes.plot(values.mean(), height, "|", color=f"C{place - 1}", markersize=18, markeredgewidth=2, label=name)
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
    path = options.out / "trainings.csv"
    before = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    path.write_text(before[: before.rfind("\n") + 1])  # the last row may be cut short
    done = {(row["edges"], row["name"], int(row["seed"])) for row in rows_of(path)}
    for edges, file in ((WITH, options.molecules), (WITHOUT, bare)):
        folder = options.runs / f"molecules-{edges}"
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
    recipe = dataclasses.replace(train.RECIPES["egnas"], epochs=options.epochs)
    recipe = dataclasses.replace(recipe, batch=min(recipe.batch, len(training)))
    network = space.network(genotype, space.search_size, training.outputs)
    states: Any = None
    for latest in train.iterate(jax.random.key(seed)[None], network, recipe, training):
        states = latest
    state = jax.tree.map(lambda leaf: leaf[0], states)
    return train.evaluate(network, state, test).merit, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def molecule_lines(rows: list[dict[str, str]]) -> list[str]:
    """Returns the lines of the table: the selected cell beside the random ones, and what the edges are worth."""
    found = merits(rows)
    lines = ["| features of edges | cells | trainings | merit | selected minus random, p |", "| --- " * 5 + "|"]
    for edges in (WITH, WITHOUT):
        chosen, others = (found[edges, which] for which in ("selected", "random"))
        difference = f"{chosen.mean() - others.mean():+.3f}"
        if len(chosen) > 1:
            _, p = stats.ttest_ind(chosen, others, equal_var=False)
            difference += f", {p:.2g}"
        lines.append(f"| {edges} | selected | {len(chosen)} | {spread(chosen)} | {difference} |")
        lines.append(f"| {edges} | random | {len(others)} | {spread(others)} | |")
    pairs = [
        (float(row["merit"]), float(other["merit"]))
        for row in rows
        for other in rows
        if (row["edges"], other["edges"]) == (WITH, WITHOUT)
        and row["name"].startswith("random")
        and (row["name"], row["seed"]) == (other["name"], other["seed"])
    ]
    gains = np.array([a - b for a, b in pairs])
    lines += ["", f"Features of edges are worth {spread(gains)} to {len(gains)} trainings of the same random cells."]
    return lines


def merits(rows: list[dict[str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """Returns the merits of selected and of random cells, with and without features of edges."""
    return {
        (edges, which): np.array([
            float(row["merit"]) for row in rows if row["edges"] == edges and row["name"].startswith(which)
        ])
        for edges in (WITH, WITHOUT)
        for which in ("selected", "random")
    }


def molecule_figure(rows: list[dict[str, str]]) -> Figure:
    """Draws the merit of every training."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.add_subplot()
    for place, ((edges, which), values) in enumerate(merits(rows).items()):
        colour = "tab:red" if which == "selected" else "tab:blue"
        axes.scatter(values, np.full(len(values), place), s=16, alpha=0.5, color=colour, linewidths=0)
        axes.scatter(values.mean(), place, marker="|", s=260, color=colour)
        axes.annotate(f"{which}, {edges} features of edges", (0.01, place + 0.22), xycoords=("axes fraction", "data"))
    axes.set(yticks=[], ylim=(-0.6, 3.7), xlabel="test accuracy, or minus the mean absolute error; lines are means")
    return figure


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
