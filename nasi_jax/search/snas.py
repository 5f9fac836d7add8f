"""SNAS: weights and logits by one loss of concrete samples (Xie, Zheng, Liu and Lin, ICLR 2019)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Generic, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import Halves, Source
from nasi_jax.programs import Execution
from nasi_jax.scores.costs import COSTS, Costs
from nasi_jax.scores.linear import LinearCost
from nasi_jax.search.perturbation import Losses
from nasi_jax.search.relaxation import concrete_score, gumbel_softmax, perturbed
from nasi_jax.search.supernet import SizeT, Supernet, SupernetState, entropy, skip_share
from nasi_jax.spaces import Alphas, SearchSpace, Weights

CostGradient = Literal["reparametrised", "expectation", "policy-gradient"]
"""How the cost is differentiated: through the sample; as the expectation under p_alpha, exact where the cost is linear;
or as the cost of the sample times the derivative of its log-density, row by row."""

COST_GRADIENTS: tuple[str, ...] = get_args(CostGradient)


class SNASInfo(NamedTuple):
    """Figures of one step, scalars.

    Attributes:
        training_loss: mean loss of the batch, without the cost.
        cost: the expected cost, see `SNAS`; 0 without a resource.
        entropy: of p_alpha, mean over the rows, in nats.
        skips: mean probability of a skip.
        temperature: lambda.
        excess: by how much the expected costs are above their bounds.
        logits_norm: norm of the gradient by the logits.
        weights_norm: norm of the gradient by the weights.
    """

    training_loss: jax.Array
    cost: jax.Array
    entropy: jax.Array
    skips: jax.Array
    temperature: jax.Array
    excess: jax.Array
    logits_norm: jax.Array
    weights_norm: jax.Array


@dataclasses.dataclass(frozen=True)
class SNAS(Supernet[SizeT], Generic[SizeT]):
    """Stochastic neural architecture search: one sample, one backward pass, one step of weights and logits.

    The loss is that of the training batch plus `eta` times the cost of the sample. Without the logarithm the cost is
    relative to the expected one of equally likely choices; with it, the sum over rows of the logarithm of what the
    row's choice costs, where less than 1 counts as 1. Of several resources the mean counts.

    Attributes:
        validation: share of the examples that is left out of the training, and by which the search is watched.
        logits_clip: largest norm of the gradient of the logits, before weight decay; 0 is no limit.
        temperature: lambda at the first step.
        final_temperature: that at the last step, to which it goes linearly.
        resource: costs that are part of the loss: params, flops, memory, latency_ms.
        eta: weight of the cost.
        cost_gradient: how the cost is differentiated: through the sample (reparametrised), exactly in expectation, or
            by a policy gradient.
        log_cost: whether the logarithm of each row's cost counts.

    Raises:
        ValueError: a setting is out of range.

    References:
        Xie, Zheng, Liu and Lin, "SNAS: Stochastic neural architecture search", ICLR 2019.
    """

    shown: ClassVar[tuple[str, ...]] = ("training_loss", "cost", "entropy", "skips")
    start: ClassVar[tuple[float, float]] = (1.0, 0.01)
    validates_changed: ClassVar[bool] = False

    validation: float = 0.1
    logits_clip: float = 10.0
    temperature: float = 1.0
    final_temperature: float = 0.03
    resource: tuple[str, ...] = ()
    eta: float = 0.0
    cost_gradient: CostGradient = "reparametrised"
    log_cost: bool = False

    def __post_init__(self) -> None:
        """Checks every setting."""
        super().__post_init__()
        for name in ("temperature", "final_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        unknown = [name for name in self.resource if name not in COSTS]
        if unknown:
            raise ValueError(f"resource: expected some of {COSTS}, got {unknown[0]!r}")
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta: expected a number of at least 0, got {self.eta!r}")
        if bool(self.eta) != bool(self.resource):
            expected = "a positive number with a resource" if self.resource else "0 without a resource"
            raise ValueError(f"eta: expected {expected}, got {self.eta!r}")
        if self.cost_gradient not in COST_GRADIENTS:
            raise ValueError(f"cost_gradient: expected one of {COST_GRADIENTS}, got {self.cost_gradient!r}")

    @property
    def measured(self) -> tuple[str, ...]:
        """The loss of what is left out of the training."""
        return ("validation_loss",)

    def drop_rate(self, step: jax.Array) -> jax.Array | None:
        """Returns the probability that an edge is dropped, which is the same at all steps; None where none are."""
        return jnp.asarray(self.drop_path, jnp.result_type(float)) if self.drop_path else None

    def _resources(self, space: SearchSpace, source: Source, costs: Costs | None) -> tuple[LinearCost, ...]:
        if not self.resource:
            return ()
        if costs is None:
            costs = Costs(space, source.outputs, latency="added" if "latency_ms" in self.resource else None)
        found = costs.linear(self.resource)
        for name, cost in found.items():
            if all(np.ptp(extra, axis=-1).max() == 0 for extra in cost.extra.values()):
                raise ValueError(
                    f"resource: expected a cost in which architectures of {space.name} differ, got {name!r}, which is "
                    f"{cost.base:.6g} for all of them"
                )
        if self.log_cost:
            return tuple(cost.relative_to(1) for cost in found.values())
        return tuple(cost.relative_to(float(cost.expected(space.alphas()))) for cost in found.values())

    def step(
        self,
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        params: Any,
        key: jax.Array,
        execution: Execution = Execution(),
    ) -> tuple[SupernetState, SNASInfo]:
        """Takes one step of weights and logits together; see `Relaxed`."""
        return self._step(space, source, state, key, execution, warm=False)

    def warm_step(
        self,
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        params: Any,
        key: jax.Array,
        execution: Execution = Execution(),
    ) -> tuple[SupernetState, SNASInfo]:
        """Takes one step of the weights alone; see `Relaxed`."""
        return self._step(space, source, state, key, execution, warm=True)

    def _step(
        self,
        space: SearchSpace,
        source: Halves,
        state: SupernetState,
        key: jax.Array,
        execution: Execution,
        *,
        warm: bool,
    ) -> tuple[SupernetState, SNASInfo]:
        batch_key, sample_key, drop_key = jax.random.split(key, 3)
        batch = source.training.batch(batch_key, self.batch)
        loss = self.mean_loss(space, source, execution)
        rate, temperature = self.drop_rate(state.step), self._temperature(state.step)
        weights, pullback = jax.vjp(lambda a: gumbel_softmax(sample_key, a, temperature, "soft"), state.alphas)
        value, (gradient, slope) = jax.value_and_grad(loss, (0, 1))(state.params, weights, batch, rate, drop_key)
        moved, optimizer, norm = self.descend(state, gradient)
        state = state.replace(step=state.step + 1, params=moved, optimizer=optimizer)
        excess = logits_norm = jnp.zeros_like(norm)
        if not warm:
            (towards,) = pullback(slope)
            if state.resources:
                noisy = perturbed(sample_key, state.alphas)
                of_cost = cost_gradient(
                    self.cost_gradient, state.resources, state.alphas, noisy, temperature, log=self.log_cost
                )
                towards = jax.tree.map(lambda a, b: a + self.eta * b, towards, of_cost)
            alphas, logits, logits_norm, excess = self.move(state, towards)
            state = state.replace(alphas=alphas, logits=logits)
        expected = {kind: jax.nn.softmax(leaf) for kind, leaf in state.alphas.items()}
        cost = jnp.asarray(total_cost(state.resources, expected, log=self.log_cost), value.dtype)
        described = (entropy(state.alphas), skip_share(space, state.alphas))
        return state, SNASInfo(value, cost, *described, temperature, excess, logits_norm, norm)

    def _temperature(self, step: jax.Array) -> jax.Array:
        share = step / max(1, self.steps - 1)
        return self.temperature + share * (self.final_temperature - self.temperature)

    def _measured(
        self, space: SearchSpace, source: Halves, state: SupernetState, key: jax.Array, execution: Execution
    ) -> dict[str, float]:
        """Measures the loss of what was left out of the training, at the probabilities of the operations."""
        weights = {kind: jax.nn.softmax(leaf) for kind, leaf in state.alphas.items()}
        return {"validation_loss": Losses(self, space, source, execution)(state.params, weights, key)}


def row_costs(cost: LinearCost, weights: Weights, *, log: bool = False) -> dict[str, jax.Array]:
    """Returns what every row adds to a cost at some weights of its choices.

    Args:
        cost: a cost that is a sum over rows.
        weights: weights of the choices, one-hot, probabilities or a sample.
        log: whether the logarithm counts, of what a row adds above its cheapest choice, where less than 1 counts as 1.

    Returns:
        For each kind of choice (rows,).
    """
    found = {}
    for kind, extra in cost.extra.items():
        if not log:
            found[kind] = jnp.sum(weights[kind] * extra, axis=-1)
            continue
        above = extra - jnp.min(extra, axis=-1, keepdims=True)
        found[kind] = jnp.log(jnp.maximum(1, jnp.sum(weights[kind] * above, axis=-1)))
    return found


def total_cost(resources: tuple[LinearCost, ...], weights: Weights, *, log: bool = False) -> jax.Array | float:
    """Returns the mean cost of several resources; without the logarithm with what every architecture has.

    Args:
        resources: the costs.
        weights: see `row_costs`.
        log: see `row_costs`.

    Returns:
        The cost, a scalar; 0 without resources.
    """
    if not resources:
        return 0.0
    totals = [
        sum(jnp.sum(rows) for rows in row_costs(cost, weights, log=log).values()) + (0 if log else cost.base)
        for cost in resources
    ]
    return sum(totals[1:], totals[0]) / len(totals)


def cost_gradient(
    form: CostGradient,
    resources: tuple[LinearCost, ...],
    alphas: Alphas,
    noisy: Alphas,
    temperature: jax.typing.ArrayLike,
    *,
    log: bool = False,
) -> Alphas:
    """Differentiates the cost of a concrete sample, or its expectation, by the logits.

    Args:
        form: see `CostGradient`.
        resources: the costs.
        alphas: logits.
        noisy: those with the noise of the sample, see `perturbed`.
        temperature: lambda.
        log: see `row_costs`.

    Returns:
        The gradient, a tree like `alphas`.
    """
    if form == "expectation":
        return jax.grad(
            lambda a: total_cost(resources, {kind: jax.nn.softmax(leaf) for kind, leaf in a.items()}, log=log)
        )(alphas)
    noise = jax.tree.map(jnp.subtract, noisy, alphas)

    def sample(a: Alphas) -> Weights:
        return jax.tree.map(lambda leaf, n: jax.nn.softmax((leaf + n) / temperature), a, noise)

    if form == "reparametrised":
        return jax.grad(lambda a: total_cost(resources, sample(a), log=log))(alphas)
    weights, score = sample(alphas), concrete_score(alphas, noisy, temperature)
    gradient = jax.tree.map(jnp.zeros_like, alphas)
    for cost in resources:
        for kind, rows in row_costs(cost, weights, log=log).items():
            gradient[kind] = gradient[kind] + rows[:, None] * score[kind] / len(resources)
    return gradient
