"""Costs as sums over the choices of an architecture: exact where they are, fitted where they are nearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.spaces import Alphas, SearchSpace, Weights

_RIDGE = 1e-8


class LinearCost(NamedTuple):
    """A cost that is a sum over the rows of `encode`, each of its own choice.

    Attributes:
        base: what every architecture has.
        extra: what each choice adds, a tree like the weights.
        error: largest relative error on the architectures that it was fitted to; 0 where it is exact.
    """

    base: float
    extra: dict[str, np.ndarray]
    error: float = 0.0

    def of(self, weights: Weights) -> jax.Array:
        """Returns the cost of an architecture from its one-hot weights, or the expected one from probabilities."""
        return sum((jnp.sum(weights[kind] * extra) for kind, extra in self.extra.items()), jnp.asarray(self.base))

    def relative_to(self, bound: float) -> LinearCost:
        """Returns the cost divided by a bound, as arrays."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf / bound, jnp.result_type(float)), self)

    def expected(self, alphas: Alphas) -> jax.Array:
        """Returns the expectation of the cost under p_alpha; differentiable."""
        return self.of({kind: jax.nn.softmax(logits) for kind, logits in alphas.items()})


def by_differences(space: SearchSpace, measure: Callable[[Any], float]) -> LinearCost:
    """Measures the architectures that differ from the first in one row, in a space whose costs are such sums.

    Args:
        space: a space that is `additive`.
        measure: cost of an architecture.

    Returns:
        The cost, exact where the space is as it says.
    """
    zeros = jax.tree.map(lambda a: np.zeros(a.shape), space.alphas())
    base = measure(space.decode(zeros))
    extra = jax.tree.map(np.copy, zeros)
    for kind, values in zeros.items():
        for row, choice in np.ndindex(*values.shape):
            if choice:
                logits = jax.tree.map(np.copy, zeros)
                logits[kind][row, choice] = 1
                extra[kind][row, choice] = measure(space.decode(logits)) - base
    return LinearCost(base, extra)


def by_regression(space: SearchSpace, genotypes: Sequence[Any], costs: np.ndarray) -> LinearCost:
    """Fits a sum over choices by least squares.

    Args:
        space: the search space.
        genotypes: some architectures, drawn at random.
        costs: their costs, (architectures,).

    Returns:
        The cost, with its largest relative error on these architectures.
    """
    encoded = [jax.tree.map(np.asarray, space.encode(genotype)) for genotype in genotypes]
    kinds = sorted(encoded[0])
    rows = np.array([np.concatenate([weights[kind].ravel() for kind in kinds]) for weights in encoded])
    mean = costs.mean()
    # rows sum to one, so that only differences between choices are determined: the smallest solution is taken
    gram = rows @ rows.T + _RIDGE * np.eye(len(rows))
    solution = rows.T @ np.linalg.solve(gram, costs - mean)
    error = np.max(np.abs(mean + rows @ solution - costs) / np.abs(costs))
    ends = np.cumsum([encoded[0][kind].size for kind in kinds])
    parts = np.split(solution, ends[:-1])
    extra = {kind: part.reshape(encoded[0][kind].shape) for kind, part in zip(kinds, parts, strict=True)}
    return LinearCost(float(mean), extra, float(error))
