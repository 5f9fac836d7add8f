"""The trace of the NTK: exactly, in bounded memory, or from random probes with an error bar."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from nasi_jax.ntk.gradients import ApplyFn, squared_norm
from nasi_jax.ntk.kernel import kernel, output_shape

TraceMethod = Literal["exact", "neural-tangents", "hutchinson"]
"""How a trace is computed.

``"exact"``: one vector-Jacobian product for each output of each sample, in chunks, so that memory does not grow with
the number of outputs. ``"neural-tangents"``: by the diagonal of the kernel. ``"hutchinson"``: the mean of
||J^T v||^2 over Rademacher vectors v in output space (Hutchinson, 1990), which is unbiased.
"""

_FEWEST_PROBES = 4


class TraceEstimate(NamedTuple):
    """A trace and how well it is known.

    Attributes:
        value: the trace, a scalar.
        stderr: standard error of the value; 0 where it is exact, NaN for a single probe, which cannot tell.
        cost: number of vector-Jacobian products taken, each about one gradient of a loss.
    """

    value: jax.Array
    stderr: jax.Array
    cost: int


def trace(
    apply_fn: ApplyFn,
    params: Any,
    x: jax.Array,
    *,
    method: TraceMethod = "exact",
    key: jax.Array | None = None,
    probes: int = 16,
    tolerance: float | None = None,
    chunk: int = 8,
    batch_statistics: bool = True,
) -> TraceEstimate:
    r"""Computes the trace of the empirical NTK over a batch and all outputs.

    .. math:: \mathrm{tr}\,\Theta = \sum_{x \in X} \|\nabla_\theta f(x)\|_F^2

    The loop over chunks or probes runs on the host around a compiled function, so `trace` itself is not for `jit`.

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, outputs). Compiled once for each function
            object.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        method: see `TraceMethod`.
        key: typed random key of the probes, for "hutchinson".
        probes: number of probes, or the largest number where a tolerance is given.
        tolerance: relative standard error at which to stop adding probes. At least 4 are taken. Stopping by the
            estimate's own spread is slightly optimistic for few probes.
        chunk: number of vector-Jacobian products taken together by "exact", which bounds its memory.
        batch_statistics: only for "neural-tangents", see `kernel`; the other methods are right either way.

    Returns:
        Value, standard error and cost.

    Raises:
        ValueError: an argument is out of range or missing, or the network is not one (see `kernel`).
        TypeError: the outputs are not one floating array.
        ImportError: neural-tangents cannot be loaded.

    References:
        NASI, equation 9.
    """
    if method not in get_args(TraceMethod):
        raise ValueError(f"method: expected one of {get_args(TraceMethod)}, got {method!r}")
    for name, value in (("probes", probes), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance}")
    if method == "hutchinson" and key is None:
        raise ValueError("key: expected a random key with method='hutchinson', got None")
    shape = output_shape(apply_fn, params, x)
    count = shape.shape[0] * shape.shape[1]
    if method == "neural-tangents":
        diagonal = kernel(apply_fn, params, x, form="diagonal", batch_statistics=batch_statistics)
        return TraceEstimate(jnp.sum(diagonal), jnp.zeros((), shape.dtype), count)
    if method == "exact":
        chunk = min(chunk, count)
        total = jnp.zeros((), shape.dtype)
        for start in range(0, count, chunk):
            total = total + _basis_chunk(apply_fn, params, x, start, chunk)
        return TraceEstimate(total, jnp.zeros((), shape.dtype), count)
    assert key is not None
    return _hutchinson(apply_fn, params, x, key, probes, tolerance)


def _hutchinson(
    apply_fn: ApplyFn, params: Any, x: jax.Array, key: jax.Array, probes: int, tolerance: float | None
) -> TraceEstimate:
    values: list[jax.Array] = []
    for i in range(probes):
        values.append(_probe(apply_fn, params, x, jax.random.fold_in(key, i)))
        if tolerance is not None and len(values) >= _FEWEST_PROBES:
            value, stderr = _mean_and_error(values)
            if stderr <= tolerance * jnp.abs(value):
                break
    value, stderr = _mean_and_error(values)
    return TraceEstimate(value, stderr, len(values))


def _mean_and_error(values: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    drawn = jnp.stack(values)
    if len(values) == 1:
        return drawn[0], jnp.full_like(drawn[0], jnp.nan)
    return jnp.mean(drawn), jnp.std(drawn, ddof=1) / jnp.sqrt(float(len(values)))


@functools.partial(jax.jit, static_argnums=0)
def _probe(apply_fn: ApplyFn, params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    outputs, pullback = jax.vjp(lambda p: apply_fn(p, x), params)
    return squared_norm(pullback(jax.random.rademacher(key, outputs.shape, outputs.dtype)))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _basis_chunk(apply_fn: ApplyFn, params: Any, x: jax.Array, start: int, chunk: int) -> jax.Array:
    """Sums ||J^T e_i||^2 over i = start, ..., start + chunk - 1; past the last output e_i is zero."""
    outputs, pullback = jax.vjp(lambda p: apply_fn(p, x), params)

    def squared_row(i: jax.Array) -> jax.Array:
        basis = jnp.zeros(outputs.size, outputs.dtype).at[i].set(1, mode="drop")
        return squared_norm(pullback(basis.reshape(outputs.shape)))

    return jnp.sum(jax.vmap(squared_row)(start + jnp.arange(chunk)))
