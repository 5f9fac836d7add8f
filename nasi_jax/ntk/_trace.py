"""The trace of the NTK: exactly, in bounded memory, from random probes with an error bar, or bounded by a loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from nasi_jax.data.losses import Loss, cross_entropy, losses_of
from nasi_jax.ntk._kernel import kernel
from nasi_jax.ntk._network import (
    ApplyFn,
    automatic,
    batch_length,
    check_count,
    check_not_traced,
    output_shape,
    over_reals,
    samples,
)
from nasi_jax.ntk.cotangents import Cotangent, Plan, TraceMethod, make_plan, sketch_size
from nasi_jax.ntk.gradients import squared_norm
from nasi_jax.ntk.neural_tangents import load
from nasi_jax.ntk.probes import vector_product


class TraceEstimate(NamedTuple):
    """A trace and how well it is known.

    Attributes:
        value: the trace, a scalar.
        stderr: standard error of the value; 0 where it is exact, NaN where there is none: for a single probe, which
            cannot tell, and for the lower bounds.
        cost: number of vector-Jacobian products that the value rests on, each about one gradient of a loss.
            Jacobian-vector products count the same.
    """

    value: jax.Array
    stderr: jax.Array
    cost: int


def trace(
    apply_fn: ApplyFn,
    params: Any,
    x: Any,
    y: Any = None,
    *,
    loss: Loss = cross_entropy,
    method: TraceMethod = "exact",
    key: jax.Array | None = None,
    probes: int = 16,
    tolerance: float | None = None,
    batch_size: int | None = None,
    chunk: int = 8,
    batch_statistics: bool = True,
    mesh: Mesh | None = None,
) -> TraceEstimate:
    r"""Computes the trace of the empirical NTK over a batch and all outputs.

    .. math:: \mathrm{tr}\,\Theta = \sum_{x \in X} \|\nabla_\theta f(x)\|_F^2

    The loop over chunks or probes runs on the host around a compiled function, so `trace` itself is not for `jit`,
    `grad` and `vmap`, except by "neural-tangents". Inside of these, sum the diagonal of the kernel, or take
    `participation_ratio`, whose trace is that of one probe.

    The lower bounds are divided by the squared Lipschitz constant gamma^2 of the cross entropy, 2, and so are in the
    unit of the trace. Of another loss the constant is not known; its bounds are those for gamma = 1.

    .. math:: \mathrm{tr}\,\Theta \ge \gamma^{-2} \sum_{x \in X} \|\nabla L_x\|^2
        \ge b \gamma^{-2} \sum_j \Big\| b^{-1} \sum_{x \in X_j} \nabla L_x \Big\|^2

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, outputs). Compiled once for each function
            object.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes, for the lower bounds.
        loss: per-sample loss, for the lower bounds.
        method: see `TraceMethod`.
        key: typed random key of the probes, for "hutchinson", "hadamard" and "hutch++".
        probes: number of probes, or the largest number where a tolerance is given. "hadamard" rounds it up to whole
            blocks of twice the next power of two of the outputs; "hutch++" makes half of them leading directions.
        tolerance: relative standard error at which to stop adding probes, for "hutchinson", which looks at it after
            every 16 probes, and "hadamard", after every block. Stopping by the estimate's own spread is slightly
            optimistic.
        batch_size: number of samples in a batch, for "per-batch"; it divides the number of samples.
        chunk: number of vector-Jacobian products taken together on a device, which bounds the memory.
        batch_statistics: whether an output may depend on the other samples of its batch, see `kernel`. True is always
            right. False is cheaper for "exact", "per-sample" and "per-batch", by up to the number of samples, and
            right only where samples are independent.
        mesh: devices over which to spread the chunks, along all axes. The result does not depend on their number.

    Returns:
        Value, standard error and cost.

    Raises:
        ValueError: an argument is out of range or missing, or the network is not one (see `kernel`).
        TypeError: as `kernel`, a number is no integer, or an argument is traced, as inside of `jit`.
        ImportError: neural-tangents cannot be loaded.

    References:
        NASI, equations 9, 11 and 12.
    """
    if method not in get_args(TraceMethod):
        raise ValueError(f"method: expected one of {get_args(TraceMethod)}, got {method!r}")
    probes, chunk = check_count("probes", probes), check_count("chunk", chunk)
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance}")
    if tolerance is not None and method not in {"hutchinson", "hadamard"}:
        raise ValueError(f"tolerance: expected None with method={method!r}, which adds no probes, got {tolerance}")
    if key is None and method in {"hutchinson", "hadamard", "hutch++"}:
        raise ValueError(f"key: expected a random key with method={method!r}, got None")
    shape, apply_fn = output_shape(apply_fn, params, x), _hashable(apply_fn)
    if method == "neural-tangents":
        load()  # by it, and not by what stands in for it
        diagonal = kernel(apply_fn, params, x, form="diagonal", batch_statistics=batch_statistics)
        return TraceEstimate(jnp.sum(diagonal), jnp.zeros((), shape.dtype), math.prod(shape.shape))
    check_not_traced("trace", params=params, x=x, y=y, key=key)
    params, x, y = automatic(params, x, y)
    plan = make_plan(method, shape.shape, y, probes, batch_size, _hashable(loss))
    if y is not None:
        jax.eval_shape(lambda outputs: losses_of(loss, outputs, y), shape)
    random, extra = key, 0
    if method == "hutch++":
        check_count("probes", probes, 2)
        size = sketch_size(probes, shape.shape)
        random, extra = (key, _leading_directions(apply_fn, params, x, shape, key, size)), 2 * size
    compute = functools.partial(
        _squared_norms, apply_fn, plan.cotangent, plan.group, batch_statistics, mesh, params, x, y, random, plan.count
    )
    estimate, cost = _accumulate(compute, plan, shape.shape[0] // plan.group * plan.count, tolerance, chunk, mesh)
    value, stderr = (jnp.asarray(part, shape.dtype) for part in estimate)
    return TraceEstimate(value, stderr, cost + extra)


def _hashable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function by which `jit` can look up what it has compiled.

    Objects that are compared by values that may change, as of a dataclass, are compiled for each call.
    """
    try:
        hash(function)
    except TypeError:
        return lambda *arguments: function(*arguments)
    return function


