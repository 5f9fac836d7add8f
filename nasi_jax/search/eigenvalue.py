"""The largest eigenvalue of a Hessian from products with vectors, and when its growth ends a search (DARTS-ES)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def largest_eigenvalue(
    product: Callable[[np.ndarray], np.ndarray], size: int, *, tolerance: float = 1e-3, seed: int = 0
) -> float:
    """Returns the largest eigenvalue of a symmetric matrix, by Lanczos' iteration with full orthogonalisation.

    Args:
        product: product of the matrix with a vector, (size,).
        size: rows of the matrix, after as many products the result is exact.
        tolerance: relative error at which the iteration ends, by the residual of the Ritz vector.
        seed: of the first vector.

    Returns:
        The eigenvalue; NaN where a product is not finite.

    References:
        Zela et al., "Understanding and robustifying differentiable architecture search", ICLR 2020, for its use.
    """
    vector = np.random.default_rng(seed).normal(size=size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal, beside = [], []
    for _ in range(size):
        image = np.asarray(product(basis[-1]), np.float64)
        if not np.isfinite(image).all():
            return float("nan")
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):  # once loses the orthogonality that it is for
            image = image - np.stack(basis).T @ (np.stack(basis) @ image)
        rest = float(np.linalg.norm(image))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        if rest * abs(vectors[-1, -1]) <= tolerance * abs(values[-1]) or rest == 0:
            break
        beside.append(rest)
        basis.append(image / rest)
    return float(values[-1])


def stop_at(
    eigenvalues: np.ndarray, *, window: int = 5, distance: int = 4, ratio: float = 1.3, earliest: int = 5
) -> int | None:
    """Says whether a search is to stop after the last of some eigenvalues, and to which moment it goes back.

    A mean over the last `window` values, fewer at the start, counts for the one in the middle of the window. The search
    stops where the mean is more than `ratio` times that of `distance` values before.

    Args:
        eigenvalues: those of all moments so far, (moments,).
        window: values in a mean.
        distance: moments between the two means.
        ratio: how much larger the later one is.
        earliest: the first moment, from 0 on, that it may go back to.

    Returns:
        The moment that the earlier mean counts for, or None.

    References:
        Zela et al., ICLR 2020, and their code: a value every second of 50 epochs, not before epoch 10.
    """
    last = len(eigenvalues) - 1
    before = last - distance
    moment = before - window // 2
    if before < 0 or moment < earliest:
        return None
    now, then = (float(np.mean(eigenvalues[max(0, i - window + 1) : i + 1])) for i in (last, before))
    return moment if then > 0 and now > ratio * then else None
