"""Empirical neural tangent kernels by contraction of Jacobians, a part at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.ntk._network import ApplyFn, batch_length, samples
from nasi_jax.ntk.gradients import squared_norm
from nasi_jax.ntk.probes import pushforward

_CHUNK = 8  # gradients and products taken together


def contraction(
    network: ApplyFn, reals: list[jax.Array], x1: Any, x2: Any, form: str, batch_statistics: bool, outputs: int
) -> jax.Array:
    """Computes a kernel, holding the gradients of one output of all samples at a time.

    Args:
        network: a network over real parameters, see `over_reals`.
        reals: its parameters.
        x1: inputs, a pytree of arrays (n1, ...).
        x2: inputs, a pytree of arrays (n2, ...), or None for `x1`.
        form: "traced", "full" or "diagonal", see `KernelForm`.
        batch_statistics: whether an output may depend on the other samples of its batch.
        outputs: number of outputs.

    Returns:
        The kernel, of the shape that `form` says.
    """
    first = _gradients(network, reals, x1, batch_statistics)
    second = first if x2 is None else _gradients(network, reals, x2, batch_statistics)
    n1 = jnp.arange(batch_length("x", x1))
    n2 = n1 if x2 is None else jnp.arange(batch_length("x", x2))

    def of_all(gradient: Any, n: jax.Array, output: jax.Array) -> list[jax.Array]:
        return jax.lax.map(lambda i: gradient(i, output), n, batch_size=_CHUNK)

    def diagonal(output: jax.Array) -> jax.Array:
        return jax.lax.map(lambda i: squared_norm(first(i, output)), n1, batch_size=_CHUNK)

    def traced(output: jax.Array) -> jax.Array:
        left = of_all(first, n1, output)
        right = left if x2 is None else of_all(second, n2, output)
        parts = [a.reshape(len(n1), -1) @ b.reshape(len(n2), -1).T for a, b in zip(left, right, strict=True)]
        return sum(parts[1:], parts[0])

    def full(output: jax.Array) -> jax.Array:
        other = x1 if x2 is None else x2
        products = lambda i: pushforward(network, reals, other, first(i, output))  # noqa: E731
        return jax.lax.map(products, n1, batch_size=_CHUNK)

    if form == "full":
        return jnp.moveaxis(jax.lax.map(full, jnp.arange(outputs)), 0, 2)
    part = diagonal if form == "diagonal" else traced
    total = jax.eval_shape(part, jnp.zeros((), jnp.int32))
    zeros = jnp.zeros(total.shape, total.dtype)
    return jax.lax.scan(lambda sum_, k: (sum_ + part(k), None), zeros, jnp.arange(outputs, dtype=jnp.int32))[0]


def _gradients(network: ApplyFn, reals: list[jax.Array], x: Any, batch_statistics: bool) -> Any:
    """Returns the function that gives the gradient of one output of one sample."""
    if batch_statistics:
        values, pullback = jax.vjp(lambda p: network(p, x), reals)
        return lambda i, output: pullback(jnp.zeros_like(values).at[i, output].set(1))[0]
    return lambda i, output: jax.grad(lambda p: network(p, samples(x, i, 1))[0, output])(reals)
