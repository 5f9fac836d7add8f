"""NASI: one closed-form step on the architecture logits, at initialisation (Algorithm 1)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

from nasi_jax.data import Source
from nasi_jax.nn import PARAMETERISATIONS, Parameterisation, Style, in_half_precision
from nasi_jax.programs import Execution, choose_execution
from nasi_jax.scores.costs import Costs
from nasi_jax.scores.linear import LinearCost
from nasi_jax.search.objectives import OBJECTIVES, Measurement, Objective, Sample, measure, measure_with_gradient
from nasi_jax.search.relaxation import gumbel_softmax, largest_probability, sample_discrete
from nasi_jax.search.relaxed import Begun, Limited, Relaxed, draw_params, within_limits
from nasi_jax.search.update import normalised_expected_gradient
from nasi_jax.spaces import (
    Alphas,
    DARTSSize,
    NASBench1Shot1Size,
    NASBench201Size,
    Network,
    SearchSpace,
    Weights,
)

Estimator = Literal["score-function", "soft", "hard"]
"""How the gradient of the expected objective, equation 14, is estimated.

``"soft"``: Gumbel-Softmax samples, equation 15, differentiated through; the paper's. ``"hard"``: the same made one-hot,
with the soft sample's gradient (straight-through). Both are biased, because a mixture of operations is not one of
the architectures. ``"score-function"``: discrete architectures A ~ p_alpha weighted with (R(A) - baseline) grad log
p_alpha(A) (Williams, 1992), which is unbiased and needs no second derivative. The baseline is the mean of R before.
"""

Optimizer = Literal["nasi", "adam", "sgd"]
"""How the logits move: by NASI's closed-form step, with every gradient taken where the logits stood when the round
began, or by an optimiser that takes each gradient at the current logits."""

Adaptive = Literal["no", "mean", "median"]
"""What constrains the trace: nu itself, or the mean or the median of nu and of the trace norms of all steps before.

