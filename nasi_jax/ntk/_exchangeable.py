"""XTrace and XNysTrace: traces from products with random vectors, each of which is left out in turn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Estimates = Callable[[np.ndarray], np.ndarray]
"""The estimates from some of the vectors, by their indices: one for each that is left out of the others."""

_LEFT_OUT = 16  # as many tell the error


def mean_and_error(estimates: Estimates, count: int) -> tuple[float, float]:
    """Returns the mean of the estimates and its standard error.

    The estimates of one set of vectors are not independent, and their spread says too little. The error is that of the
    jackknife: how much the mean changes where a vector is missing. It is on average at least the true one (Efron and
    Stein, "The jackknife estimate of variance", 1981), mostly one to three times as large.

    Args:
        estimates: from some of the vectors.
        count: number of vectors.

    Returns:
        Mean and standard error, NaN for a single vector.
    """
    every = np.arange(count)
    value = float(np.mean(estimates(every)))
    if count == 1:
        return value, math.nan
    means = [np.mean(estimates(np.delete(every, i))) for i in range(min(count, _LEFT_OUT))]
    return value, float((count - 1) / math.sqrt(count) * np.std(means, ddof=1))


def xtrace(vectors: np.ndarray, images: np.ndarray, basis: np.ndarray, images_of_basis: np.ndarray) -> Estimates:
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
        The estimates; their mean is unbiased.

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

    return lambda some: np.array([without(i, some[some != i]) for i in some])


def xnystrace(vectors: np.ndarray, images: np.ndarray) -> Estimates:
    r"""Estimates the trace of a positive semidefinite matrix A by XNysTrace.

    As `xtrace`, with the Nyström approximation from all other vectors, which needs no second product. Its inverse is
    taken along directions that are not made by rounding.

    .. math:: \hat t_i = \mathrm{tr}\,A\langle\Omega_i\rangle + \frac{n - r + 1}{\|(I - P_i) \omega_i\|^2}
        \omega_i^\top (A - A\langle\Omega_i\rangle) \omega_i

    Args:
        vectors: Gaussian vectors, (n, r), at most n of them.
        images: A times them, (n, r), of the type that they were computed in.

    Returns:
        The estimates.

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

    return lambda some: np.array([without(i, some[some != i]) for i in some])


def _span(columns: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis of the span, without directions that rounding makes."""
    if not columns.size:
        return columns
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > values[:1] * max(columns.shape) * np.finfo(columns.dtype).eps]
