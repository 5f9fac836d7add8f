"""What a search maximises, and its gradient with respect to the weights of the operations.

Every objective here is made of forms <grad_theta a, grad_theta b> of scalars a and b of the network's outputs. The
gradient of a form with respect to the weights w of the operations is a mixed second derivative,

    d/dw <grad_theta a, grad_theta b> = d/de [ grad_w a(theta + e grad_theta b) + grad_w b(theta + e grad_theta a) ],

a Jacobian-vector product of grad_w along a gradient that is held fixed. That is forward over reverse: nothing is
differentiated through the backward pass, which costs less memory than reverse over reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from nasi_jax import ntk
from nasi_jax.spaces import Weights

OneShot = Callable[[Any, Weights, jax.Array], jax.Array]
"""A relaxed network: `one_shot(params, weights, x)` returns logits (batch, classes)."""

Objective = Literal["participation-ratio", "one-batch", "per-sample"]
"""What is maximised.

``"one-batch"``: NASI's estimate of the trace norm, equation 12. ``"per-sample"``: its tighter sibling, equation 11.
``"participation-ratio"``: squared trace over squared Frobenius norm of the NTK. Proposition 1 bounds the loss by
(1 - eta lambda_bar)^q for eta < 1 / lambda_max; the best learning rate it admits gives the ratio of mean to largest
eigenvalue, of which this is the smooth form that one random probe estimates. It needs no labels and no constraint.
"""

OBJECTIVES: tuple[str, ...] = get_args(Objective)


class Measurement(NamedTuple):
    """An architecture's figures on one batch.

    Attributes:
        value: the objective.
        trace: the trace norm estimate that the constraint applies to; the objective itself unless it is the ratio.
    """

    value: jax.Array
    trace: jax.Array


class Batch(NamedTuple):
    """What one measurement sees: images `x`, labels `y`, and a random key for probes."""

    x: jax.Array
    y: jax.Array
    key: jax.Array


def measure(objective: Objective, one_shot: OneShot, params: Any, weights: Weights, batch: Batch) -> Measurement:
    """Measures an objective.

    Args:
        objective: which one.
        one_shot: the relaxed network.
        params: its parameters.
        weights: weights of the operations; one-hot for a discrete architecture.
        batch: inputs, labels and key.

    Returns:
        The objective and the trace norm estimate, scalars.
    """

    def apply_fn(p: Any, x: jax.Array) -> jax.Array:
        return one_shot(p, weights, x)

    if objective == "participation-ratio":
        ratio, trace = ntk.participation_ratio(apply_fn, params, batch.x, batch.key)
        return Measurement(ratio, trace / batch.x.shape[0])
    estimate = ntk.one_batch if objective == "one-batch" else ntk.per_sample
    value = estimate(apply_fn, params, batch.x, batch.y)
    return Measurement(value, value)


def measure_with_gradient(
    objective: Objective, one_shot: OneShot, params: Any, weights: Weights, batch: Batch
) -> tuple[Measurement, Measurement]:
    """Measures an objective and differentiates it with respect to the weights, forward over reverse.

    Args:
        objective: which one.
        one_shot: the relaxed network.
        params: its parameters.
        weights: weights of the operations.
        batch: inputs, labels and key.

    Returns:
        The measurement, and a `Measurement` whose fields are the gradients of both figures, trees like `weights`.

    References:
        NASI, equations 11 to 18, for the gradient that the update needs.
    """

    def losses(p: Any, w: Weights) -> jax.Array:
        return ntk.cross_entropy(one_shot(p, w, batch.x), batch.y)

    if objective == "one-batch":
        value, gradient = form_with_gradient(lambda p, w: jnp.mean(losses(p, w)), None, params, weights)
        return Measurement(value, value), Measurement(gradient, gradient)  # type: ignore[arg-type]
    if objective == "per-sample":

        def sample_form(direction: jax.Array) -> tuple[jax.Array, Weights]:
            return form_with_gradient(lambda p, w: losses(p, w) @ direction, None, params, weights)

        directions = jnp.eye(len(batch.y), dtype=batch.x.dtype)
        value, gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(sample_form)(directions))
        return Measurement(value, value), Measurement(gradient, gradient)
    return _participation_ratio_with_gradient(one_shot, params, weights, batch)


def form_with_gradient(
    a: Callable[[Any, Weights], jax.Array],
    b: Callable[[Any, Weights], jax.Array] | None,
    params: Any,
    weights: Weights,
) -> tuple[jax.Array, Weights]:
    """Evaluates <grad_theta a, grad_theta b> and its gradient with respect to the weights.

    Args:
        a: a scalar function of parameters and weights.
        b: another one, or None for `a` itself.
        params: where to take the gradients.
        weights: likewise.

    Returns:
        The form, a scalar, and its gradient, a tree like `weights`.
    """
    gradient_a = jax.grad(a)(params, weights)
    gradient_b = gradient_a if b is None else jax.grad(b)(params, weights)
    value = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient_a, gradient_b)))
    mixed = _directional(a, params, weights, gradient_b)
    if b is None:
        return value, jax.tree.map(lambda m: 2 * m, mixed)  # type: ignore[return-value]
    return value, jax.tree.map(jnp.add, mixed, _directional(b, params, weights, gradient_a))  # type: ignore[return-value]


def _directional(a: Callable[[Any, Weights], jax.Array], params: Any, weights: Weights, direction: Any) -> Weights:
    return jax.jvp(lambda p: jax.grad(a, argnums=1)(p, weights), (params,), (direction,))[1]


def _participation_ratio_with_gradient(
    one_shot: OneShot, params: Any, weights: Weights, batch: Batch
) -> tuple[Measurement, Measurement]:
    def outputs(p: Any, w: Weights) -> jax.Array:
        return one_shot(p, w, batch.x)

    shape = jax.eval_shape(outputs, params, weights)
    probe = jax.random.rademacher(batch.key, shape.shape, shape.dtype)

    def projected(p: Any, w: Weights) -> jax.Array:
        return jnp.vdot(probe, outputs(p, w))

    direction = jax.grad(projected)(params, weights)
    _, product = jax.jvp(lambda p: outputs(p, weights), (params,), (direction,))
    trace, trace_gradient = form_with_gradient(projected, None, params, weights)
    # ||Theta v||^2 has the gradient of 2 w^T Theta v with w = Theta v held fixed
    square, half_gradient = form_with_gradient(
        projected, lambda p, w: jnp.vdot(product, outputs(p, w)), params, weights
    )
    ratio = trace**2 / square
    ratio_gradient = jax.tree.map(
        lambda t, h: 2 * trace / square * t - 2 * trace**2 / square**2 * h, trace_gradient, half_gradient
    )
    size = batch.x.shape[0]
    return Measurement(ratio, trace / size), Measurement(
        ratio_gradient, jax.tree.map(lambda t: t / size, trace_gradient)
    )
