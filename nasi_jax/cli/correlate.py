"""`nasi correlate`: scores held against published accuracies."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

import nasi_jax
from nasi_jax import spaces
from nasi_jax.runs.files import remove_partial, write_atomic
from nasi_jax.runs.folder import RunFolderError, lock_folder
from nasi_jax.runs.progress import Progress
from nasi_jax.scores import Formula, ScoreTable, higher_is_better
from nasi_jax.spaces.text import unknown

_RESULT, _TABLE = "correlation.json", "correlation.md"
_FEW = 10
"""Fewer architectures have wide intervals, and the bootstrap does not show how wide."""


@dataclasses.dataclass(frozen=True)
class Correlate:
    """Measure how well scores rank the architectures of a published benchmark.

    Prints a table and writes correlation.md, correlation.json and a scatter plot for each score.

    Attributes:
        scores: CSV files of `nasi score`, such as those of the shards of one command.
        table: CSV file of the benchmark, plain or gzipped, its cells parted by commas, semicolons or tabs, with a
            column arch and columns of accuracies.
        column: columns of the table to rank, in percent or as fractions: only the best of 100 is in their unit.
        missing: what becomes of architectures that the table does not have: an error, or they are dropped and counted.
        repeated: what becomes of architectures that the table has in several rows: an error, or their mean counts.
        out: folder for table and plots.
        space: search space of the architectures.
        combine: further scores, each a sum of ranks of others: a+b, 2*a+b, or log(a+b) for the logarithms of ranks.
        subset: named part of the space to which all is restricted, such as valid for nasbench201: the cells in which
            every operation is on a path from input to output.
        unique: keep one of the architectures that compute the same function, with the mean of their accuracies.
        resamples: bootstrap samples for the 95% intervals.
        load: Python files of yours that register spaces, scores or strategies.
    """

    scores: tuple[pathlib.Path, ...]
    table: pathlib.Path
    column: tuple[str, ...]
    missing: Literal["error", "drop"] = "error"
    repeated: Literal["error", "mean"] = "error"
    out: pathlib.Path = pathlib.Path("correlation")
    space: str = "nasbench201"
    combine: tuple[str, ...] = ()
    subset: str | None = None
    unique: bool = False
    resamples: int = 1000
    load: tuple[pathlib.Path, ...] = ()

    def run(self) -> int:
        """Runs the command.

        Returns:
            The exit status.

        Raises:
            ValueError: a file or column is not as expected, or the folder cannot be used.
            FileNotFoundError: there is no such file.
        """
        if self.resamples < 1:
            raise ValueError(f"resamples: expected a positive integer, got {self.resamples}")
        written = ScoreTable.read(self.scores)
        names, texts = list(written.values), written.architectures
        space = spaces.get(self.space)
        table = nasi_jax.tabular.Table.read(self.table, self.column, space if self.repeated == "mean" else None)
        scored, texts = len(texts), [text for text in texts if self._is_in(space, text)]
        if not texts:
            raise ValueError(
                f"subset: expected some of the {scored} scored architectures, {self.subset!r} has none of them"
            )
        asked = len(texts)
        texts = [text for text in texts if self.missing == "error" or table.row(space, text) is not None]
        if not texts:
            raise ValueError(f"table: expected some of the {asked} architectures, {str(self.table)!r} has none of them")
        truth = table.lookup(texts, space)
        kept = set(texts)
        rows = [text in kept for text in written.architectures]
        # the mean over seeds, not a number where a seed is missing or failed
        values = {name: column[:, rows].mean(axis=0) for name, column in written.values.items()}
        if self.unique:
            truth, values = _merged(space, texts, truth, values)
        oriented = {name: column if higher_is_better(name) else -column for name, column in values.items()}
        for combination in self.combine:
            formula = Formula.parse(combination)
            if not set(formula.weights) <= set(names):
                raise ValueError(f"combine: expected names of {names} joined by '+', got {combination!r}")
            oriented[combination] = values[combination] = formula.ranked(oriented)
        notes = [
            f"Seeds: {len(written.seeds)}; scores are means over them. Intervals: 95%, bootstrap over architectures."
        ]
        if self.subset:
            notes.append(f"Architectures of the subset {self.subset} of {space.name} alone.")
        if written.failed:
            notes.append(f"{written.failed} rows are without a finite score, for the reasons that the files name.")
        dropped = asked - len(texts)
        if dropped:
            notes.append(f"{dropped} of {asked} architectures are not in the table, and were left out.")
        if len(texts) < _FEW:
            notes.append(f"{len(texts)} architectures are too few to tell scores apart.")
        notes.append("A score marked with - is said to be better where it is lower, and was negated.")
        notes.append("The best of 100 is in the unit of its column; all else does not depend on the unit.")
        # of names from files, which may be anybody's
        pictures = {name: re.sub(r"[^\w.+=(),-]", "_", name) + ".png" for name in values}
        with _claimed(self.out, [*pictures.values(), _TABLE, _RESULT]):
            results, lines = self._ranked(oriented, truth)
            text = "\n".join([*lines, "", *notes]) + "\n"
            for name, picture in pictures.items():
                buffer = io.BytesIO()
                figure = nasi_jax.report.scatter_figure(name, values[name], truth)
                figure.savefig(buffer, format="png", dpi=120)
                write_atomic(self.out / picture, buffer.getvalue())
            record = {"seeds": written.seeds, "missing": dropped, "scores": results}
            write_atomic(self.out / _TABLE, text)
            write_atomic(self.out / _RESULT, json.dumps(record, indent=2) + "\n")
        print(text, end="")
        return 0

    def _is_in(self, space: spaces.SearchSpace, text: str) -> bool:
        if self.subset is None:
            return True
        if self.subset not in space.subsets:
            raise ValueError(unknown(f"subset of {space.name}", self.subset, space.subsets))
        return space.subsets[self.subset](space.parse(text))

    def _ranked(
        self, oriented: dict[str, np.ndarray], truth: dict[str, np.ndarray]
    ) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Returns the statistics of each score and column, as JSON values and as lines of a table."""
        results: dict[str, dict[str, Any]] = {}
        header = ["score", "truth", "architectures", *nasi_jax.tabular.STATISTICS]
        lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
        with Progress("nasi correlate", len(oriented) * len(self.column), unit="ranking") as progress:
            for name, score in oriented.items():
                results[name] = {}
                for column in self.column:
                    ranking = nasi_jax.tabular.rank(score, truth[column], resamples=self.resamples)
                    results[name][column] = nasi_jax.tabular.as_json(ranking)
                    lines.append(_line(name, column, ranking))
                    progress.advance(1, {"spearman": ranking.statistics["spearman"].value})
        return results, lines


