"""The density of the spectrum of the NTK, and traces of its functions, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from nasi_jax.ntk._estimate import Estimate
from nasi_jax.ntk._network import (
    ApplyFn,
    automatic,
    check_count,
    check_key,
    check_not_traced,
    check_positive,
    hashable,
    output_shape,
)
from nasi_jax.ntk.probes import products


class SpectralDensity(NamedTuple):
    """Eigenvalues of a kernel as random vectors see them; made by `spectral_density`.

    Attributes:
        nodes: for each probe, where its weight lies, (probes, steps).
        weights: of the nodes, adding up to 1 for each probe, (probes, steps).
        size: number of eigenvalues: samples times outputs.
        cost: number of vector-Jacobian products that they rest on. Jacobian-vector products count the same.
    """

    nodes: np.ndarray
    weights: np.ndarray
    size: int
    cost: int

    def trace_of(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        r"""Estimates the trace of a function of the kernel.

        .. math:: \mathrm{tr}\,f(\Theta) = \sum_i f(\lambda_i)

        Args:
            function: of an array of eigenvalues, which are not negative; smooth functions need few steps.

        Returns:
            The trace, and its standard error over the probes, NaN for a single one.
        """
        values = self.size * np.sum(self.weights * function(np.maximum(self.nodes, 0)), axis=1)
        return Estimate(float(np.mean(values)), _stderr(values), self.cost)

    def effective_dimension(self, ridge: float) -> Estimate:
        r"""Estimates how many directions a ridge regression with the kernel fits.

        .. math:: d(\rho) = \mathrm{tr}\,\Theta (\Theta + \rho I)^{-1}

        Args:
            ridge: rho, in the units of the kernel.

        Returns:
            The effective dimension, between 0 and `size`.

        Raises:
            ValueError: the ridge is not positive.

        References:
            Zhang, "Learning bounds for kernel regression using effective data dimensionality", 2005.
        """
        check_positive("ridge", ridge)
        return self.trace_of(lambda values: values / (values + ridge))

    def cumulative(self, values: np.ndarray) -> Estimate:
        """Estimates which share of the eigenvalues is at most as large as each of some values.

        Args:
            values: (count,).

        Returns:
            The shares, (count,), and their standard errors over the probes.
        """
        below = self.nodes[:, :, None] <= np.asarray(values, float)
        shares = np.sum(self.weights[:, :, None] * below, axis=1)
        return Estimate(np.mean(shares, axis=0), _stderr(shares), self.cost)

    def density(self, values: np.ndarray, width: float = 0.1) -> Estimate:
        """Estimates the density of the natural logarithm of the eigenvalues, smoothed.

        Args:
            values: eigenvalues at which to take it, positive, (count,).
            width: standard deviation of the Gaussian that stands for a node, in units of the logarithm.

        Returns:
            The density, (count,), and its standard errors over the probes. It integrates over the logarithm to the
            share of the eigenvalues that are not zero to rounding.

        Raises:
            ValueError: a value or the width is not positive.
        """
        check_positive("width", width)
        check_positive("values", np.min(values), "positive eigenvalues")
        largest = np.max(self.nodes)
        positive = self.nodes > largest * self.size * np.finfo(np.float32).eps
        places = np.log(np.where(positive, self.nodes, 1.0))
        away = (np.log(np.asarray(values, float)) - places[:, :, None]) / width
        heights = np.where(positive, self.weights, 0)[:, :, None] * np.exp(-(away**2) / 2)
        found = np.sum(heights, axis=1) / (width * math.sqrt(2 * math.pi))
        return Estimate(np.mean(found, axis=0), _stderr(found), self.cost)


def spectral_density(
    apply_fn: ApplyFn, params: Any, x: Any, *, key: jax.Array, probes: int = 8, steps: int = 32, chunk: int = 8
) -> SpectralDensity:
    """Estimates the spectrum of the empirical NTK of a batch and all outputs, without forming it.

    From each random vector, Lanczos' method makes a small matrix whose eigenvalues, weighted, have the same moments as
    the spectrum seen from that vector, up to twice the number of steps. The bases are orthogonalised in full, in
    float64, and take `probes` times `steps` vectors of memory on the host.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        key: typed random key of the vectors.
        probes: number of random vectors, over which the standard errors are taken.
        steps: number of products with the kernel from each, at most samples times outputs.
        chunk: number of vectors multiplied together.

    Returns:
        The density.

    Raises:
        ValueError: the network is not one (see `kernel`), or gives what is not finite.
        TypeError: as `kernel`, a number is no integer, or an argument is traced, as inside of `jit`.

    References:
        Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017; Ghorbani, Krishnan
        and Xiao, "An investigation into neural net optimization via Hessian eigenvalue density", 2019.
    """
    probes, steps, chunk = (check_count(*pair) for pair in (("probes", probes), ("steps", steps), ("chunk", chunk)))
    check_key(key)
    check_not_traced("spectral_density", params=params, x=x, key=key)
    params, x = automatic(params, x)
    shape, apply_fn = output_shape(apply_fn, params, x), hashable(apply_fn)
    size = math.prod(shape.shape)

    def multiply(vectors: np.ndarray) -> np.ndarray:
        given = vectors.reshape(probes, *shape.shape).astype(shape.dtype)
        return products(apply_fn, params, x, given, chunk).reshape(probes, size).astype(float)

    start = np.asarray(jax.random.rademacher(key, (probes, size), shape.dtype), float) / math.sqrt(size)
    steps = min(steps, size)
    diagonal, beside = _lanczos(multiply, start, steps)
    if not np.isfinite(diagonal).all():
        raise ValueError("apply_fn: expected finite gradients, got some that are not")
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for i in range(probes):
        nodes[i], vectors = scipy.linalg.eigh_tridiagonal(diagonal[i], beside[i])
        weights[i] = vectors[0] ** 2
    return SpectralDensity(nodes, weights, size, 2 * probes * steps)


def _lanczos(
    multiply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns diagonal (probes, steps) and secondary diagonal (probes, steps - 1) of what Lanczos' method makes."""
    probes, size = start.shape
    bases = np.zeros((steps, probes, size))
    diagonal, beside = np.zeros((probes, steps)), np.zeros((probes, steps))
    current = start
    for step in range(steps):
        bases[step] = current
        image = multiply(current)
        diagonal[:, step] = np.sum(current * image, axis=1)
        for _ in range(2):  # once is not enough where eigenvalues differ by many powers of ten
            image = image - np.einsum("spn,spm,pm->pn", bases[: step + 1], bases[: step + 1], image, optimize=True)
        beside[:, step] = np.linalg.norm(image, axis=1)
        # a subspace that the kernel maps into itself has been found; what rounding makes beyond it weighs nothing
        done = beside[:, step] <= np.finfo(float).eps * size * np.abs(diagonal).max(axis=1)
        beside[done, step] = 0
        current = np.where(done[:, None], 0, image / np.where(done, 1, beside[:, step])[:, None])
    return diagonal, beside[:, :-1]


def _stderr(values: np.ndarray) -> Any:
    count = len(values)
    if count == 1:
        return np.full_like(values[0], np.nan)[()]
    return np.std(values, axis=0, ddof=1) / math.sqrt(count)
