"""One value of several scores, for architectures that come one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from nasi_jax.scores.formula import Formula

_TAIL = 0.1


@dataclasses.dataclass(frozen=True)
class Combination:
    """A sum of ranks that is known before all architectures are.

    Scores differ in scale by orders of magnitude, and a sum of their ranks needs all of them at once. Here the rank of
    a score among a reference sample takes its place, as a fraction: the empirical distribution function, linear between
    the values of the sample. Beyond the sample it goes on with the slope of the outermost tenth, so that better than
    all of them is still told apart. A single score is taken as it is. A score that is better where it is lower is
    negated. Logarithms go on in a straight line as well.

    Attributes:
        formula: which ranks are added, and how.
        signs: for each score 1, or -1 where lower is better.
        reference: for each score its values on the sample, in order and with its sign; empty for a single score.
    """

    formula: Formula
    signs: dict[str, int]
    reference: dict[str, np.ndarray]

    @classmethod
    def fit(cls, formula: Formula, signs: Mapping[str, int], sample: Sequence[Mapping[str, float]] = ()) -> Combination:
        """Makes a combination.

        Args:
            formula: which ranks are added, and how.
            signs: for each score of the formula 1, or -1 where lower is better.
            sample: figures of some architectures drawn at random, of which those that are not finite are left out; not
                needed for a single score.

        Returns:
            The combination.

        Raises:
            ValueError: a score of several has fewer than two different finite values.
        """
        reference = {}
        for name in formula.weights if formula.single is None else ():
            sign = signs[name]
            values = np.sort([sign * row[name] for row in sample if np.isfinite(row[name])])
            if len(np.unique(values)) < 2:
                raise ValueError(
                    f"score: expected {name} to differ between architectures, {len(sample)} random ones have "
                    f"{len(np.unique(values))} different finite values"
                )
            reference[name] = values
        return cls(formula, dict(signs), reference)

    def __call__(self, figures: Mapping[str, float]) -> float:
        """Returns the value of an architecture, larger for better ones; NaN where a score is NaN."""
        if self.formula.single is not None:
            return self.signs[self.formula.single] * figures[self.formula.single]
        total = 0.0
        for name, weight in self.formula.weights.items():
            values = self.reference[name]
            rank = _rank(values, self.signs[name] * figures[name])
            total += weight * (_log(rank, 0.5 / len(values)) if self.formula.log else rank)
        return total / sum(self.formula.weights.values())


def _log(rank: float, least: float) -> float:
    """Returns the logarithm of a rank, which goes on in a straight line below the least that there is in a sample."""
    return float(np.log(max(rank, least)) + min(0.0, rank / least - 1))


def _rank(values: np.ndarray, value: float) -> float:
    """Returns the fraction of sorted values below a value; beyond both ends it goes on in a straight line."""
    if not np.isfinite(value):
        return value
    unique, first, counts = np.unique(values, return_index=True, return_counts=True)
    fractions = (first + 0.5 * counts) / len(values)  # equal values share their rank
    if unique[0] <= value <= unique[-1]:
        return float(np.interp(value, unique, fractions))
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    end, inner, outer = (unique[0], low, fractions[0]) if value < unique[0] else (unique[-1], high, fractions[-1])
    scale = abs(end - inner) or unique[-1] - unique[0]
    return float(outer + _TAIL * (value - end) / scale)
