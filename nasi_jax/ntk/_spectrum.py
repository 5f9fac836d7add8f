"""The spectrum of the NTK: all of it from a kernel, or its largest eigenvalue without forming one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from nasi_jax.ntk._network import (
    ApplyFn,
    automatic,
    check_key,
    check_not_traced,
    check_positive,
    hashable,
    output_shape,
)
from nasi_jax.ntk.probes import products


class Spectrum(NamedTuple):
    """Eigenvalues of a kernel and what is read off them.

    Attributes:
        eigenvalues: in descending order, (size,).
        trace: their sum.
        condition_number: largest over smallest; infinite where the smallest cannot be told from zero, which is where
            it is at most the largest times the size and the rounding error of the type.
        effective_rank: exponential of the entropy of the eigenvalues as shares of the trace, between 1 and the size
            (Roy and Vetterli, 2007).
        participation_ratio: squared trace over squared Frobenius norm, between 1 and the size.
    """

    eigenvalues: jax.Array
    trace: jax.Array
    condition_number: jax.Array
    effective_rank: jax.Array
    participation_ratio: jax.Array


def spectrum(kernel: jax.Array) -> Spectrum:
    """Computes the spectrum of a kernel; may be jitted and vmapped.

    TE-NAS ranks networks by the condition number of the kernel of the summed outputs, `kernel(..., form="summed")`,
    smaller being better (Chen, Gong and Wang, ICLR 2021).

    Args:
        kernel: a symmetric kernel, traced (n, n) or full (n, n, outputs, outputs), see `kernel`.

    Returns:
        The eigenvalues and figures. The ratios of a kernel that is zero are NaN.

    Raises:
        ValueError: the kernel is of another shape.
    """
    kernel = jnp.asarray(kernel)
    shape = kernel.shape
    if len(shape) not in {2, 4} or shape[0] != shape[1] or shape[2:3] != shape[3:] or 0 in shape:
        raise ValueError(f"kernel: expected shape (n, n) or (n, n, outputs, outputs), got {shape}")
    if len(shape) == 4:
        kernel = jnp.transpose(kernel, (0, 2, 1, 3)).reshape(shape[0] * shape[2], -1)
    # there are no decompositions in half precision
    kernel = jnp.asarray(kernel, jnp.promote_types(kernel.dtype, jnp.float32))
    eigenvalues = jnp.linalg.eigvalsh(kernel)[::-1]
    trace = jnp.trace(kernel)
    # what rounding makes of an eigenvalue that is zero may be negative
    shares = jnp.maximum(eigenvalues, 0) / trace
    largest, smallest = eigenvalues[0], eigenvalues[-1]
    rounding = len(kernel) * jnp.finfo(kernel.dtype).eps * largest
    return Spectrum(
        eigenvalues=eigenvalues,
        trace=trace,
        condition_number=jnp.where(smallest <= rounding, jnp.inf, largest / smallest),
        effective_rank=jnp.exp(-jnp.sum(jax.scipy.special.xlogy(shares, shares))),
        participation_ratio=trace**2 / jnp.sum(kernel**2),
    )


def largest_eigenvalue(apply_fn: ApplyFn, params: Any, x: Any, *, key: jax.Array, tolerance: float = 1e-3) -> float:
    r"""Computes the largest eigenvalue of the empirical NTK of a batch and all outputs, without forming it.

    Gradient descent on the mean squared error contracts in function space for learning rates below its inverse, up to
    the normalisation of the loss. By SciPy's implicitly restarted Lanczos method, which calls one compiled product
    with the kernel from the host.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        key: typed random key of the starting vector.
        tolerance: relative accuracy.

    Returns:
        The eigenvalue; NaN where the network is not finite.

    Raises:
        ValueError: the tolerance is not positive, or the network is not one (see `kernel`).
        TypeError: as `kernel`, or an argument is traced, as inside of `jit`.

    References:
        NASI, condition of Proposition 1; Lehoucq, Sorensen and Yang, "ARPACK users' guide", 1998.
    """
    check_positive("tolerance", tolerance)
    check_key(key)
    check_not_traced("largest_eigenvalue", params=params, x=x, key=key)
    params, x = automatic(params, x)
    shape = output_shape(apply_fn, params, x)
    size = math.prod(shape.shape)

    apply_fn = hashable(apply_fn)

    def multiply(vector: np.ndarray) -> np.ndarray:
        return products(apply_fn, params, x, np.reshape(vector, (1, *shape.shape)).astype(shape.dtype)).ravel()

    start = np.asarray(jax.random.normal(key, (size,), shape.dtype))
    first = multiply(start)
    if not np.isfinite(first).all():
        return math.nan
    if size == 1 or not first.any():
        return float(first[0] / start[0])
    linear: Any = scipy.sparse.linalg
    operator = linear.LinearOperator((size, size), multiply, dtype=shape.dtype)
    # the starting vector is one product ahead already
    return float(linear.eigsh(operator, 1, which="LA", v0=first, tol=tolerance, return_eigenvectors=False)[0])
