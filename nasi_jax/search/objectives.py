"""What a search maximises, and its gradient with respect to the weights of the operations.

Every objective here is made of forms <grad_theta a, grad_theta b> of scalars a and b of the network's outputs. The
gradient of a form with respect to the weights w of the operations is a mixed second derivative,

    d/dw <grad_theta a, grad_theta b> = d/de [ grad_w a(theta + e grad_theta b) + grad_w b(theta + e grad_theta a) ],

a Jacobian-vector product of grad_w along a gradient that is held fixed. That is forward over reverse: nothing is
differentiated through the backward pass, which costs less memory than reverse over reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from nasi_jax import ntk
from nasi_jax.data import Batch, Loss, example_arrays, map_examples
from nasi_jax.spaces import Weights

OneShot = Callable[[Any, Weights, Any], jax.Array]
"""A relaxed network: `one_shot(params, weights, x)` returns outputs (batch, outputs)."""

Objective = Literal["participation-ratio", "one-batch", "per-sample"]
"""What is maximised.

``"one-batch"``: NASI's estimate of the trace norm, equation 12. ``"per-sample"``: its tighter sibling, equation 11.
``"participation-ratio"``: squared trace over squared Frobenius norm of the NTK. Proposition 1 bounds the loss by
(1 - eta lambda_bar)^q for eta < 1 / lambda_max; the best learning rate it admits gives the ratio of mean to largest
eigenvalue, of which this is the smooth form that one random probe estimates. It needs no labels and no constraint.
"""

OBJECTIVES: tuple[str, ...] = get_args(Objective)


# one program also where the network is called block by block: it reads hundreds of arrays
_squared_norm = jax.jit(ntk.squared_norm)


class Measurement(NamedTuple):
    """An architecture's figures on one batch.

    Attributes:
        value: the objective.
        trace: the trace norm estimate that the constraint applies to; the objective itself unless it is the ratio.
    """

    value: jax.Array
    trace: jax.Array


class Sample(NamedTuple):
    """What one measurement sees.

    Attributes:
        batch: inputs and what outputs are compared with.
        loss: loss of each example.
        key: typed random key for probes.
    """

    batch: Batch
    loss: Loss
    key: jax.Array


def measure(
    objective: Objective, one_shot: OneShot, params: Any, weights: Weights, sample: Sample, micro_batches: int = 1
) -> Measurement:
    """Measures an objective.

    Args:
        objective: which one.
        one_shot: the relaxed network.
        params: its parameters.
        weights: weights of the operations; one-hot for a discrete architecture.
        sample: batch, loss and key.
        micro_batches: parts in which the batch goes through the network, for "one-batch"; see `NASI`.

    Returns:
        The objective and the trace norm estimate, scalars.
    """

    def apply_fn(p: Any, x: Any) -> jax.Array:
        return one_shot(p, weights, x)

    x, y = sample.batch
    if objective == "participation-ratio":
        ratio, trace = ntk.participation_ratio(apply_fn, params, x, sample.key)
        return Measurement(ratio, trace / _count(x))
    if objective == "one-batch":
        parts = _mean_losses(one_shot, sample, micro_batches)
        value = _squared_norm(_total([jax.grad(part)(params, weights) for part in parts]))
    else:
        value = ntk.per_sample(apply_fn, params, x, y, sample.loss)
    return Measurement(value, value)


def measure_with_gradient(
    objective: Objective, one_shot: OneShot, params: Any, weights: Weights, sample: Sample, micro_batches: int = 1
) -> tuple[Measurement, Measurement]:
    """Measures an objective and differentiates it with respect to the weights, forward over reverse.

    Args:
        objective: which one.
        one_shot: the relaxed network.
        params: its parameters.
        weights: weights of the operations.
        sample: batch, loss and key.
        micro_batches: see `measure`.

    Returns:
        The measurement, and a `Measurement` whose fields are the gradients of both figures, trees like `weights`.

    References:
        NASI, equations 11 to 18, for the gradient that the update needs.
    """

    def losses(p: Any, w: Weights) -> jax.Array:
        return sample.loss(one_shot(p, w, sample.batch.x), sample.batch.y)

    if objective == "one-batch":
        value, gradient = square_with_gradient(_mean_losses(one_shot, sample, micro_batches), params, weights)
        return Measurement(value, value), Measurement(gradient, gradient)  # type: ignore[arg-type]
    if objective == "per-sample":

        def sample_form(direction: jax.Array) -> tuple[jax.Array, Weights]:
            return square_with_gradient([lambda p, w: losses(p, w) @ direction], params, weights)

        shape = jax.eval_shape(losses, params, weights)
        directions = jnp.eye(len(shape), dtype=shape.dtype)
        value, gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(sample_form)(directions))
        return Measurement(value, value), Measurement(gradient, gradient)
    return _participation_ratio_with_gradient(one_shot, params, weights, sample)


def _mean_losses(one_shot: OneShot, sample: Sample, micro_batches: int) -> list[Callable[[Any, Weights], jax.Array]]:
    """Returns the mean loss of the batch as a sum of functions, of which each sees a part of the batch alone."""

    def part(x: Any, y: Any) -> Callable[[Any, Weights], jax.Array]:
        return lambda p, w: jnp.mean(sample.loss(one_shot(p, w, x), y)) / micro_batches

    def taken(i: int) -> Batch:
        return map_examples(lambda leaf: jnp.split(leaf, micro_batches)[i], sample.batch)

    return [part(*taken(i)) for i in range(micro_batches)]


def _count(x: Any) -> int:
    """Returns the number of examples in a batch of inputs."""
    return len(example_arrays(x)[0][1])


def _total(trees: list[Any]) -> Any:
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *trees)


def square_with_gradient(
    parts: Sequence[Callable[[Any, Weights], jax.Array]], params: Any, weights: Weights
) -> tuple[jax.Array, Weights]:
    """Evaluates ||grad_theta a||^2 of a sum a of functions, and its gradient with respect to the weights.

    Args:
        parts: scalar functions of parameters and weights, which are evaluated one after the other.
        params: where to take the gradients.
        weights: likewise.

    Returns:
        The square, a scalar, and its gradient, a tree like `weights`.
    """
    gradient = _total([jax.grad(part)(params, weights) for part in parts])
    mixed = _total([directional(part, params, weights, gradient) for part in parts])
    return _squared_norm(gradient), jax.tree.map(lambda m: 2 * m, mixed)


def form_with_gradient(
    a: Callable[[Any, Weights], jax.Array],
    b: Callable[[Any, Weights], jax.Array],
    params: Any,
    weights: Weights,
) -> tuple[jax.Array, Weights]:
    """Evaluates <grad_theta a, grad_theta b> and its gradient with respect to the weights.

    Args:
        a: a scalar function of parameters and weights.
        b: another one.
        params: where to take the gradients.
        weights: likewise.

    Returns:
        The form, a scalar, and its gradient, a tree like `weights`.
    """
    gradient_a, gradient_b = (jax.grad(function)(params, weights) for function in (a, b))
    value = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient_a, gradient_b)))
    mixed = [directional(a, params, weights, gradient_b), directional(b, params, weights, gradient_a)]
    return value, _total(mixed)  # type: ignore[return-value]


def directional(a: Callable[[Any, Weights], jax.Array], params: Any, weights: Weights, direction: Any) -> Weights:
    """Returns the derivative, along a direction of the parameters, of the gradient of `a` by the weights."""
    return jax.jvp(lambda p: jax.grad(a, argnums=1)(p, weights), (params,), (direction,))[1]


def _participation_ratio_with_gradient(
    one_shot: OneShot, params: Any, weights: Weights, sample: Sample
) -> tuple[Measurement, Measurement]:
    def outputs(p: Any, w: Weights) -> jax.Array:
        return one_shot(p, w, sample.batch.x)

    shape = jax.eval_shape(outputs, params, weights)
    probe = jax.random.rademacher(sample.key, shape.shape, shape.dtype)

    def projected(p: Any, w: Weights) -> jax.Array:
        return jnp.vdot(probe, outputs(p, w))

    direction = jax.grad(projected)(params, weights)
    _, product = jax.jvp(lambda p: outputs(p, weights), (params,), (direction,))
    trace, trace_gradient = square_with_gradient([projected], params, weights)
    # ||Theta v||^2 has the gradient of 2 w^T Theta v with w = Theta v held fixed
    square, half_gradient = form_with_gradient(
        projected, lambda p, w: jnp.vdot(product, outputs(p, w)), params, weights
    )
    ratio = trace**2 / square
    ratio_gradient = jax.tree.map(
        lambda t, h: 2 * trace / square * t - 2 * trace**2 / square**2 * h, trace_gradient, half_gradient
    )
    size = _count(sample.batch.x)
    return Measurement(ratio, trace / size), Measurement(
        ratio_gradient, jax.tree.map(lambda t: t / size, trace_gradient)
    )
