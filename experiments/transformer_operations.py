"""Asks NAS-Bench-BERT's table whether the operations that it lists were ever trained.

The benchmark describes 500 encoders by an operation, heads and feed-forward layers of each layer. If an operation was
trained, the time of the training depends on it, and so should the scores. Least squares of both on width, depth, heads
and deep feed-forward layers, with and without the operations; an F-test says whether those add anything. The same with
two figures of which the training code says that one counts, the channels of deep feed-forward layers, and the other
does not, those of single ones.

    python experiments/transformer_operations.py --table nasbench_bert.csv.gz

Writes a Markdown table to experiments/results/transformer_operations.md; takes seconds; expected:
experiments/README.md.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import tyro
from scipy.stats import f as f_distribution

OPERATIONS = ("sdp", "wma", "dft", "dct", "conv5", "conv9")
_LAYER = re.compile(r"(\w+)-([24])-ff(512|1024)x([13])")
Layer = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Options:
    """Ask the table whether operations were trained.

    Attributes:
        table: CSV file, which may be compressed, with arch and the targets; rows without figures are left out.
        targets: columns that are explained.
        out: the table to write.
    """

    table: pathlib.Path
    targets: tuple[str, ...] = ("pretrain_seconds", "glue", "mnli")
    out: pathlib.Path = pathlib.Path("experiments/results/transformer_operations.md")


def main(options: Options) -> None:
    """Fits, tests, and writes the table."""
    opened = gzip.open if options.table.suffix == ".gz" else open
    with opened(options.table, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] for name in options.targets)]
    parts = described([row["arch"] for row in rows])
    trained = np.hstack([parts["groups"], parts["heads"], parts["deep"], parts["deep 1024"]])
    lines = [
        f"{len(rows)} encoders.", "",
        "| explained | added to what was trained | R^2 without | R^2 with | F | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for target in options.targets:
        y = np.array([float(row[target]) for row in rows])
        for name in ("operations", "single 1024", "deep 1024"):
            before = trained if name != "deep 1024" else trained[:, : -parts[name].shape[1]]
            first, second, statistic, chance = added(before, parts[name], y)
            lines.append(f"| {target} | {name} | {first:.3f} | {second:.3f} | {statistic:.2f} | {chance:.2g} |")
    text = "\n".join(lines) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


def described(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Counts what the layers of each encoder are said to be.

    Args:
        texts: architectures, such as ``h256|dct-4-ff512x3|wma-2-ff1024x1``.

    Returns:
        Arrays (encoders, columns): "groups", a one for the width and depth; numbers of layers for each width by itself,
        with four "heads", with three feed-forward layers, "deep", those among them of 1024 channels, "deep 1024", with
        a single one of so many, "single 1024", and of each of the "operations" but the first.
    """
    widths = [int(text.split("|")[0][1:]) for text in texts]
    layers = [[_layer(part) for part in text.split("|")[1:]] for text in texts]
    kinds = sorted({(width, len(found)) for width, found in zip(widths, layers, strict=True)})
    groups = [[float((w, len(found)) == kind) for kind in kinds] for w, found in zip(widths, layers, strict=True)]

    def counts(*conditions: Callable[[Layer], bool]) -> np.ndarray:
        numbers = np.array([[sum(map(condition, found)) for condition in conditions] for found in layers], float)
        return np.hstack([numbers * (np.array(widths) == width)[:, None] for width in sorted(set(widths))])

    return {
        "groups": np.array(groups),
        "heads": counts(lambda layer: layer[1] == "4"),
        "deep": counts(lambda layer: layer[3] == "3"),
        "deep 1024": counts(lambda layer: layer[2:] == ("1024", "3")),
        "single 1024": counts(lambda layer: layer[2:] == ("1024", "1")),
        "operations": counts(*(_is(name) for name in OPERATIONS[1:])),
    }


def _layer(part: str) -> Layer:
    match = _LAYER.fullmatch(part)
    if match is None or match[1] not in OPERATIONS:
        raise ValueError(f"arch: expected layers such as 'dct-4-ff512x3', got {part!r}")
    return match.groups()


def _is(name: str) -> Callable[[Layer], bool]:
    return lambda layer: layer[0] == name


def added(before: np.ndarray, more: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Tests whether columns explain anything that others do not.

    Args:
        before: (rows, columns).
        more: (rows, further columns).
        y: (rows,).

    Returns:
        The share of the variance that is explained without them and with them, the F statistic, and the probability of
        one as large if they have no effect.
    """
    (first, used), (second, all_used) = (_left(x, y) for x in (before, np.hstack([before, more])))
    total, freedom = np.sum((y - y.mean()) ** 2), (all_used - used, len(y) - all_used)
    statistic = (first - second) / freedom[0] / (second / freedom[1])
    return 1 - first / total, 1 - second / total, statistic, float(f_distribution.sf(statistic, *freedom))


def _left(x: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Returns the sum of squares that least squares leave, and the rank."""
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    return float(np.sum((y - x @ solution) ** 2)), int(rank)


if __name__ == "__main__":
    main(tyro.cli(Options))
