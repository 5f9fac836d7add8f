"""NASI's update of the architecture logits as an optax transformation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class LargestNormState(NamedTuple):
    """Largest gradient norm seen so far, a scalar over the whole tree."""

    largest: jax.Array


def scale_by_largest_norm() -> optax.GradientTransformation:
    r"""Divides a gradient by the largest global norm seen up to and including it.

    .. math:: u_t = G_t / \max(\|G_1\|_2, \dots, \|G_t\|_2)

    The norm is that of the whole pytree. While all gradients are zero the update is zero.

    Returns:
        The transformation; its state is a `LargestNormState`.

    References:
        NASI, equation 18.
    """

    def init(params: optax.Params) -> LargestNormState:
        return LargestNormState(jnp.zeros((), jnp.result_type(float, *jax.tree.leaves(params))))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, LargestNormState]:
        del params
        assert isinstance(state, LargestNormState)
        largest = jnp.maximum(state.largest, optax.tree.norm(updates).astype(state.largest.dtype))
        scale = jnp.where(largest > 0, 1 / jnp.where(largest > 0, largest, 1), 0)
        return jax.tree.map(lambda u: u * scale, updates), LargestNormState(largest)

    return optax.GradientTransformation(init, update)


def normalised_expected_gradient(steps: int, radius: float = 1.0) -> optax.GradientTransformation:
    r"""NASI's closed-form step on the architecture logits, spread over `steps` updates.

    .. math:: \Delta^* \approx \frac{\xi}{T} \sum_{t=1}^{T} \frac{G_t}{\max(\|G_1\|_2, \dots, \|G_t\|_2)}

    The sum of the first T updates is the maximiser of the first-order Taylor expansion of the expected objective over
    the ball of radius xi, when every gradient is taken at the same logits. As everywhere in optax, gradients are those
    of a loss to minimise, here the negative objective.

    Args:
        steps: T, the number of updates.
        radius: xi, the radius of the ball.

    Returns:
        The transformation.

    References:
        NASI, equations 16 to 18.

    Examples:
        >>> import jax.numpy as jnp
        >>> transformation = normalised_expected_gradient(steps=2)
        >>> state = transformation.init(jnp.zeros(2))
        >>> update, state = transformation.update(jnp.array([-3.0, -4.0]), state)
        >>> [round(float(u), 3) for u in update]
        [0.3, 0.4]
    """
    return optax.chain(scale_by_largest_norm(), optax.scale(-radius / steps))
