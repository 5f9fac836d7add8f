"""Random search on a table, without running it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.special


class Expectation(NamedTuple):
    """A distribution over runs.

    Attributes:
        mean: its mean.
        sd: its standard deviation.
    """

    mean: float
    sd: float


def best_of_random(value: np.ndarray, outcome: np.ndarray, evaluations: int, *, replace: bool = True) -> Expectation:
    """Computes what random search finds, exactly.

    The best of n uniform draws has at most the i-th smallest value with probability F_i^n, where F_i is the share of
    architectures with at most that value; without replacement with C(N F_i, n) / C(N, n). Ties are broken uniformly.

    Args:
        value: what the search maximises, (architectures,); NaN is worse than all numbers.
        outcome: what is read off for the best one, (architectures,).
        evaluations: number of draws n, at least 1.
        replace: whether an architecture may be drawn again.

    Returns:
        Mean and standard deviation of the outcome over runs.

    Raises:
        ValueError: the arrays differ in shape, or there are not that many architectures to draw.
    """
    value, outcome = np.asarray(value, float), np.asarray(outcome, float)
    if value.shape != outcome.shape or value.ndim != 1:
        raise ValueError(f"outcome: expected shape {value.shape}, as value, got {outcome.shape}")
    if evaluations < 1 or (not replace and evaluations > len(value)):
        expected = "at least 1" if replace else f"1 to {len(value)}"
        raise ValueError(f"evaluations: expected {expected}, got {evaluations!r}")
    _, level, counts = np.unique(np.where(np.isnan(value), -np.inf, value), return_inverse=True, return_counts=True)
    at_most = np.cumsum(counts)
    if replace:
        below = (at_most / len(value)) ** evaluations
    else:
        below = np.exp(_log_choose(at_most, evaluations) - _log_choose(np.array(len(value)), evaluations))
    share = (np.diff(below, prepend=0) / counts)[level]
    mean = share @ outcome
    return Expectation(float(mean), float(np.sqrt(share @ (outcome - mean) ** 2)))


def _log_choose(total: np.ndarray, chosen: int) -> np.ndarray:
    """Returns the logarithm of the binomial coefficient, -inf where there are fewer than that."""
    left = np.maximum(total - chosen, 0)
    log = scipy.special.gammaln(total + 1) - scipy.special.gammaln(chosen + 1) - scipy.special.gammaln(left + 1)
    return np.where(total >= chosen, log, -np.inf)
