"""Quantities of the NTK from random probes in output space, without forming the kernel."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nasi_jax.ntk._layers import inner_jaxprs
from nasi_jax.ntk._network import ApplyFn, as_matrix, as_outputs, check_key, check_like, matrix, over_reals, shared_out
from nasi_jax.ntk.gradients import squared_norm


def vector_product(apply_fn: ApplyFn, params: Any, x: Any, vector: Any) -> Any:
    r"""Multiplies the empirical NTK with a vector, without forming it.

    .. math:: \Theta v = J J^\top v

    Cost: one vector-Jacobian and one Jacobian-vector product. May be jitted, vmapped and differentiated.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        vector: a pytree like the outputs.

    Returns:
        The product, a pytree like the outputs, in float32 or better.

    Raises:
        ValueError: the vector is not like the outputs.
    """
    network, reals, x = over_reals(apply_fn, params, x)
    shapes = jax.eval_shape(network, reals, x)
    check_like("vector", vector, "the outputs", shapes)
    return as_outputs(_product(network, reals, x, matrix(jax.tree.map(jnp.asarray, vector))), shapes)


def products(
    apply_fn: ApplyFn, params: Any, x: Any, vectors: np.ndarray, chunk: int = 1, mesh: Mesh | None = None
) -> np.ndarray:
    """Multiplies the empirical NTK with many vectors, by one compiled program that is called from the host.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        vectors: of all outputs as one array, (count, batch, outputs).
        chunk: number of vectors that a device takes together.
        mesh: devices over which to spread them.

    Returns:
        The products, like the vectors.
    """
    size = min(chunk, len(vectors)) * (1 if mesh is None else mesh.size)
    filled = np.concatenate([vectors, np.zeros((-len(vectors) % size, *vectors.shape[1:]), vectors.dtype)])
    parts = [_products(apply_fn, mesh, params, x, filled[i : i + size]) for i in range(0, len(filled), size)]
    return np.concatenate(parts)[: len(vectors)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _products(apply_fn: ApplyFn, mesh: Mesh | None, params: Any, x: Any, vectors: jax.Array) -> jax.Array:
    def compute(params: Any, x: Any, vectors: jax.Array) -> jax.Array:
        network, reals, x = over_reals(apply_fn, params, x)
        return jax.vmap(lambda vector: _product(network, reals, x, vector))(vectors)

    return shared_out(compute, mesh)(params, x, vectors)


def _product(network: ApplyFn, reals: list[jax.Array], x: Any, vector: jax.Array) -> jax.Array:
    network = as_matrix(network)
    outputs, pullback = jax.vjp(lambda p: network(p, x), reals)
    return pushforward(network, reals, x, *pullback(jnp.asarray(vector, outputs.dtype)))


def pushforward(network: ApplyFn, reals: list[jax.Array], x: Any, tangents: list[jax.Array]) -> jax.Array:
    """Multiplies the Jacobian of a network with a direction in its parameters.

    Args:
        network: a network over real parameters, see `over_reals`.
        reals: its parameters.
        x: inputs, a pytree of arrays (batch, ...).
        tangents: a list like the parameters.

    Returns:
        The derivative of the outputs, (batch, outputs).
    """
    forward = jax.make_jaxpr(lambda t: jax.jvp(lambda p: network(p, x), (reals,), (t,))[1])(tangents)
    if not _has_backward_pass_of_its_own(forward.jaxpr):
        return jax.extend.core.jaxpr_as_fun(forward)(*tangents)[0]
    outputs, pullback = jax.vjp(lambda p: network(p, x), reals)
    return jax.vjp(lambda v: pullback(v)[0], jnp.zeros_like(outputs))[1](tangents)[0]


def _has_backward_pass_of_its_own(jaxpr: Any) -> bool:
    """Whether there is a function of `jax.custom_vjp` in a derivative, which then can be transposed, not evaluated."""
    return any(
        equation.primitive.name == "custom_lin" or any(map(_has_backward_pass_of_its_own, inner_jaxprs(equation)))
        for equation in jaxpr.eqns
    )


class ParticipationRatio(NamedTuple):
    """Estimates from one probe.

    Attributes:
        ratio: squared trace over squared Frobenius norm, between 0 and the size of the kernel.
        trace: trace of the kernel.
    """

    ratio: jax.Array
    trace: jax.Array


def participation_ratio(apply_fn: ApplyFn, params: Any, x: Any, key: jax.Array) -> ParticipationRatio:
    r"""Estimates how many eigendirections of the empirical NTK take part, with one Rademacher probe v.

    .. math:: \frac{(\mathrm{tr}\,\Theta)^2}{\|\Theta\|_F^2} \approx \frac{(v^\top \Theta v)^2}{\|\Theta v\|_2^2}

    Over v, the quadratic form is unbiased for the trace and the denominator for the squared Frobenius norm; the ratio
    of one probe lies between 0 and the number of outputs of the batch. No labels are needed.
    Cost: one vector-Jacobian and one Jacobian-vector product, little more than one loss gradient.

    Args:
        apply_fn: the network; its outputs may depend on each other through the batch.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        key: typed random key of the probe.

    Returns:
        The ratio, NaN where the network's outputs do not depend on its parameters, and the trace.
    """
    check_key(key)
    network, reals, x = over_reals(apply_fn, params, x)
    network = as_matrix(network)
    outputs, pullback = jax.vjp(lambda p: network(p, x), reals)
    probe = jax.random.rademacher(key, outputs.shape, outputs.dtype)
    (gradient,) = pullback(probe)
    product = pushforward(network, reals, x, gradient)
    trace = squared_norm(gradient)
    return ParticipationRatio(trace**2 / jnp.sum(product**2), trace)
