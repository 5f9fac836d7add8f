"""Searches NAS-Bench-201 over many seeds and looks the selected cells up in the benchmark.

Runs `nasi search` on Gaussian inputs with random labels and, where asked for, on real images and with the paper's
settings; then writes the test accuracies beside those that the paper reports. Searches that are finished are not run
again, and results that are in the output folder stay there until their searches are run anew.

    python experiments/nasbench201_search.py --table nasbench201.csv.gz --images cifar10.npz --paper

Seeds from 10 on, which `--seeds 30` adds, were not run when the settings were chosen; the table shows them apart.

The table is a CSV file with the columns `arch`, `cifar10_test`, `cifar100_test` and `imagenet16_test`, the mean test
accuracy in percent after 200 epochs. Expected: experiments/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from nasi_jax import cli
from nasi_jax.tabular import Table

COLUMNS = {"cifar10_test": "CIFAR-10", "cifar100_test": "CIFAR-100", "imagenet16_test": "ImageNet16-120"}
_SEEN = 10
"""Seeds of the first searches with the default settings."""
PUBLISHED = {
    "NASI, T steps (paper)": ((93.08, 0.24), (69.51, 0.59), (40.87, 0.85)),
    "NASI, 4T steps (paper)": ((93.55, 0.10), (71.20, 0.14), (44.84, 1.41)),
    "HNAS (trains some)": ((94.04, None), (71.75, None), (45.91, None)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Search NAS-Bench-201 over seeds and look the selected cells up.

    Attributes:
        table: the benchmark's figures, CSV, plain or gzipped.
        images: an .npz of real images with x and y; left out when not given.
        seeds: independent searches of each kind.
        runs: where the run folders go.
        out: where the results go.
        paper: search with the paper's settings too, NASI-FIX and NASI-ADA, on Gaussian inputs.
        smoke: a tiny search, to see that everything works.
    """

    table: pathlib.Path
    images: pathlib.Path | None = None
    seeds: int = 10
    runs: pathlib.Path = pathlib.Path("runs/nasbench201_search")
    out: pathlib.Path = pathlib.Path("experiments/results/nasbench201_search")
    paper: bool = False
    smoke: bool = False


def main(options: Options) -> int:
    """Runs the experiment.

    Args:
        options: see `Options`.

    Returns:
        The exit status of the first search that fails, else 0.
    """
    table = Table.read(options.table, list(COLUMNS))
    variants = {"gaussian": ["--data", "gaussian"]}
    if options.images is not None:
        variants["images"] = ["--data", str(options.images)]
        variants["images, not whitened"] = [*variants["images"], "--whiten", "no"]
    if options.paper:
        variants |= {f"gaussian, {name}": ["--preset", name] for name in ("nasi-fix", "nasi-ada")}
    stored = options.out / "results.json"
    results = json.loads(stored.read_text()) if stored.exists() else {}
    for name, chosen in variants.items():
        folder = options.runs / name.replace(", ", "-").replace(" ", "_")
        finished = folder / "genotype.json"
        if not finished.exists() or len(json.loads(finished.read_text())["searches"]) < options.seeds:
            arguments = ["search", *chosen, "--seeds", str(options.seeds), "--out", str(folder)]
            tiny = ["--steps", "4", "--rounds", "2", "--batch", "4", "--channels", "2", "--cells", "1"]
            status = cli.main([*arguments, *(tiny if options.smoke else [])])
            if status:
                return status
        record = json.loads(finished.read_text())
        results[name] = summarise(record, table)
        options.out.mkdir(parents=True, exist_ok=True)
        picture = options.out / f"{folder.name}.png"
        cli.main(["draw", "--genotype", record["genotype"], "--out", str(picture)])
    stored.write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "table.md").write_text(markdown(results, table))
    accuracy_figure(results).savefig(options.out / "accuracy.png", dpi=120)
    print(markdown(results, table))
    return 0


def summarise(record: dict[str, Any], table: Table) -> dict[str, Any]:
    """Looks up the cells of a finished run.

    Args:
        record: content of its genotype.json.
        table: the benchmark's figures.

    Returns:
        Accuracies of every search, their mean and sample standard deviation, those of the genotype of the mean logits,
        settings and provenance.
    """
    found = [entry["genotype"] for entry in record["searches"]]
    accuracies = table.lookup(found)
    together = table.lookup([record["genotype"]])
    data = record["settings"]["data"]
    name = data if isinstance(data, str) else pathlib.Path(data["path"]).name
    return {
        "searches": [
            entry | {column: float(accuracies[column][i]) for column in COLUMNS}
            for i, entry in enumerate(record["searches"])
        ],
        "mean": {column: float(np.mean(accuracies[column])) for column in COLUMNS},
        "deviation": {column: float(np.std(accuracies[column], ddof=1)) for column in COLUMNS}
        if len(found) > 1
        else {},
        "mean_logits": {"genotype": record["genotype"]} | {column: float(together[column][0]) for column in COLUMNS},
        "settings": record["settings"] | {"data": name},
        "provenance": record["provenance"],
    }


def markdown(results: dict[str, dict[str, Any]], table: Table) -> str:
    """Returns the results as a Markdown table, beside published figures and the best ones that the benchmark has."""
    lines = [
        "| search | searches | " + " | ".join(COLUMNS.values()) + " |",
        "| --- | --- | " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    for name, result in results.items():
        searches = result["searches"]
        parts = {"": searches}
        if len(searches) > _SEEN:
            parts |= {f", seeds 0 to {_SEEN - 1}": searches[:_SEEN]}
            parts |= {f", seeds {_SEEN} to {len(searches) - 1}": searches[_SEEN:]}
        for part, entries in parts.items():
            cells = [_mean([entry[column] for entry in entries]) for column in COLUMNS]
            lines.append(f"| nasi_jax, {name}{part} | {len(entries)} | " + " | ".join(cells) + " |")
        cells = [f"{result['mean_logits'][column]:.2f}" for column in COLUMNS]
        lines.append(f"| nasi_jax, {name}, mean logits of all | 1 | " + " | ".join(cells) + " |")
    for name, figures in PUBLISHED.items():
        cells = [f"{mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}") for mean, spread in figures]
        lines.append(f"| {name} | | " + " | ".join(cells) + " |")
    best = [f"{table.columns[column].max():.2f}" for column in COLUMNS]
    lines.append("| best of the benchmark | | " + " | ".join(best) + " |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> str:
    """Returns mean and sample standard deviation as text."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {deviation:.2f}"


def accuracy_figure(results: dict[str, dict[str, Any]]) -> Figure:
    """Draws the accuracy of every search, with its mean, beside the published means."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for i, (column, title) in enumerate(COLUMNS.items()):
        axes = figure.add_subplot(1, len(COLUMNS), i + 1)
        for position, result in enumerate(results.values()):
            values = np.array([entry[column] for entry in result["searches"]])
            offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [0.0]
            axes.scatter(position + np.asarray(offsets), values, s=22, color="tab:blue", zorder=3)
            axes.hlines(values.mean(), position - 0.3, position + 0.3, color="tab:blue", linewidth=2)
        for (name, figures), colour in zip(PUBLISHED.items(), ("0.6", "tab:orange", "tab:green"), strict=True):
            axes.axhline(figures[i][0], color=colour, linestyle="--", linewidth=1.2, label=name)
        axes.set_xticks(range(len(results)), [name.replace(", ", ",\n") for name in results], fontsize=7)
        axes.set_xlim(-0.6, len(results) - 0.4)
        axes.set_title(f"{title}, test accuracy (%)", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
