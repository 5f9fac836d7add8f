"""DARTS: logits by the validation loss of weights that are trained alongside (Liu, Simonyan and Yang, ICLR 2019)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Literal, NamedTuple, get_args

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from nasi_jax.data import Batch, Halves
from nasi_jax.programs import Execution, NetworkProgram
from nasi_jax.programs.compiler import in_groups
from nasi_jax.search.eigenvalue import largest_eigenvalue, stop_at
from nasi_jax.search.objectives import directional
from nasi_jax.search.relaxation import Relaxation, gumbel_softmax
from nasi_jax.search.supernet import SizeT, Supernet, SupernetState, entropy, norm_of, skip_share, skips
from nasi_jax.spaces import Alphas, SearchSpace, Weights
from nasi_jax.spaces.base import check_positive

Order = Literal["first", "second", "finite-difference", "single-level"]
"""Of what the logits follow the gradient.

``"first"``: the validation loss at the weights as they are. ``"second"``: that of the weights a step of training
further, which depend on the logits too; its mixed derivative is a Jacobian-vector product, exact.
``"finite-difference"``: the same with the authors' difference of two gradients in its place, for less memory.
``"single-level"``: the training loss, by the backward pass that moves the weights.
"""

Mixture = Literal["softmax", "soft", "hard"]
"""What weighs the operations: probabilities, as in DARTS, or samples of p_alpha, see `Relaxation`. GDAS is "hard"."""

ORDERS: tuple[str, ...] = get_args(Order)
MIXTURES: tuple[str, ...] = get_args(Mixture)

Loss = Callable[[Any, Weights], jax.Array]


class DARTSInfo(NamedTuple):
    """Figures of one step, scalars.

    Attributes:
        training_loss: mean loss of the training batch, after the step of the logits.
        validation_loss: that of the validation batch, before it; with one level the training loss.
        entropy: of p_alpha, mean over the rows, in nats.
        skips: mean probability of a skip.
        excess: by how much the expected costs are above their bounds.
        logits_norm: norm of the gradient by the logits.
        weights_norm: norm of the gradient by the weights.
    """

    training_loss: jax.Array
    validation_loss: jax.Array
    entropy: jax.Array
    skips: jax.Array
    excess: jax.Array
    logits_norm: jax.Array
    weights_norm: jax.Array


@dataclasses.dataclass(frozen=True)
class DARTS(Supernet[SizeT], Generic[SizeT]):
    """Differentiable architecture search: in turn a step of the logits and one of the weights.

    By default an auxiliary skip keeps the search from collapsing to skips, as in DARTS-; see experiments/README.md for
    how that was chosen, and how the other remedies do.

    Attributes:
        warmup: share of the steps, the first ones, in which the weights are trained and the logits stay.
        order: what the logits follow: the validation loss at the weights as they are, at those a step of training
            further (second; finite-difference for less memory), or the training loss (single-level).
        xi: rate of the step of training that "second" and "finite-difference" look ahead; by default the
            learning rate of the weights at that step.
        mixture: what weighs the operations: probabilities, or samples of them, soft or hard as in GDAS.
        temperature: that of samples at the first step.
        final_temperature: that at the last step, to which it goes linearly.
        auxiliary_skip: weight of what an edge reads, added to what it gives, at the first step; it falls to 0 linearly,
            so that the advantage of a skip is not credited to its logit (DARTS-, Chu et al., ICLR 2021).
        stop_ratio: growth of the eigenvalue at which the search stops (DARTS-ES); 0 measures none and never stops.
        window: eigenvalues in a mean whose growth stops the search.

    Raises:
        ValueError: a setting is out of range, or does not go with another.

    References:
        Liu, Simonyan and Yang, "DARTS: Differentiable architecture search", ICLR 2019; Zela et al., "Understanding and
        robustifying differentiable architecture search", ICLR 2020; Chu et al., "DARTS-", ICLR 2021; Wang et al.,
        "Rethinking architecture selection in differentiable NAS", ICLR 2021.
    """

    shown: ClassVar[tuple[str, ...]] = ("training_loss", "validation_loss", "entropy", "skips")

    warmup: float = 0.0
    order: Order = "first"
    xi: float | None = None
    mixture: Mixture = "softmax"
    temperature: float = 1.0
    final_temperature: float = 1.0
    auxiliary_skip: float = 1.0
    stop_ratio: float = 0.0
    window: int = 5

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        for name, known in (("order", ORDERS), ("mixture", MIXTURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")
        if self.xi is not None and not self._looks_ahead:
            raise ValueError(f"xi: expected none with order {self.order!r}, which looks no step ahead, got {self.xi!r}")
        for name in ("xi", "auxiliary_skip", "stop_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
        for name in ("temperature", "final_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        check_positive(self, window=1)
        count = self.moments - self._warm_moments
        if self.stop_ratio and self.window > count:
            raise ValueError(
                f"window: expected at most {count}, as many as moments after the warm-up, got {self.window}"
            )

    @property
    def _looks_ahead(self) -> bool:
        return self.order in ("second", "finite-difference")

    @property
    def _warm_moments(self) -> int:
        """Number of moments at which the logits have not moved yet."""
        return sum(at <= self.warmup_steps for at in self.moments_at)

    @property
    def measured(self) -> tuple[str, ...]:
        """The eigenvalue, where the search stops by it."""
        return ("eigenvalue",) if self.stop_ratio else ()

    def step(
        self,
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        params: Any,
        key: jax.Array,
        execution: Execution = Execution(),
    ) -> tuple[SupernetState, DARTSInfo]:
        """Takes a step of the logits and then one of the weights (DARTS, Algorithm 1); see `Relaxed`."""
        draw = _Draw(self, space, source, state, key, execution)
        if self.order == "single-level":
            weights, pullback = jax.vjp(draw.weights, state.alphas)
            training_loss, (gradient, slope) = jax.value_and_grad(draw.training_loss, (0, 1))(state.params, weights)
            validation_loss = training_loss
        else:
            weights, pullback = jax.vjp(functools.partial(draw.weights, number=1), state.alphas)
            ahead = functools.partial(self._ahead, state) if self._looks_ahead else None
            validation_loss, slope = architecture_gradient(
                draw.training_loss, draw.validation_loss, state.params, weights, self._rate(state), ahead,
                exact=self.order == "second",
            )  # fmt: skip
        alphas, logits, logits_norm, excess = self.move(state, pullback(slope)[0])
        if self.order != "single-level":
            training_loss, gradient = jax.value_and_grad(draw.training_loss)(state.params, draw.weights(alphas))
        moved, optimizer, norm = self.descend(state, gradient)
        info = DARTSInfo(training_loss, validation_loss, *_described(space, alphas), excess, logits_norm, norm)
        return (
            state.replace(step=state.step + 1, alphas=alphas, logits=logits, params=moved, optimizer=optimizer), info
        )  # fmt: skip

    def warm_step(
        self,
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        params: Any,
        key: jax.Array,
        execution: Execution = Execution(),
    ) -> tuple[SupernetState, DARTSInfo]:
        """Takes a step of the weights alone; see `Relaxed`."""
        draw = _Draw(self, space, source, state, key, execution)
        weights = draw.weights(state.alphas)
        loss, gradient = jax.value_and_grad(draw.training_loss)(state.params, weights)
        validation_loss = draw.validation_loss(state.params, weights)
        moved, optimizer, norm = self.descend(state, gradient)
        zero = jnp.zeros_like(norm)
        info = DARTSInfo(loss, validation_loss, *_described(space, state.alphas), zero, zero, norm)
        return state.replace(step=state.step + 1, params=moved, optimizer=optimizer), info

    def _rate(self, state: SupernetState) -> jax.Array:
        """Returns xi."""
        return self.schedule(state.step) if self.xi is None else jnp.asarray(self.xi, jnp.result_type(float))

    def _ahead(self, state: SupernetState, gradient: Any, rate: jax.Array) -> Any:
        """Returns the weights a step of training further, w', by the same rule as the authors' code."""
        velocity = optax.tree.get(state.optimizer, "trace")
        rule = functools.partial(_looked_ahead, rate, self.momentum, self.weight_decay)
        ahead = in_groups(rule, state.params, velocity, gradient)
        return jax.tree.unflatten(jax.tree.structure(state.params), ahead)

    def _measured(
        self, space: SearchSpace, source: Halves, state: SupernetState, key: jax.Array, execution: Execution
    ) -> dict[str, float]:
        """Measures the largest eigenvalue of the Hessian in the logits, with their weight decay."""
        if not self.stop_ratio:
            return {}
        if state.stopped >= 0 or state.step <= self.warmup_steps:
            return {"eigenvalue": math.nan}
        batch = source.validation.batch(key, self.batch)
        flat, unflatten = jax.flatten_util.ravel_pytree(state.alphas)

        def product(vector: np.ndarray) -> np.ndarray:
            direction = unflatten(jnp.asarray(vector, flat.dtype))
            found = _hessian_product(execution, self, space, execution, source, state.params, state.alphas, direction,
                                     batch)  # fmt: skip
            return np.asarray(jax.flatten_util.ravel_pytree(found)[0], np.float64) + self.logits_decay * vector

        return {"eigenvalue": largest_eigenvalue(product, flat.size)}

    def _stopping(self, state: SupernetState, place: int) -> SupernetState:
        """Goes back to an earlier moment where the eigenvalue has grown (DARTS-ES), never into the warm-up."""
        if not self.stop_ratio or state.stopped >= 0:
            return state
        warm = self._warm_moments
        values = np.asarray(state.looks["eigenvalue"])[warm : place + 1]
        earliest = max(1, round(0.2 * (self.moments - warm)))
        moment = stop_at(values, window=self.window, ratio=self.stop_ratio, earliest=earliest)
        if moment is None:
            return state
        moment += warm
        alphas = {kind: kept[moment] for kind, kept in state.moments.items()}
        return state.replace(alphas=alphas, stopped=jnp.array(moment, jnp.int32))


class _Draw:
    """What one step draws: its batches, samples of the operations, and edges that are dropped."""

    def __init__(
        self,
        strategy: DARTS[Any],
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        key: jax.Array,
        execution: Execution,
    ):
        keys = jax.random.split(key, 5)
        self._strategy, self._space, self._state = strategy, space, state
        self._samples, self._drop = keys[2:4], keys[4]
        self._training = source.training.batch(keys[0], strategy.batch)
        self._validation = source.validation.batch(keys[1], strategy.batch)
        self._loss = strategy.mean_loss(space, source, execution)

    def weights(self, alphas: Alphas, number: int = 0) -> Weights:
        """Weighs the operations; samples differ by their number."""
        strategy, share = self._strategy, self._state.step / self._strategy.steps
        if strategy.mixture == "softmax":
            weights = {kind: jax.nn.softmax(logits) for kind, logits in alphas.items()}
        else:
            temperature = strategy.temperature + share * (strategy.final_temperature - strategy.temperature)
            relaxation: Relaxation = strategy.mixture
            weights = gumbel_softmax(self._samples[number], alphas, temperature, relaxation)
        if strategy.auxiliary_skip:
            beta, marked = strategy.auxiliary_skip * (1 - share), skips(self._space)
            weights = {kind: w + beta * marked[kind][None].astype(w.dtype) for kind, w in weights.items()}
        return weights

    def training_loss(self, params: Any, weights: Weights) -> jax.Array:
        return self._loss(params, weights, self._training, self._strategy.drop_rate(self._state.step), self._drop)

    def validation_loss(self, params: Any, weights: Weights) -> jax.Array:
        return self._loss(params, weights, self._validation)


def architecture_gradient(
    training_loss: Loss,
    validation_loss: Loss,
    params: Any,
    weights: Weights,
    rate: jax.Array,
    ahead: Callable[[Any, jax.Array], Any] | None,
    *,
    exact: bool,
) -> tuple[jax.Array, Weights]:
    """Differentiates the validation loss by the weights of the operations, which the trained weights depend on.

    Args:
        training_loss: of trained weights and weights of the operations.
        validation_loss: likewise.
        params: the trained weights, w.
        weights: the weights of the operations.
        rate: xi.
        ahead: maps the gradient of the training loss and xi to the weights w' a step further; None stays at w, which is
            first order.
        exact: whether the mixed derivative is a Jacobian-vector product, or a difference of two gradients.

    Returns:
        The validation loss at w', and the gradient, a tree like `weights`.

    References:
        DARTS, equations 6 to 8.
    """
    if ahead is None:
        return jax.value_and_grad(validation_loss, 1)(params, weights)
    further = ahead(jax.grad(training_loss)(params, weights), rate)
    value, (direction, slope) = jax.value_and_grad(validation_loss, (0, 1))(further, weights)
    if exact:
        mixed = directional(training_loss, params, weights, direction)
    else:
        step = 0.01 / jnp.maximum(norm_of(direction), 1e-30)

        def slope_at(distance: jax.Array) -> Weights:
            shifted = in_groups(functools.partial(_shifted, distance), params, direction)
            return jax.grad(training_loss, 1)(jax.tree.unflatten(jax.tree.structure(params), shifted), weights)

        up, down = slope_at(step), slope_at(-step)
        mixed = jax.tree.map(lambda a, b: (a - b) / (2 * step), up, down)
    return value, jax.tree.map(lambda s, m: s - rate * m, slope, mixed)


@jax.jit
def _shifted(step: jax.Array, params: list[jax.Array], direction: list[jax.Array]) -> list[jax.Array]:
    return [w + step * d for w, d in zip(params, direction, strict=True)]


@jax.jit
def _looked_ahead(
    rate: jax.Array,
    momentum: float,
    weight_decay: float,
    params: list[jax.Array],
    velocities: list[jax.Array],
    gradients: list[jax.Array],
) -> list[jax.Array]:
    return [
        w - (rate * (momentum * m + g + weight_decay * w)).astype(w.dtype)
        for w, m, g in zip(params, velocities, gradients, strict=True)
    ]


def _described(space: SearchSpace, alphas: Alphas) -> tuple[jax.Array, jax.Array]:
    return entropy(alphas), skip_share(space, alphas)


def _curvature(
    strategy: DARTS[Any],
    space: SearchSpace,
    execution: Execution,
    source: Halves,
    params: Any,
    alphas: Alphas,
    direction: Alphas,
    batch: Batch,
) -> Alphas:
    """Returns the product of the Hessian of the loss in the logits with a direction."""
    loss = strategy.mean_loss(space, source, execution)

    def slope(at: Alphas) -> Alphas:
        return jax.grad(lambda a: loss(params, jax.tree.map(jax.nn.softmax, a), batch))(at)

    return jax.jvp(slope, (alphas,), (direction,))[1]


_hessian_product = NetworkProgram(_curvature, 3)
