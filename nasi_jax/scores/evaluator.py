"""Evaluators: what an architecture is worth, in one form whatever stands behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from nasi_jax.scores.scorer import Scorer
from nasi_jax.spaces import SearchSpace

if TYPE_CHECKING:
    from nasi_jax.tabular import Table

FAILED = "reason"


class Evaluator(Protocol):
    """Says what architectures are worth.

    Attributes:
        names: names of the figures.
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    def stream(self, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Evaluates architectures one after the other.

        Args:
            genotypes: concrete ones, any number.

        Yields:
            For each, in turn, its figures by name; NaN, with the reason under `FAILED`, where it has none.
        """
        ...


class ScoreEvaluator:
    """Training-free scores at one seed: the same parameters and batch for all architectures."""

    def __init__(self, scorer: Scorer, seed: int):
        self._scorer, self._seed, self._draw = scorer, seed, None
        self.names = scorer.names

    def stream(self, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Scores architectures; see `Evaluator.stream`."""
        if self._draw is None:
            self._draw = self._scorer.draw(self._seed)
        return self._scorer.stream(self._draw, genotypes)


class TableEvaluator:
    """Published figures: the columns of a table."""

    def __init__(self, space: SearchSpace, table: Table):
        self._space, self._table = space, table
        self.names = tuple(table.columns)

    def stream(self, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Looks architectures up; see `Evaluator.stream`."""
        for genotype in genotypes:
            text = self._space.format(genotype)
            row = self._table.row(self._space, text)
            if row is None:
                yield dict.fromkeys(self.names, math.nan) | {FAILED: f"the table has no {text}"}
            else:
                yield {name: float(column[row]) for name, column in self._table.columns.items()}
