"""NASI's estimates of the NTK trace norm from gradients of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

ApplyFn = Callable[[Any, jax.Array], jax.Array]
"""A network: `apply_fn(params, x)` returns outputs (batch, classes)."""

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""Per-sample loss: `loss(outputs, labels)` maps (batch, classes) and (batch,) to (batch,)."""

cross_entropy: Loss = optax.softmax_cross_entropy_with_integer_labels


def squared_norm(tree: Any) -> jax.Array:
    """Returns the sum of the squares of all leaves."""
    squares: dict[Any, jax.Array] = {}
    for leaf in jax.tree.leaves(tree):
        kind = leaf.shape, leaf.dtype
        squares[kind] = squares[kind] + leaf * leaf if kind in squares else leaf * leaf
    # a sum for each shape and not for each leaf: a program of hundreds of sums takes long to compile
    return sum((jnp.sum(total) for total in squares.values()), jnp.zeros(()))


def one_batch(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array, loss: Loss = cross_entropy) -> jax.Array:
    r"""Squared norm of the gradient of the mean loss of one batch, the cheapest bound of the NTK trace.

    .. math:: \tilde{T} = \Big\| \frac{1}{b} \sum_{x \in X} \nabla_\theta L_x \Big\|_2^2

    For a gamma-Lipschitz loss, m times gamma to the -2 times this estimates a lower bound of the trace norm over m
    samples. The paper prints gamma to the -1; squaring its equation 10 gives -2. The factor cancels in a ranking and
    is left out here.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        NASI, equation 12.
    """
    return squared_norm(jax.grad(lambda p: jnp.mean(loss(apply_fn(p, x), y)))(params))


def per_sample(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sum over a batch of the squared norms of the gradients of each sample's loss.

    .. math:: \sum_{x \in X} \| \nabla_\theta L_x \|_2^2

    Each sample's loss is that inside the batch, so the value is right with batch normalisation on batch statistics
    too. It is at least the batch size times `one_batch`, and costs about batch-size gradients. Constants of the
    loss are left out, as in `one_batch`.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        NASI, equation 11, first line.
    """
    losses, pullback = jax.vjp(lambda p: loss(apply_fn(p, x), y), params)
    (gradients,) = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))
    return squared_norm(gradients)