The paper has an adaptive nu and leaves the rule to an appendix; ``"mean"`` is our reading. Traces of an untrained
space differ by orders of magnitude, and a mean follows the largest ones. With mu = 1 and the median half of the samples
count whatever the scale of traces is, so that no number has to be found for a space.
"""


class NASIState(struct.PyTreeNode):
    """State of a search. `mu` and `nu` are arrays, so that `vmap` runs many settings in one program.

    Attributes:
        step: number of steps done, int32.
        alphas: logits so far.
        origin: logits at which the round's gradients are taken.
        optimizer: state of the optax transformation.
        mu: weight of the penalty.
        nu: constraint, or its initial value.
        traces: trace norms of the steps done, (steps,), and NaN for those to come.
        objective_sum: sum of the penalised objective over the steps of this round.
        limits: costs that are limited, each divided by its bound.
    """

    step: jax.Array
    alphas: Alphas
    origin: Alphas
    optimizer: optax.OptState
    mu: jax.Array
    nu: jax.Array
    traces: jax.Array
    objective_sum: jax.Array
    limits: tuple[LinearCost, ...] = ()


class NASIInfo(NamedTuple):
    """Figures of one step, scalars.

    Attributes:
        objective: the objective before the penalty.
        trace: trace norm estimate.
        penalty: mu * max(0, trace - nu).
        nu: constraint in force.
        gradient_norm: norm of G_t over the whole tree of logits.
        excess: by how much the expected costs are above their bounds, as a sum of fractions of the bounds.
        largest_probability: p_alpha of the most likely architecture, by the logits after the step.
    """

    objective: jax.Array
    trace: jax.Array
    penalty: jax.Array
    nu: jax.Array
    gradient_norm: jax.Array
    excess: jax.Array
    largest_probability: jax.Array


SizeT = TypeVar("SizeT")


@dataclasses.dataclass(frozen=True)
class NASI(Relaxed, Generic[SizeT]):
    """Moves the logits of a one-shot network at initialisation, by its neural tangent kernel.

    The defaults are those that served best on NAS-Bench-201; see experiments/README.md.

    Attributes:
        steps: T, the number of search steps, of all rounds together.
        rounds: closed-form steps, one after the other. One is Algorithm 1: the expected objective is linearised at
            alpha_0 = 0 and the result is equation 18. With more, each round linearises it anew at the logits that
            the round before it reached and takes the full step of equation 17, whose length is the radius, so that
            operations are judged in the company of those that the other edges are likely to keep. Not for adam and sgd.
        batch: b, inputs in the batch of a step.
        micro_batches: in how many parts a batch goes through the network, one after the other, so that a large one fits
            in memory; for the objective "one-batch". Gradients are those of the whole batch, but batch normalisation
            takes its statistics over each part, which is another network.
        objective: what is maximised: the participation ratio of the NTK, its trace by the gradient of one batch, or by
            the gradients of samples.
        estimator: how its gradient is estimated: from discrete samples and their values, or through soft or hard
            Gumbel-Softmax samples.
        mu: weight of the penalty on a trace above nu, equation 13; 0 is no penalty.
        nu: constraint on the trace norm, or its initial value where it is adaptive.
        adaptive: whether nu itself constrains the trace, or the mean or the median of nu and of all trace norms seen
            before. The paper leaves its rule to an appendix; the mean is our reading of it.
        temperature: tau of the Gumbel-Softmax.
        radius: xi, the radius of the ball of the closed-form step.
        optimizer: how the logits move: by NASI's closed-form step, or by adam or sgd.
        learning_rate: of adam and sgd.
        parameterisation: how weights are stored, which decides how layers share the trace.
        mixed_precision: whether the network computes in bfloat16, for accelerators; parameters, statistics of batch
            normalisation, losses and the logits of the architecture stay in JAX's default float type. It changes which
            cells are selected (experiments/README.md).
        size: size of the one-shot network, a size of the space; by default that of its searches.

    Raises:
        ValueError: a setting is out of range.

    References:
        Shu, Cai, Dai, Ooi and Low, "NASI: Label- and data-agnostic neural architecture search at initialization",
        ICLR 2022.
    """

    shown: ClassVar[tuple[str, ...]] = ("objective", "trace", "penalty", "nu", "largest_probability")

    steps: int = 800
    rounds: int = 4
    batch: int = 32
    micro_batches: int = 1
    objective: Objective = "participation-ratio"
    estimator: Estimator = "score-function"
    mu: float = 0.0
    nu: float = 100.0
    adaptive: Adaptive = "no"
    temperature: float = 1.0
    radius: float = 3.0
    optimizer: Optimizer = "nasi"
    learning_rate: float = 0.1
    parameterisation: Parameterisation = "ntk"
    mixed_precision: bool = False
    size: SizeT | None = None

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name in ("steps", "rounds", "batch", "micro_batches"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if self.micro_batches > 1 and (self.batch % self.micro_batches or self.batch // self.micro_batches < 2):
            raise ValueError(
                f"micro_batches: expected parts of equal size, at least 2, of a batch of {self.batch}, got "
                f"{self.micro_batches}"
            )
        if self.micro_batches > 1 and self.objective != "one-batch":
            raise ValueError(f"micro_batches: expected 1 with objective {self.objective!r}, got {self.micro_batches}")
        for name in ("mu", "nu"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
        for name in ("temperature", "radius", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        choices = {
            "objective": OBJECTIVES,
            "estimator": get_args(Estimator),
            "optimizer": get_args(Optimizer),
            "adaptive": get_args(Adaptive),
            "parameterisation": PARAMETERISATIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")

    def init(
        self,
        space: SearchSpace,
        mu: jax.typing.ArrayLike | None = None,
        nu: jax.typing.ArrayLike | None = None,
        limits: Limited = (),
    ) -> NASIState:
        """Returns the state before the first step.

        Args:
            space: the search space.
            mu: replaces `self.mu`; may be traced, to `vmap` over settings.
            nu: replaces `self.nu`; likewise.
            limits: costs and their bounds. While the expected costs are above them, the gradient is turned towards
                cheaper architectures, at full excess by as much as it points to better ones.

        Returns:
            The state.
        """
        alphas = space.alphas()
        dtype = jnp.result_type(float)
        return NASIState(
            step=jnp.zeros((), jnp.int32),
            alphas=alphas,
            origin=alphas,
            optimizer=_transformation(self).init(alphas),
            mu=jnp.asarray(self.mu if mu is None else mu, dtype),
            nu=jnp.asarray(self.nu if nu is None else nu, dtype),
            traces=jnp.full((self.steps,), jnp.nan, dtype),
            objective_sum=jnp.zeros((), dtype),
            limits=tuple(cost.relative_to(bound) for cost, bound in limits),
        )

    def begin(
        self, space: SearchSpace, source: Source, key: jax.Array, limits: Limited = (), costs: Costs | None = None
    ) -> Begun:
        """Returns the state before the first step, and theta_0; see `Relaxed`.

        Args:
            space: the search space.
            source: gives shapes of inputs and the number of outputs.
            key: typed random key.
            limits: see `init`.
            costs: of no use here.

        Returns:
            The state and the parameters.
        """
        return Begun(self.init(space, limits=limits), self.init_params(space, source, key))

    def init_params(self, space: SearchSpace, source: Source, key: jax.Array) -> Any:
        """Draws theta_0 of the one-shot network.

        Args:
            space: the search space.
            source: gives shapes of inputs and the number of outputs.
            key: typed random key.

        Returns:
            Parameters in JAX's default float type.
        """
        return draw_params(self.one_shot(space, source), space, source, self.batch, key)

    def one_shot(self, space: SearchSpace, source: Source, execution: Execution = Execution()) -> Network:
        """Returns the one-shot network of a search.

        Args:
            space: the search space.
            source: gives the number of outputs.
            execution: how the program runs, see `execution`.

        Returns:
            A module called as `module(x, weights)`.
        """
        size = space.search_size if self.size is None else self.size
        style = Style(affine=False, parameterisation=self.parameterisation)
        return space.network(None, size, source.outputs, style, execution)

    def execution(self, space: SearchSpace, source: Source) -> Execution:
        """Chooses how the steps of a search run on the device at hand; see `nasi_jax.programs.choose_execution`.

        Args:
            space: the search space.
            source: where batches come from.

        Returns:
            The execution.

        Raises:
            ValueError: the inputs do not fit the network.
        """
        params = jax.eval_shape(lambda key: self.init_params(space, source, key), jax.random.key(0))
        return choose_execution(
            "search",
            self.one_shot(space, source).capabilities,
            one_hot=self.estimator == "score-function",
            arrays=len(jax.tree.leaves(params)),
        )

    def step(
        self,
        space: SearchSpace,
        source: Source,
        state: NASIState,
        params: Any,
        key: jax.Array,
        execution: Execution | None = None,
    ) -> tuple[NASIState, NASIInfo]:
        """Takes one search step; pure, for `jit`, `vmap` and `scan`.

        In a single round every gradient is taken at alpha_0 = 0, so that under a `vmap` over the state alone (many
        settings of mu and nu) the network is still evaluated once.

        Args:
            space: the search space; static.
            source: where the batch comes from.
            state: state before the step.
            params: theta_0, as `init_params` draws it.
            key: typed random key of this step.
            execution: how the network runs; by default as `execution` says for one step by itself.

        Returns:
            The state after the step, and the step's figures.

        References:
            NASI, Algorithm 1 and equations 13 to 18.
        """
        batch_key, sample_key, probe_key = jax.random.split(key, 3)
        sample = Sample(source.batch(batch_key, self.batch), source.loss, probe_key)
        if execution is None:
            execution = choose_execution("search", one_hot=self.estimator == "score-function")
        module = self.one_shot(space, source, execution)

        def network(p: Any, weights: Weights, x: Any) -> jax.Array:
            if self.mixed_precision:
                p, weights, x = in_half_precision((p, weights, x))
            outputs: Any = module.apply({"params": p}, x, weights)
            return outputs.astype(jnp.result_type(float))

        point = _point(space, self, state)
        nu = _constraint(self, state)
        count = state.step % _round_length(self)
        with jax.default_matmul_precision("highest"):
            if self.estimator == "score-function":
                weights, score = sample_discrete(sample_key, point)
                measured = measure(self.objective, network, params, weights, sample, self.micro_batches)
                penalty = _penalty(measured, state.mu, nu)
                advantage = jnp.where(
                    count > 0, measured.value - penalty - state.objective_sum / jnp.maximum(count, 1), 0
                )
                gradient = jax.tree.map(lambda s: advantage * s, score)
            else:
                relaxation = self.estimator
                weights, pullback = jax.vjp(
                    lambda a: gumbel_softmax(sample_key, a, self.temperature, relaxation), point
                )
                measured, slopes = measure_with_gradient(
                    self.objective, network, params, weights, sample, self.micro_batches
                )
                penalty = _penalty(measured, state.mu, nu)
                active = jnp.where(measured.trace > nu, state.mu, 0)
                (gradient,) = pullback(jax.tree.map(lambda v, t: v - active * t, slopes.value, slopes.trace))
        gradient, excess = within_limits(gradient, point, state.limits)
        negative = jax.tree.map(jnp.negative, gradient)
        updates, optimizer = _transformation(self).update(negative, state.optimizer, state.alphas)
        state = state.replace(
            step=state.step + 1,
            alphas=optax.apply_updates(state.alphas, updates),
            optimizer=optimizer,
            traces=state.traces.at[state.step].set(measured.trace),
            objective_sum=state.objective_sum + measured.value - penalty,
        )
        if _round_length(self) < self.steps:
            ends = (state.step % _round_length(self) == 0) | (state.step == self.steps)
            state = jax.tree.map(lambda new, old: jnp.where(ends, new, old), _end_round(self, state), state)
        return state, NASIInfo(
            measured.value, measured.trace, penalty, nu, optax.tree.norm(gradient), excess,
            largest_probability(state.alphas),
        )  # fmt: skip


_NASI_FIX = NASI(
    steps=100,
    rounds=1,
    radius=1.0,
    batch=64,
    objective="one-batch",
    estimator="soft",
    mu=2.0,
    nu=100.0,
    parameterisation="standard",
)

PRESETS = {
    "default": NASI(),
    "nasi-fix": _NASI_FIX,
    "nasi-ada": dataclasses.replace(_NASI_FIX, nu=500.0, adaptive="mean"),
    "nasi-median": dataclasses.replace(_NASI_FIX, batch=32, mu=1.0, nu=0.0, adaptive="median"),
}
"""Named settings: the default, the paper's NASI-FIX and NASI-ADA, which `preset` fits to a space, and its method with a
constraint that fits itself to a space."""

_PAPER: dict[str, dict[str, Any]] = {
    # how many cells it has in NAS-Bench-201 the paper does not say
    "nasbench201": {"size": NASBench201Size(cells=1)},
    "darts": {"size": DARTSSize(cells=8)},
    "darts-none": {"size": DARTSSize(cells=8)},
    # one epoch of CIFAR-10's 50,000 images in batches of 64
    **{
        f"nasbench1shot1-s{i}": {"steps": 781, "mu": 1.0, "nu": 1000.0, "size": NASBench1Shot1Size()} for i in (1, 2, 3)
    },
}
"""What the paper says of its spaces beside `PRESETS`, with 16 channels each."""


def preset(name: str, space: SearchSpace) -> NASI:
    """Returns named settings for a space.

    Args:
        name: one of `PRESETS`.
        space: the search space. The paper's one-shot network has 8 cells in the DARTS space; how many it has in
            NAS-Bench-201 the paper does not say, and one a stage is taken. For NAS-Bench-1Shot1 it gives one epoch,
            mu = 1 and an adaptive nu from 1000. In other spaces, and for other presets, the network has the space's
            `search_size`.

    Returns:
        The settings, with the size of the network.

    Raises:
        ValueError: there are none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {name!r}")
    settings = {"size": space.search_size} | (_PAPER.get(space.name, {}) if name in ("nasi-fix", "nasi-ada") else {})
    return dataclasses.replace(PRESETS[name], **settings)


