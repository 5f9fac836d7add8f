"""How well a score ranks architectures: rank statistics with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

_SELECTION = 100


Function = Callable[[np.ndarray, np.ndarray, np.random.Generator], float]


class Statistic(NamedTuple):
    """A statistic with its bootstrap interval.

    Attributes:
        value: on the data.
        low: lower end of the 95% interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


class Ranking(NamedTuple):
    """How a score ranks architectures.

    Attributes:
        statistics: by name, see `STATISTICS`; NaN where all scores are equal.
        count: architectures that took part.
        left_out: architectures whose score is not a number.
        without_truth: further ones whose published figure is not a finite number.
        infinite: architectures whose score is infinite, which rank first or last.
        ties: architectures that share their score with another.
    """

    statistics: dict[str, Statistic]
    count: int
    left_out: int
    without_truth: int
    infinite: int
    ties: int


def _first(result: Any) -> float:
    return float(result[0])


def _kendall(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
    return _first(scipy.stats.kendalltau(score, truth))


def _spearman(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
    return _first(scipy.stats.spearmanr(score, truth))


def _pearson_of_logarithm(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
    usable = np.isfinite(score) & (score != 0)
    score, truth = score[usable], truth[usable]
    # scores may have been negated; of mixed signs there is no logarithm
    if len(score) < 3 or np.ptp(score) == 0 or (not (score > 0).all() and not (score < 0).all()):
        return np.nan
    return _first(scipy.stats.pearsonr(np.sign(score) * np.log(np.abs(score)), truth))


def _weighted_tau(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
    return _first(scipy.stats.weightedtau(score, truth))


def _precision(share: float) -> Function:
    def precision(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
        size = max(1, round(share * len(score)))
        # ties are broken at random
        chosen = np.lexsort((rng.random(len(score)), -score))[:size]
        best = np.lexsort((rng.random(len(truth)), -truth))[:size]
        return len(np.intersect1d(chosen, best)) / size

    return precision


def _ndcg(share: float) -> Function:
    def ndcg(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
        if truth.min() < 0 or not truth.any():
            return np.nan
        discounts = 1 / np.log2(np.arange(len(truth)) + 2)
        discounts[max(1, round(share * len(truth))) :] = 0
        # architectures of one score share the mean of their gains and of their places
        _, places, counts = np.unique(-score, return_inverse=True, return_counts=True)
        gains = np.bincount(places, truth) / counts
        ends = np.cumsum(counts)
        shares = np.diff(np.concatenate([[0.0], np.cumsum(discounts)])[np.concatenate([[0], ends])])
        return float(gains @ shares / (np.sort(truth)[::-1] @ discounts))

    return ndcg


def _best_of(score: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> float:
    chosen = rng.integers(0, len(score), (200, _SELECTION))
    return float(np.mean(truth[chosen[np.arange(200), np.argmax(score[chosen], axis=1)]]))


STATISTICS: dict[str, Function] = {
    "kendall": _kendall,
    "spearman": _spearman,
    "pearson of log": _pearson_of_logarithm,
    "weighted tau": _weighted_tau,
    "precision at 1%": _precision(0.01),
    "precision at 5%": _precision(0.05),
    "ndcg at 10%": _ndcg(0.1),
    f"best of {_SELECTION}": _best_of,
}
"""What is computed.

Kendall's tau b; Spearman's rho; Pearson's r with the logarithm of the score's size, zeros left out; tau weighted by
hyperbolic rank (Vigna, 2015); the share of the best 1% and 5% that are among the score's own; the discounted
gain of the first tenth by score over that of the best tenth (Järvelin and Kekäläinen, 2002), figures themselves the
gains, NaN where one is negative; the mean figure of the best by score of 100.
"""


def rank(
    score: np.ndarray,
    truth: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    only: Sequence[str] = tuple(STATISTICS),
) -> Ranking:
    """Measures how a score ranks architectures.

    Args:
        score: the score, larger for architectures said to be better, (architectures,).
        truth: the published figure, (architectures,); its unit counts in the best of 100 alone.
        resamples: bootstrap samples of architectures, percentile intervals.
        seed: seed of resamples and of what is random in a statistic.
        only: names of the statistics that are computed, all of `STATISTICS` by default.

    Returns:
        The statistics; architectures whose score is not a number, or whose figure is not a finite one, are left out and
        counted.

    Raises:
        ValueError: the arrays differ in length, or fewer than 3 architectures have a score and a figure.
    """
    score, truth = np.asarray(score, float), np.asarray(truth, float)
    if score.shape != truth.shape or score.ndim != 1:
        raise ValueError(f"score: expected as many as truth, {truth.shape}, got {score.shape}")
    scored = ~np.isnan(score)
    known = scored & np.isfinite(truth)
    if known.sum() < 3:
        raise ValueError(
            f"score: expected at least 3 numbers whose architectures have a figure, got {known.sum()} of {len(score)}"
        )
    score, truth = score[known], truth[known]
    _, counts = np.unique(score, return_counts=True)
    statistics: dict[str, Statistic] = {}
    for name in only:
        function = STATISTICS[name]
        if len(counts) == 1:
            statistics[name] = Statistic(np.nan, np.nan, np.nan)
            continue
        rng = np.random.default_rng(seed)

        def bound(a: np.ndarray, b: np.ndarray, f: Function = function, rng: np.random.Generator = rng) -> float:
            # a resample of few architectures may hold one value alone
            return f(a, b, rng) if a.min() < a.max() and b.min() < b.max() else np.nan

        value, low, high = bound(score, truth), np.nan, np.nan
        if np.isfinite(value):
            options: Any = {"paired": True, "vectorized": False, "n_resamples": resamples, "method": "percentile"}
            options["rng"] = np.random.default_rng(seed)
            sample = scipy.stats.bootstrap((score, truth), bound, **options)
            interval = sample.confidence_interval
            low, high = float(interval.low), float(interval.high)
        statistics[name] = Statistic(value, low, high)
    return Ranking(
        statistics,
        count=len(score),
        left_out=int((~scored).sum()),
        without_truth=int((scored & ~known).sum()),
        infinite=int(np.isinf(score).sum()),
        ties=int(counts[counts > 1].sum()),
    )


def rank_sum(scores: Sequence[np.ndarray], weights: Sequence[float] | None = None, *, log: bool = False) -> np.ndarray:
    """Adds the ranks that several scores give, each larger for architectures said to be better.

    Args:
        scores: arrays (architectures,).
        weights: what each rank is multiplied by; 1 by default.
        log: whether the logarithms of the ranks are added.

    Returns:
        The sums, (architectures,); NaN where a score is.

    References:
        Lee and Ham, "AZ-NAS: assembling zero-cost proxies for network architecture search", CVPR 2024, for logarithms.
    """
    ranks = np.array([scipy.stats.rankdata(score, nan_policy="omit") for score in scores])
    return np.array([1.0] * len(ranks) if weights is None else weights) @ (np.log(ranks) if log else ranks)


def as_json(ranking: Ranking) -> dict[str, Any]:
    """Describes a ranking as plain JSON values; what is not a number is None."""
    values = {
        name: {field: value if np.isfinite(value) else None for field, value in statistic._asdict().items()}
        for name, statistic in ranking.statistics.items()
    }
    return ranking._asdict() | {"statistics": values}
