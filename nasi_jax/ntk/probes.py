"""Quantities of the NTK from random probes in output space, without forming the kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasi_jax.ntk.gradients import ApplyFn, squared_norm


def vector_product(apply_fn: ApplyFn, params: Any, x: jax.Array, vector: jax.Array) -> jax.Array:
    r"""Multiplies the empirical NTK with a vector, without forming it.

    .. math:: \Theta v = J J^\top v

    Cost: one vector-Jacobian and one Jacobian-vector product. May be jitted, vmapped and differentiated.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        vector: of the shape and type of the outputs, (batch, outputs).

    Returns:
        The product, of the same shape.
    """
    _, pullback = jax.vjp(lambda p: apply_fn(p, x), params)
    return jax.jvp(lambda p: apply_fn(p, x), (params,), pullback(vector))[1]


class ParticipationRatio(NamedTuple):
    """Estimates from one probe.

    Attributes:
        ratio: squared trace over squared Frobenius norm, between 0 and the size of the kernel.
        trace: trace of the kernel.
    """

    ratio: jax.Array
    trace: jax.Array


def participation_ratio(apply_fn: ApplyFn, params: Any, x: jax.Array, key: jax.Array) -> ParticipationRatio:
    r"""Estimates how many eigendirections of the empirical NTK take part, with one Rademacher probe v.

    .. math:: \frac{(\mathrm{tr}\,\Theta)^2}{\|\Theta\|_F^2} \approx \frac{(v^\top \Theta v)^2}{\|\Theta v\|_2^2}

    Over v, the quadratic form is unbiased for the trace and the denominator for the squared Frobenius norm; the ratio
    of one probe lies between 0 and the number of outputs of the batch. No labels are needed.
    Cost: one vector-Jacobian and one Jacobian-vector product, little more than one loss gradient.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        key: typed random key of the probe.

    Returns:
        The ratio, NaN where the network's outputs do not depend on its parameters, and the trace.
    """
    outputs, pullback = jax.vjp(lambda p: apply_fn(p, x), params)
    probe = jax.random.rademacher(key, outputs.shape, outputs.dtype)
    (gradient,) = pullback(probe)
    _, product = jax.jvp(lambda p: apply_fn(p, x), (params,), (gradient,))
    trace = squared_norm(gradient)
    return ParticipationRatio(trace**2 / jnp.sum(product**2), trace)
