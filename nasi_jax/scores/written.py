"""Scores that `nasi score` has written, read back."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import nasi_jax
from nasi_jax.scores.catalogue import SCORES


class ScoreTable(NamedTuple):
    """What files of `nasi score` have.

    Attributes:
        architectures: text forms, each once, in the order of the files.
        seeds: in ascending order.
        values: each score by its column, an array (seeds, architectures); NaN where a row failed or is missing.
        failed: how many rows are without a finite score.
    """

    architectures: list[str]
    seeds: list[int]
    values: dict[str, np.ndarray]
    failed: int

    @classmethod
    def read(cls, paths: Sequence[pathlib.Path]) -> ScoreTable:
        """Reads files, such as those of the shards of one command. Lines that are no architectures are left out.

        Args:
            paths: the files, with the same scores.

        Returns:
            What they have.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is not one of `nasi score`, has other scores than the first or a row of another again, or
                no file has a row.
        """
        names: list[str] = []
        rows: dict[tuple[str, int], list[float]] = {}
        failed = 0
        for path in paths:
            for number, row in nasi_jax.tabular.read_rows(path, "scores"):
                columns = list(row)
                if columns[:2] != ["genotype", "seed"] or columns[-1:] != ["reason"]:
                    raise ValueError(
                        f"scores: expected a file of 'nasi score' at {str(path)!r}, whose columns are genotype, seed, "
                        f"the scores and reason, got columns {columns}"
                    )
                if names and names != columns[2:-1]:
                    raise ValueError(
                        f"scores: expected scores {names} as in {str(paths[0])!r}, {str(path)!r} has {columns}"
                    )
                names = columns[2:-1]
                try:
                    key = (row["genotype"], int(row["seed"]))
                    values = [float(row[name]) for name in names]
                except ValueError as error:
                    raise ValueError(f"scores: line {number} of {str(path)!r}: {error}") from error
                if key in rows:
                    raise ValueError(f"scores: {str(path)!r} repeats {key[0]!r}, seed {key[1]}")
                failed += bool(row["reason"])
                if not row["reason"].startswith("line "):
                    rows[key] = values
        if not rows:
            raise ValueError(f"scores: expected rows, there are none in {[str(path) for path in paths]}")
        texts, seeds = list(dict.fromkeys(text for text, _ in rows)), sorted({seed for _, seed in rows})
        absent = [math.nan] * len(names)
        whole = np.array([[rows.get((text, seed), absent) for text in texts] for seed in seeds])
        return cls(texts, seeds, {name: whole[..., i] for i, name in enumerate(names)}, failed)

    def oriented(self) -> dict[str, np.ndarray]:
        """Returns the scores, those negated whose catalogue entry says that lower is better."""
        return {name: values if higher_is_better(name) else -values for name, values in self.values.items()}


def higher_is_better(name: str) -> bool:
    """Tells whether architectures with a larger score are said to be better.

    Args:
        name: of a score, maybe with options.

    Returns:
        What the catalogue says; true for a name that is not in it.
    """
    known = SCORES.get(name.partition("(")[0])
    return known is None or known.higher_is_better