@contextlib.contextmanager
def _claimed(out: pathlib.Path, names: Sequence[str]) -> Iterator[None]:
    """Holds a folder whose files of these names may be written: they are those of an earlier command, or not there."""
    lock = lock_folder(out)
    try:
        there = [name for name in names if (out / name).exists()]
        if there and _RESULT not in there:
            raise RunFolderError(f"out: {str(out)!r} holds a {there[0]}, but no {_RESULT}; choose another folder")
        for name in names:
            remove_partial(out, name)
        yield
    finally:
        lock.release()


def _merged(space: Any, texts: list[str], truth: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> Any:
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(space.canonical(space.parse(text)), []).append(number)
    members = list(groups.values())
    return (
        {name: np.array([_mean(column[group]) for group in members]) for name, column in truth.items()},
        {name: column[[group[0] for group in members]] for name, column in values.items()},
    )


def _mean(figures: np.ndarray) -> float:
    """Returns the mean of the finite ones, NaN where there are none."""
    known = figures[np.isfinite(figures)]
    return float(known.mean()) if len(known) else math.nan


def _line(name: str, column: str, ranking: nasi_jax.tabular.Ranking) -> str:
    count = str(ranking.count)
    extra = [f"{ranking.left_out} not a number"] if ranking.left_out else []
    extra += [f"{ranking.without_truth} without a figure"] if ranking.without_truth else []
    extra += [f"{ranking.infinite} infinite"] if ranking.infinite else []
    extra += [f"{ranking.ties} tied"] if ranking.ties else []
    cells = ["-" * (not higher_is_better(name)) + name, column, count + (f" ({', '.join(extra)})" if extra else "")]
    for statistic in ranking.statistics.values():
        shown = f"{statistic.value:.3f} [{statistic.low:.3f}, {statistic.high:.3f}]"
        cells.append(shown if math.isfinite(statistic.value) else "none")
    return "| " + " | ".join(cells) + " |"