def _point(space: SearchSpace, settings: NASI, state: NASIState) -> Alphas:
    """Returns the logits at which the step takes its gradient."""
    if settings.optimizer != "nasi":
        return state.alphas
    return state.origin if settings.rounds > 1 else space.alphas()


def _round_length(settings: NASI) -> int:
    if settings.optimizer != "nasi" or settings.rounds == 1:
        return settings.steps
    # the first step of a round only sets the score function's baseline
    return max(2, -(-settings.steps // settings.rounds))


def _end_round(settings: NASI, state: NASIState) -> NASIState:
    """Takes the round's step at its full length, equation 17, and begins the next round there."""
    change = optax.tree.sub(state.alphas, state.origin)
    norm = optax.tree.norm(change)
    scale = jnp.where(norm > 0, settings.radius / jnp.where(norm > 0, norm, 1), 0)
    alphas = optax.tree.add_scale(state.origin, scale, change)
    return state.replace(
        alphas=alphas,
        origin=alphas,
        optimizer=_transformation(settings).init(alphas),
        objective_sum=jnp.zeros_like(state.objective_sum),
    )


def _constraint(settings: NASI, state: NASIState) -> jax.Array:
    """Returns nu of the next step."""
    if settings.adaptive == "no":
        return state.nu
    seen = jnp.append(state.traces, state.nu)
    return jnp.nanmean(seen) if settings.adaptive == "mean" else jnp.nanmedian(seen)


def _penalty(measured: Measurement, mu: jax.Array, nu: jax.Array) -> jax.Array:
    # no penalty at mu = 0, also where the trace overflows
    return jnp.where(mu > 0, mu * jnp.maximum(0, measured.trace - nu), 0)


def _transformation(settings: NASI) -> optax.GradientTransformation:
    if settings.optimizer == "nasi":
        return normalised_expected_gradient(_round_length(settings), settings.radius)
    return (optax.adam if settings.optimizer == "adam" else optax.sgd)(settings.learning_rate)