def _leading_directions(apply_fn: ApplyFn, params: Any, x: Any, shape: Any, key: Any, size: int) -> jax.Array:
    """Returns orthonormal vectors (size, samples, outputs) that span products of the kernel with random vectors."""
    vectors = jax.random.normal(jax.random.fold_in(key, 0), (size, *shape.shape), shape.dtype)
    columns = [np.ravel(_product(apply_fn, params, x, vector)) for vector in vectors]
    return jnp.asarray(np.linalg.qr(np.stack(columns, axis=1))[0].T.reshape(vectors.shape))


_product = jax.jit(vector_product, static_argnums=0)


def _accumulate(
    compute: Callable[[jax.Array], jax.Array],
    plan: Plan,
    count: int,
    tolerance: float | None,
    chunk: int,
    mesh: Mesh | None,
) -> tuple[tuple[float, float], int]:
    """Takes squared norms chunk by chunk; returns value and standard error, and the number of those they rest on."""
    chunk = min(chunk, count) * (1 if mesh is None else mesh.size)
    squares = np.zeros(0)
    for start in range(0, count, chunk):
        found = compute(jnp.arange(start, start + chunk, dtype=jnp.int32))
        before, squares = len(squares), np.append(squares, np.asarray(found, np.float64)[: count - start])
        if not np.isfinite(squares).all():
            return (float(np.sum(squares)), math.nan), len(squares)
        if tolerance is None or not plan.step:
            continue
        # whatever the chunk and the number of devices, the same probes decide
        for enough in range(before // plan.step * plan.step + plan.step, len(squares) + 1, plan.step):
            value, stderr = plan.reduce(squares[:enough])
            if stderr <= tolerance * value:
                return (value, stderr), enough
    return plan.reduce(squares), count


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _squared_norms(
    apply_fn: ApplyFn,
    cotangent: Cotangent,
    group: int,
    batch_statistics: bool,
    mesh: Mesh | None,
    params: Any,
    x: Any,
    y: Any,
    random: Any,
    count: jax.Array,
    indices: jax.Array,
) -> jax.Array:
    """Returns ||J^T c||^2 for the cotangents c of these indices."""

    def of_group(outputs: jax.Array, y: Any, random: Any, count: Any, index: jax.Array) -> jax.Array:
        return cotangent(outputs, samples(y, index // count * group, group), random, index % count)

    def coupled(params: Any, x: Any, y: Any, random: Any, count: Any, indices: jax.Array) -> jax.Array:
        network, reals, x = over_reals(apply_fn, params, x)
        outputs, pullback = jax.vjp(lambda p: network(p, x), reals)

        def one(index: jax.Array) -> jax.Array:
            start = index // count * group
            own = of_group(jax.lax.dynamic_slice_in_dim(outputs, start, group), y, random, count, index)
            return squared_norm(pullback(jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(outputs), own, start, 0)))

        return jax.vmap(one)(indices)

    def independent(params: Any, x: Any, y: Any, random: Any, count: Any, indices: jax.Array) -> jax.Array:
        network, reals, x = over_reals(apply_fn, params, x)

        def one(index: jax.Array) -> jax.Array:
            own = samples(x, index // count * group, group)
            outputs, pullback = jax.vjp(lambda p: network(p, own), reals)
            return squared_norm(pullback(of_group(outputs, y, random, count, index)))

        return jax.vmap(one)(indices)

    compute = coupled if batch_statistics or group == batch_length("x", x) else independent
    if mesh is not None:
        # without the types of its axes, by which jax.make_mesh would ask for inputs that are spread already
        mesh = Mesh(mesh.devices, mesh.axis_names)
        each, spread = PartitionSpec(), PartitionSpec(mesh.axis_names)
        # parameters are the same everywhere, yet their gradients are not to be summed over devices
        compute = jax.shard_map(
            compute, mesh=mesh, in_specs=(each, each, each, each, each, spread), out_specs=spread, check_vma=False
        )
    return compute(params, x, y, random, count, indices)
