"""NASI's estimates of the NTK trace norm from gradients of a loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data.losses import Loss, cross_entropy, losses_of
from nasi_jax.ntk._network import ApplyFn, over_reals, real_parts


def squared_norm(tree: Any) -> jax.Array:
    """Returns the sum of the squared absolute values of all leaves, in single precision or better."""
    squares: dict[Any, jax.Array] = {}
    for leaf in map(real_parts, jax.tree.leaves(tree)):
        kind = leaf.shape, leaf.dtype
        squares[kind] = squares[kind] + leaf * leaf if kind in squares else leaf * leaf
    # a sum for each shape and not for each leaf: a program of hundreds of sums takes long to compile
    return sum((jnp.sum(total) for total in squares.values()), jnp.zeros(()))


def one_batch(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Squared norm of the gradient of the mean loss of one batch, the cheapest bound of the NTK trace.

    .. math:: \tilde{T} = \Big\| \frac{1}{b} \sum_{x \in X} \nabla_\theta L_x \Big\|_2^2

    For a gamma-Lipschitz loss, m times gamma to the -2 times this estimates a lower bound of the trace norm over m
    samples. The paper prints gamma to the -1; squaring its equation 10 gives -2. The factor cancels in a ranking and
    is left out here.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    Raises:
        ValueError: labels are none of the classes, or the loss is not one number for each sample.
        TypeError: a leaf of `params` is no array, or none is floating.

    References:
        NASI, equation 12.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    return squared_norm(jax.grad(lambda p: jnp.mean(losses_of(loss, network(p, x), y)))(reals))


def per_sample(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sum over a batch of the squared norms of the gradients of each sample's loss.

    .. math:: \sum_{x \in X} \| \nabla_\theta L_x \|_2^2

    Each sample's loss is that inside the batch, so the value is right with batch normalisation on batch statistics
    too. It is at least the batch size times `one_batch`, and costs about batch-size gradients. Constants of the
    loss are left out, as in `one_batch`.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    Raises:
        ValueError: labels are none of the classes, or the loss is not one number for each sample.
        TypeError: a leaf of `params` is no array, or none is floating.

    References:
        NASI, equation 11, first line.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    losses, pullback = jax.vjp(lambda p: losses_of(loss, network(p, x), y), reals)
    (gradients,) = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))
    return squared_norm(gradients)
