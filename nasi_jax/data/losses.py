"""Losses of single examples: what a source says its outputs are for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Loss = Callable[[Any, Any], jax.Array]
"""Loss of each sample: `loss(outputs, y)` maps what a network returns, such as outputs (batch, outputs), and labels or
targets to (batch,). The latter are any pytree of arrays whose leading axis is the batch."""


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the cross entropy of each sample.

    Args:
        outputs: logits, (batch, classes).
        y: integer labels from 0 to classes - 1, (batch,).

    Returns:
        The losses, (batch,). Loss and gradient of a label that is none of the classes are NaN where the labels are
        traced, as under `jit`, and cannot be looked at.

    Raises:
        ValueError: the labels are no integers, of another shape, or none of the classes.
    """
    if not hasattr(y, "dtype") or not jnp.issubdtype(y.dtype, jnp.integer) or y.shape != outputs.shape[:-1]:
        got = f"{y.dtype} of shape {y.shape}" if hasattr(y, "dtype") else type(y).__name__
        raise ValueError(f"y: expected integer labels of shape {outputs.shape[:-1]}, got {got}")
    classes = outputs.shape[-1]
    with contextlib.suppress(jax.errors.TracerArrayConversionError):
        labels = np.asarray(y)
        unknown = labels[(labels < 0) | (labels >= classes)]
        if unknown.size:
            raise ValueError(f"y: expected labels from 0 to {classes - 1}, got {unknown[0]}")
    known = (y >= 0) & (y < classes)
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
    # a factor, because the gradient has to be NaN as well
    return losses * jnp.where(known, 1.0, jnp.nan).astype(losses.dtype)


def masked_cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the cross entropy of the words that are masked out of each sequence, their mean.

    Args:
        outputs: logits of every id at each of the places, one place after the other, (batch, places * ids).
        y: the ids, (batch, places) integers; -1 at places that are none. Each row has at least one.

    Returns:
        The losses, (batch,).

    Raises:
        ValueError: the ids are no integers, or of a shape that the outputs do not fit.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.ndim != 2 or outputs.shape[1] % y.shape[1]:
        raise ValueError(
            f"y: expected integer ids (batch, places) for outputs of shape {outputs.shape}, got {y.dtype} of shape "
            f"{y.shape}"
        )
    there = y >= 0
    logits = outputs.reshape(*y.shape, -1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(there, y, 0))
    return jnp.sum(jnp.where(there, losses, 0), axis=1) / jnp.sum(there, axis=1)


def absolute_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the mean absolute error of each sample.

    Args:
        outputs: (batch, outputs).
        y: floating targets, (batch, outputs).

    Returns:
        The errors, (batch,), in the units of `y`.

    Raises:
        ValueError: the targets are of another shape.
    """
    if jnp.shape(y) != outputs.shape:
        raise ValueError(f"y: expected targets of shape {outputs.shape}, got shape {jnp.shape(y)}")
    return jnp.mean(jnp.abs(outputs - y), axis=-1)


def losses_of(loss: Loss, outputs: Any, y: Any) -> jax.Array:
    """Applies a loss and checks that what it returns is one number for each sample.

    Args:
        loss: per-sample loss.
        outputs: of a network, an array (batch, ...) or a pytree of such.
        y: labels or targets, a pytree of arrays (batch, ...).

    Returns:
        The losses, (batch,).

    Raises:
        ValueError: the loss is of another shape.
    """
    losses = loss(outputs, y)
    batch = jax.tree.leaves(outputs)[0].shape[:1]
    if jnp.shape(losses) != batch:
        raise ValueError(f"loss: expected one number for each sample, {batch}, got {jnp.shape(losses)}")
    return losses
