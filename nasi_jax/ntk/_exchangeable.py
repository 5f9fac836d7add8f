"""XTrace and XNysTrace: traces from products with random vectors, each of which is left out in turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

Without = Callable[[int, np.ndarray], float]
"""The estimate from one of the vectors, by its index, with the subspace from others, by theirs."""

_LEFT_OUT = 16  # of these the pairs tell how much two estimates have in common


def mean_and_error(without: Without, count: int) -> tuple[float, float]:
    r"""Returns the mean of the estimates that leave each vector out, and its standard error.

    Two of these estimates, :math:`\hat t_i` and :math:`\hat t_j`, have all other vectors in common and each is unbiased
    given them, so that what correlates them is what the vector i changes in the estimate from j, and j in that from i:

    .. math:: \mathrm{Var}\,\frac{1}{r} \sum_i \hat t_i = \frac{1}{r} \mathbb{E}\,s^2 + c, \quad
        c = \mathbb{E} (\hat t_i - \hat t_{i \setminus j}) (\hat t_j - \hat t_{j \setminus i})

    With s^2, the variance of the r estimates around their mean, and estimates that leave out both. Of c the mean over
    pairs is taken, where it is positive; estimates that do not differ are exact, and where they hardly differ c is at
    most r s^2.

    Args:
        without: see `Without`.
        count: number of vectors.

    Returns:
        Mean and standard error, NaN for a single vector.
    """
    every = np.arange(count)
    estimates = np.array([without(i, np.delete(every, i)) for i in range(count)])
    value = float(np.mean(estimates))
    if count == 1:
        return value, math.nan
    few = min(count, _LEFT_OUT)
    changes = np.zeros((few, few))
    for i, j in itertools.permutations(range(few), 2):
        changes[i, j] = estimates[i] - without(i, np.delete(every, [i, j]))
    spread = np.var(estimates, ddof=1)
    common = np.sum(changes * changes.T) / (few * (few - 1))
    return value, math.sqrt(spread / count + np.clip(common, 0, count * spread))


def xtrace(vectors: np.ndarray, images: np.ndarray, basis: np.ndarray, images_of_basis: np.ndarray) -> Without:
    r"""Estimates the trace of a symmetric matrix A by XTrace.

    For each random vector, the trace on the span of the images of all others is exact, and the vector estimates what is
    left of it:

    .. math:: \hat t_i = \mathrm{tr}(Q_i^\top A Q_i) + \frac{n - r_i}{\|x_i\|^2} x_i^\top A x_i,
        \quad x_i = (I - Q_i Q_i^\top) \omega_i

    Args:
        vectors: Gaussian vectors, (n, r).
        images: A times them, (n, r).
        basis: orthonormal columns that span the images, (n, r).
        images_of_basis: A times those, (n, r).

    Returns:
        The estimate as a function of the vectors; unbiased given the others.

    References:
        Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM
        Journal on Matrix Analysis and Applications, 2024.
    """
    size = len(vectors)
    within = basis.T @ images_of_basis
    within = (within + within.T) / 2
    coordinates, crossed, own = basis.T @ vectors, images_of_basis.T @ vectors, basis.T @ images
    lengths, forms = np.sum(vectors**2, axis=0), np.sum(vectors * images, axis=0)

    def without(i: int, others: np.ndarray) -> float:
        span = _span(own[:, others])
        on_span = span @ (span.T @ coordinates[:, i])
        rest = forms[i] - 2 * crossed[:, i] @ on_span + on_span @ within @ on_span
        left = lengths[i] - on_span @ on_span
        known = np.trace(span.T @ within @ span)
        return known + (size - span.shape[1]) * rest / left if span.shape[1] < size else known

    return without


def xnystrace(vectors: np.ndarray, images: np.ndarray) -> Without:
    r"""Estimates the trace of a positive semidefinite matrix A by XNysTrace.

    As `xtrace`, with the Nyström approximation from all other vectors, which needs no second product. Its inverse is
    taken along directions that are not made by rounding.

    .. math:: \hat t_i = \mathrm{tr}\,A\langle\Omega_i\rangle + \frac{n - r + 1}{\|(I - P_i) \omega_i\|^2}
        \omega_i^\top (A - A\langle\Omega_i\rangle) \omega_i

    Args:
        vectors: Gaussian vectors, (n, r), at most n of them.
        images: A times them, (n, r), of the type that they were computed in.

    Returns:
        The estimate as a function of the vectors; unbiased given the others.

    References:
        Epperly, Tropp and Webber, 2024, section 2.3.
    """
    size, rounding = len(vectors), 10 * np.finfo(images.dtype).eps
    vectors, images = vectors.astype(float), images.astype(float)
    core, overlap, gram = vectors.T @ images, vectors.T @ vectors, images.T @ images
    core = (core + core.T) / 2

    def without(i: int, others: np.ndarray) -> float:
        pairs = np.ix_(others, others)
        values, directions = np.linalg.eigh(core[pairs])
        known = values > rounding * values[-1:]
        seen = directions[:, known] / np.sqrt(values[known])
        rest = core[i, i] - np.sum((core[i, others] @ seen) ** 2)
        left = overlap[i, i] - overlap[i, others] @ np.linalg.solve(overlap[pairs], overlap[others, i])
        return np.sum(seen * (gram[pairs] @ seen)) + (size - len(others)) * rest / left

    return without


def _span(columns: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis of the span, without directions that rounding makes."""
    if not columns.size:
        return columns
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > values[:1] * max(columns.shape) * np.finfo(columns.dtype).eps]
