"""The trace of the NTK: exactly, in bounded memory, from random probes with an error bar, or bounded by a loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nasi_jax.data.losses import Loss, cross_entropy, losses_of
from nasi_jax.ntk._contraction import Task, contraction
from nasi_jax.ntk._coupling import is_coupled
from nasi_jax.ntk._estimate import Estimate
from nasi_jax.ntk._exchangeable import mean_and_error, xnystrace, xtrace
from nasi_jax.ntk._kernel import kernel
from nasi_jax.ntk._memory import free_memory
from nasi_jax.ntk._network import (
    ApplyFn,
    as_matrix,
    as_outputs,
    automatic,
    check_count,
    check_key,
    check_mesh,
    check_not_traced,
    check_positive,
    hashable,
    matrix,
    output_shapes,
    over_reals,
    samples,
    shared_out,
)
from nasi_jax.ntk.cotangents import RANDOM, Cotangent, Plan, TraceMethod, make_plan, sketch_size
from nasi_jax.ntk.gradients import squared_norm
from nasi_jax.ntk.probes import products

Multiply = Callable[[np.ndarray], np.ndarray]


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
    batch_statistics: bool | None = None,
    mesh: Mesh | None = None,
) -> Estimate:
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
        key: typed random key of the probes, for the methods with an error bar.
        probes: number of probes, or the largest number where a tolerance is given. "hadamard" rounds it up to whole
            blocks of twice the next power of two of the outputs; "hutch++" makes half of them leading directions. Of
            "xtrace" and "xnystrace" it is the number of products with the kernel, at least 4 and 2.
        tolerance: relative standard error at which to stop adding probes, for "hutchinson", which looks at it after
            every 16 probes, and "hadamard", after every block. Stopping by the estimate's own spread is slightly
            optimistic.
        batch_size: number of samples in a batch, for "per-batch"; it divides the number of samples.
        chunk: number of vector-Jacobian products taken together on a device, which bounds the memory. "exact" takes as
            many samples as fit into what is free, where these are independent.
        batch_statistics: whether an output may depend on the other samples of its batch, see `kernel`. Where it does
            not, "per-sample" and "per-batch" are cheaper, by up to the number of samples, and "exact" by more, because
            gradients are not formed where a layer's are products.
        mesh: devices over which to spread the chunks, along all axes. But for rounding, the result does not depend on
            their number.

    Returns:
        Value, standard error and cost.

    Raises:
        ValueError: an argument is out of range or missing, or the network is not one (see `kernel`).
        TypeError: as `kernel`, a number is no integer, or an argument is traced, as inside of `jit`.
        ImportError: neural-tangents cannot be loaded.

    References:
        NASI, equations 9, 11 and 12; for the estimates see `TraceMethod`.
    """
    if method not in get_args(TraceMethod):
        raise ValueError(f"method: expected one of {get_args(TraceMethod)}, got {method!r}")
    probes, chunk = check_count("probes", probes), check_count("chunk", chunk)
    check_mesh(mesh)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    if tolerance is not None and method not in {"hutchinson", "hadamard"}:
        raise ValueError(f"tolerance: expected None with method={method!r}, which adds no probes, got {tolerance}")
    if key is None and method in RANDOM:
        raise ValueError(f"key: expected a random key with method={method!r}, got None")
    if method in RANDOM:
        check_key(key)
    shapes, apply_fn = output_shapes(apply_fn, params, x), hashable(apply_fn)
    shape = jax.eval_shape(matrix, shapes)
    if method == "neural-tangents":
        options: dict[str, Any] = {"batch_statistics": batch_statistics, "implementation": "jacobian-contraction"}
        diagonals = kernel(apply_fn, params, x, form="diagonal", **options)
        value = jnp.sum(jnp.stack([jnp.sum(diagonal) for diagonal in jax.tree.leaves(diagonals)]))
        return Estimate(value, jnp.zeros((), shape.dtype), math.prod(shape.shape))
    check_not_traced("trace", params=params, x=x, y=y, key=key)
    params, x, y = automatic(params, x, y)
    multiply = functools.partial(products, apply_fn, params, x, chunk=chunk, mesh=mesh)
    if method in {"xtrace", "xnystrace"}:
        return _leaving_out(method, multiply, shape, key, probes)
    plan = make_plan(method, shape.shape, y, probes, batch_size, hashable(loss), shapes)
    if y is not None:
        jax.eval_shape(lambda outputs: losses_of(loss, outputs, y), shapes)
    random, extra = key, 0
    if method == "hutch++":
        check_count("probes", probes, 2)
        size = sketch_size(probes, shape.shape)
        random, extra = (key, _leading_directions(multiply, shape, key, size)), 2 * size
    coupled = plan.group == shape.shape[0] or is_coupled(apply_fn, params, x, batch_statistics)
    if method == "exact" and not coupled:
        value = np.sum(_apart(apply_fn, params, x, mesh), dtype=float)
        stderr = 0.0 if np.isfinite(value) else math.nan
        return Estimate(jnp.asarray(value, shape.dtype), jnp.asarray(stderr, shape.dtype), math.prod(shape.shape))
    compute = functools.partial(
        _squared_norms, apply_fn, plan.cotangent, plan.group, coupled, mesh, params, x, y, random, plan.count
    )
    estimate, cost = _accumulate(compute, plan, shape.shape[0] // plan.group * plan.count, tolerance, chunk, mesh)
    value, stderr = (jnp.asarray(part, shape.dtype) for part in estimate)
    return Estimate(value, stderr, cost + extra)


def diagonal(
    apply_fn: ApplyFn,
    params: Any,
    x: Any,
    *,
    method: Literal["exact", "hutchinson"] = "exact",
    key: jax.Array | None = None,
    probes: int = 16,
    chunk: int = 8,
    batch_statistics: bool | None = None,
    mesh: Mesh | None = None,
) -> Estimate:
    r"""Computes the diagonal of the full empirical NTK: the squared norm of the gradient of each output of each sample.

    .. math:: \Theta_{ii}^{kk} = \|\nabla_\theta f_k(x_i)\|^2 \approx \frac{1}{m} \sum_j v_j \odot \Theta v_j

    The diagonal of the traced kernel, summed over outputs, is `kernel` with form="diagonal".

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, ...), see `ApplyFn`.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        method: "exact", by one vector-Jacobian product for each output of each sample, or "hutchinson", unbiased, by
            products with Rademacher vectors.
        key: typed random key of the probes.
        probes: number of them.
        chunk: number of products taken together on a device, see `trace`.
        batch_statistics: whether an output may depend on the other samples of its batch, see `kernel`.
        mesh: devices over which to spread the products.

    Returns:
        The diagonal and its standard errors, pytrees like the outputs, and the cost.

    Raises:
        ValueError: an argument is out of range or missing, or the network is not one (see `kernel`).
        TypeError: as `kernel`, a number is no integer, or an argument is traced, as inside of `jit`.

    References:
        Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", 2007.
    """
    if method not in {"exact", "hutchinson"}:
        raise ValueError(f"method: expected 'exact' or 'hutchinson', got {method!r}")
    probes, chunk = check_count("probes", probes), check_count("chunk", chunk)
    check_mesh(mesh)
    check_not_traced("diagonal", params=params, x=x, key=key)
    params, x = automatic(params, x)
    shapes, apply_fn = output_shapes(apply_fn, params, x), hashable(apply_fn)
    shape = jax.eval_shape(matrix, shapes)
    if method == "exact":
        plan = make_plan("exact", shape.shape, None, probes, None)
        if not is_coupled(apply_fn, params, x, batch_statistics):
            value = jnp.asarray(_apart(apply_fn, params, x, mesh))
            return Estimate(as_outputs(value, shapes), as_outputs(jnp.zeros_like(value), shapes), value.size)
        squares, size = [], chunk * (1 if mesh is None else mesh.size)
        for start in range(0, math.prod(shape.shape), size):
            index = jnp.arange(start, start + size, dtype=jnp.int32)
            squares.append(
                _squared_norms(apply_fn, plan.cotangent, 1, True, mesh, params, x, None, None, plan.count, index)
            )
        value = jnp.concatenate(squares)[: math.prod(shape.shape)].reshape(shape.shape)
        return Estimate(as_outputs(value, shapes), as_outputs(jnp.zeros_like(value), shapes), value.size)
    if key is None:
        raise ValueError("key: expected a random key with method='hutchinson', got None")
    check_key(key)
    vectors = np.asarray(jax.random.rademacher(key, (probes, *shape.shape), shape.dtype))
    found = vectors * products(apply_fn, params, x, vectors, chunk, mesh)
    stderr = np.std(found, axis=0, ddof=1) / math.sqrt(probes) if probes > 1 else np.full_like(found[0], np.nan)
    value, stderr = (as_outputs(jnp.asarray(part), shapes) for part in (np.mean(found, axis=0), stderr))
    return Estimate(value, stderr, 2 * probes)


def _apart(apply_fn: ApplyFn, params: Any, x: Any, mesh: Mesh | None) -> np.ndarray:
    """Returns the squared norms of the gradients of all outputs of independent samples, (samples, outputs)."""
    return np.asarray(contraction(Task(apply_fn, None, "diagonal", False, mesh), params, x, None, free_memory()))


def _leading_directions(multiply: Multiply, shape: Any, key: Any, size: int) -> jax.Array:
    """Returns orthonormal vectors (size, samples, outputs) that span products of the kernel with random vectors."""
    vectors = jax.random.normal(jax.random.fold_in(key, 0), (size, *shape.shape), shape.dtype)
    columns = multiply(np.asarray(vectors)).reshape(size, -1)
    return jnp.asarray(np.linalg.qr(columns.T)[0].T.reshape(vectors.shape))


def _leaving_out(method: str, multiply: Multiply, shape: Any, key: Any, probes: int) -> Estimate:
    """Estimates by XTrace or XNysTrace."""
    size = math.prod(shape.shape)
    count = min(check_count("probes", probes, 4) // 2 if method == "xtrace" else check_count("probes", probes, 2), size)
    vectors = np.asarray(jax.random.normal(key, (count, *shape.shape), shape.dtype))
    images = multiply(vectors)
    if not np.isfinite(images).all():
        return Estimate(jnp.asarray(np.sum(images) * math.nan, shape.dtype), jnp.asarray(math.nan), 2 * count)
    columns, of_columns = (leaf.reshape(count, size).T for leaf in (vectors, images))
    if method == "xnystrace":
        estimates = xnystrace(columns, of_columns)
    else:
        of_columns = of_columns.astype(float)
        basis = np.linalg.qr(of_columns)[0]
        of_basis = multiply(basis.T.reshape(images.shape).astype(images.dtype)).reshape(count, size).T
        estimates = xtrace(columns.astype(float), of_columns, basis, of_basis.astype(float))
    value, stderr = (jnp.asarray(part, shape.dtype) for part in mean_and_error(estimates, count))
    return Estimate(value, stderr, (4 if method == "xtrace" else 2) * count)


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
    together: bool,
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
        network = as_matrix(network)
        outputs, pullback = jax.vjp(lambda p: network(p, x), reals)

        def one(index: jax.Array) -> jax.Array:
            start = index // count * group
            own = of_group(jax.lax.dynamic_slice_in_dim(outputs, start, group), y, random, count, index)
            return squared_norm(pullback(jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(outputs), own, start, 0)))

        return jax.vmap(one)(indices)

    def independent(params: Any, x: Any, y: Any, random: Any, count: Any, indices: jax.Array) -> jax.Array:
        network, reals, x = over_reals(apply_fn, params, x)
        network = as_matrix(network)

        def one(index: jax.Array) -> jax.Array:
            own = samples(x, index // count * group, group)
            outputs, pullback = jax.vjp(lambda p: network(p, own), reals)
            return squared_norm(pullback(of_group(outputs, y, random, count, index)))

        return jax.vmap(one)(indices)

    compute = coupled if together else independent
    return shared_out(compute, mesh)(params, x, y, random, count, indices)
