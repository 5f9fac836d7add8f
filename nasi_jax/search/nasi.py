"""NASI: one closed-form step on the architecture logits, at initialisation (Algorithm 1)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from nasi_jax.data import Source
from nasi_jax.nn import PARAMETERISATIONS, Parameterisation
from nasi_jax.search.objectives import OBJECTIVES, Batch, Measurement, Objective, measure, measure_with_gradient
from nasi_jax.search.update import normalised_expected_gradient
from nasi_jax.spaces import Alphas, SearchSpace, Weights

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


@dataclasses.dataclass(frozen=True)
class NASIConfig:
    """Settings of a search. The defaults are those that served best on NAS-Bench-201; see experiments/README.md.

    Attributes:
        steps: T, the number of search steps, of all rounds together.
        rounds: closed-form steps, one after the other. One is Algorithm 1: the expected objective is linearised at
            alpha_0 = 0 and the result is equation 18. With more, each round linearises it anew at the logits that
            the round before it reached and takes the full step of equation 17, of length `radius`, so that operations
            are judged in the company of those that the other edges are likely to keep. Not for adam and sgd.
        batch: b, inputs in the batch of a step.
        micro_batches: in how many parts a batch goes through the network, one after the other, so that a large one fits
            in memory; for the objective "one-batch". Gradients are those of the whole batch, but batch normalisation
            takes its statistics over each part, which is another network.
        objective: what is maximised; see `nasi_jax.search.Objective`.
        estimator: how its gradient is estimated; see `nasi_jax.search.Estimator`.
        mu: weight of the penalty on a trace above nu, equation 13; 0 is no penalty.
        nu: constraint on the trace norm, or its initial value when adaptive.
        adaptive: whether nu at step t is the mean of the initial value and all trace norms seen before step t. The
            paper leaves the rule to an appendix; this reading of it is ours.
        temperature: tau of the Gumbel-Softmax.
        radius: xi, the radius of the ball of the closed-form step.
        optimizer: how the logits move; see `nasi_jax.search.Optimizer`.
        learning_rate: of adam and sgd.
        parameterisation: how weights are stored, which decides how layers share the trace.
        mixed_precision: whether the network computes in bfloat16, for accelerators; parameters, statistics of batch
            normalisation, losses and the logits of the architecture stay in JAX's default float type. It changes which
            cells are selected (experiments/README.md).
        channels: channels of the one-shot network's first stage.
        cells: size of the one-shot network in cells, as the space counts them.

    Raises:
        ValueError: a setting is out of range.
    """

    steps: int = 800
    rounds: int = 4
    batch: int = 32
    micro_batches: int = 1
    objective: Objective = "participation-ratio"
    estimator: Estimator = "score-function"
    mu: float = 0.0
    nu: float = 100.0
    adaptive: bool = False
    temperature: float = 1.0
    radius: float = 3.0
    optimizer: Optimizer = "nasi"
    learning_rate: float = 0.1
    parameterisation: Parameterisation = "ntk"
    mixed_precision: bool = False
    channels: int = 8
    cells: int = 5

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name in ("steps", "rounds", "batch", "micro_batches", "channels", "cells"):
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
            if not value >= 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
        for name in ("temperature", "radius", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        choices = {
            "objective": OBJECTIVES,
            "estimator": get_args(Estimator),
            "optimizer": get_args(Optimizer),
            "parameterisation": PARAMETERISATIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")


_NASI_FIX = NASIConfig(
    steps=100,
    rounds=1,
    radius=1.0,
    batch=64,
    objective="one-batch",
    estimator="soft",
    mu=2.0,
    nu=100.0,
    parameterisation="standard",
    channels=16,
    cells=1,
)

PRESETS = {
    "default": NASIConfig(),
    "nasi-fix": _NASI_FIX,
    "nasi-ada": dataclasses.replace(_NASI_FIX, nu=500.0, adaptive=True),
}
"""Named settings: the default, and the paper's NASI-FIX and NASI-ADA; `preset` fits them to a space."""

_PAPER: dict[str, dict[str, Any]] = {
    "darts": {"cells": 8},
    "darts-none": {"cells": 8},
    # one epoch of CIFAR-10's 50,000 images in batches of 64
    **{f"nasbench1shot1-s{i}": {"steps": 781, "mu": 1.0, "nu": 1000.0, "cells": 3} for i in (1, 2, 3)},
}
"""Where the paper's settings for a space differ from those of `PRESETS`."""


def preset(name: str, space: SearchSpace) -> NASIConfig:
    """Returns named settings for a space.

    Args:
        name: one of `PRESETS`.
        space: the search space. The paper's one-shot network has 8 cells in the DARTS space; how many it has in
            NAS-Bench-201 the paper does not say, and one a stage is taken. For NAS-Bench-1Shot1 it gives one epoch,
            mu = 1 and an adaptive nu from 1000.

    Returns:
        The settings.

    Raises:
        ValueError: there are none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {name!r}")
    return dataclasses.replace(PRESETS[name], **({} if name == "default" else _PAPER.get(space.name, {})))


class NASIState(struct.PyTreeNode):
    """State of a search. `mu` and `nu` are arrays, so that `vmap` runs many settings in one program.

    Attributes:
        step: number of steps done, int32.
        alphas: logits so far.
        origin: logits at which the round's gradients are taken.
        optimizer: state of the optax transformation.
        mu: weight of the penalty.
        nu: constraint, or its initial value.
        trace_sum: sum of the trace norms of all steps done.
        objective_sum: sum of the penalised objective over the steps of this round.
    """

    step: jax.Array
    alphas: Alphas
    origin: Alphas
    optimizer: optax.OptState
    mu: jax.Array
    nu: jax.Array
    trace_sum: jax.Array
    objective_sum: jax.Array


class NASIInfo(NamedTuple):
    """Figures of one step, scalars.

    Attributes:
        objective: the objective before the penalty.
        trace: trace norm estimate.
        penalty: mu * max(0, trace - nu).
        nu: constraint in force.
        gradient_norm: norm of G_t over the whole tree of logits.
    """

    objective: jax.Array
    trace: jax.Array
    penalty: jax.Array
    nu: jax.Array
    gradient_norm: jax.Array


def init(
    space: SearchSpace,
    config: NASIConfig,
    mu: jax.typing.ArrayLike | None = None,
    nu: jax.typing.ArrayLike | None = None,
) -> NASIState:
    """Returns the state before the first step.

    Args:
        space: the search space.
        config: settings.
        mu: replaces `config.mu`; may be traced, to `vmap` over settings.
        nu: replaces `config.nu`; likewise.

    Returns:
        The state.
    """
    alphas = space.alphas()
    dtype = jnp.result_type(float)
    return NASIState(
        step=jnp.zeros((), jnp.int32),
        alphas=alphas,
        origin=alphas,
        optimizer=_transformation(config).init(alphas),
        mu=jnp.asarray(config.mu if mu is None else mu, dtype),
        nu=jnp.asarray(config.nu if nu is None else nu, dtype),
        trace_sum=jnp.zeros((), dtype),
        objective_sum=jnp.zeros((), dtype),
    )


def init_params(space: SearchSpace, config: NASIConfig, source: Source, key: jax.Array) -> Any:
    """Draws theta_0 of the one-shot network.

    Args:
        space: the search space.
        config: settings.
        source: gives image shape and number of classes.
        key: typed random key.

    Returns:
        Parameters in JAX's default float type.
    """
    # hundreds of draws by the default generator take longer
    key = jax.random.key(jax.random.bits(key), impl="unsafe_rbg")
    x = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.result_type(float))
    return one_shot(space, config, source).lazy_init(key, x, space.alphas())["params"]


def one_shot(space: SearchSpace, config: NASIConfig, source: Source, blocks: bool = False) -> nn.Module:
    """Returns the one-shot network of a search.

    Args:
        space: the search space.
        config: settings.
        source: gives the number of classes.
        blocks: see `nasi_jax.nn.Style`.

    Returns:
        A module called as `module(x, weights)`.
    """
    options = {"blocks": True} if blocks else {}  # not every space need have it
    # one architecture at a time, of which a CPU computes no operation in vain
    discrete = "branches" if jax.default_backend() == "cpu" else "one-hot"
    return space.one_shot(
        channels=config.channels,
        cells=config.cells,
        classes=source.classes,
        parameterisation=config.parameterisation,
        discrete=discrete if config.estimator == "score-function" else "no",
        **options,
    )


def step(
    space: SearchSpace,
    config: NASIConfig,
    source: Source,
    state: NASIState,
    params: Any,
    key: jax.Array,
    blocks: bool = False,
) -> tuple[NASIState, NASIInfo]:
    """Takes one search step; pure, for `jit`, `vmap` and `scan`.

    In a single round every gradient is taken at alpha_0 = 0, so that under a `vmap` over the state alone (many
    settings of mu and nu) the network is still evaluated once.

    Args:
        space: the search space; static.
        config: settings; static.
        source: where the batch comes from.
        state: state before the step.
        params: theta_0, as `init_params` draws it.
        key: typed random key of this step.
        blocks: whether the step is taken outside of `jit`, on a CPU; see `nasi_jax.nn.Style`.

    Returns:
        The state after the step, and the step's figures.

    References:
        NASI, Algorithm 1 and equations 13 to 18.
    """
    batch_key, sample_key, probe_key = jax.random.split(key, 3)
    batch = Batch(*source.batch(batch_key, config.batch), probe_key)
    module = one_shot(space, config, source, blocks)

    def network(p: Any, weights: Weights, x: jax.Array) -> jax.Array:
        if config.mixed_precision:
            p, weights, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (p, weights, x))
        logits: Any = module.apply({"params": p}, x, weights)
        return logits.astype(batch.x.dtype)

    point = _point(space, config, state)
    nu = (state.nu + state.trace_sum) / (1 + state.step) if config.adaptive else state.nu
    count = state.step % _round_length(config)
    with jax.default_matmul_precision("highest"):
        if config.estimator == "score-function":
            weights, score = _sample_discrete(sample_key, point)
            measured = measure(config.objective, network, params, weights, batch, config.micro_batches)
            penalty = _penalty(measured, state.mu, nu)
            advantage = jnp.where(count > 0, measured.value - penalty - state.objective_sum / jnp.maximum(count, 1), 0)
            gradient = jax.tree.map(lambda s: advantage * s, score)
        else:
            weights, pullback = jax.vjp(lambda a: _relax(sample_key, a, config), point)
            measured, slopes = measure_with_gradient(
                config.objective, network, params, weights, batch, config.micro_batches
            )
            penalty = _penalty(measured, state.mu, nu)
            active = jnp.where(measured.trace > nu, state.mu, 0)
            (gradient,) = pullback(jax.tree.map(lambda v, t: v - active * t, slopes.value, slopes.trace))
    negative = jax.tree.map(jnp.negative, gradient)
    updates, optimizer = _transformation(config).update(negative, state.optimizer, state.alphas)
    state = state.replace(
        step=state.step + 1,
        alphas=optax.apply_updates(state.alphas, updates),
        optimizer=optimizer,
        trace_sum=state.trace_sum + measured.trace,
        objective_sum=state.objective_sum + measured.value - penalty,
    )
    if _round_length(config) < config.steps:
        ends = (state.step % _round_length(config) == 0) | (state.step == config.steps)
        state = jax.tree.map(lambda new, old: jnp.where(ends, new, old), _end_round(config, state), state)
    return state, NASIInfo(measured.value, measured.trace, penalty, nu, optax.tree.norm(gradient))


def _point(space: SearchSpace, config: NASIConfig, state: NASIState) -> Alphas:
    """Returns the logits at which the step takes its gradient."""
    if config.optimizer != "nasi":
        return state.alphas
    return state.origin if config.rounds > 1 else space.alphas()


def _round_length(config: NASIConfig) -> int:
    if config.optimizer != "nasi" or config.rounds == 1:
        return config.steps
    # the first step of a round only sets the score function's baseline
    return max(2, -(-config.steps // config.rounds))


def _end_round(config: NASIConfig, state: NASIState) -> NASIState:
    """Takes the round's step at its full length, equation 17, and begins the next round there."""
    change = optax.tree.sub(state.alphas, state.origin)
    norm = optax.tree.norm(change)
    scale = jnp.where(norm > 0, config.radius / jnp.where(norm > 0, norm, 1), 0)
    alphas = optax.tree.add_scale(state.origin, scale, change)
    return state.replace(
        alphas=alphas,
        origin=alphas,
        optimizer=_transformation(config).init(alphas),
        objective_sum=jnp.zeros_like(state.objective_sum),
    )


def _penalty(measured: Measurement, mu: jax.Array, nu: jax.Array) -> jax.Array:
    # no penalty at mu = 0, also where the trace overflows
    return jnp.where(mu > 0, mu * jnp.maximum(0, measured.trace - nu), 0)


def _transformation(config: NASIConfig) -> optax.GradientTransformation:
    if config.optimizer == "nasi":
        return normalised_expected_gradient(_round_length(config), config.radius)
    return (optax.adam if config.optimizer == "adam" else optax.sgd)(config.learning_rate)


def _keys_like(key: jax.Array, tree: Alphas) -> dict[str, jax.Array]:
    return dict(zip(sorted(tree), jax.random.split(key, len(tree)), strict=True))


def _relax(key: jax.Array, alphas: Alphas, config: NASIConfig) -> Weights:
    keys = _keys_like(key, alphas)

    def relax(name: str, logits: jax.Array) -> jax.Array:
        noise = jax.random.gumbel(keys[name], logits.shape, logits.dtype)
        soft = jax.nn.softmax((logits + noise) / config.temperature)
        if config.estimator == "soft":
            return soft
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), logits.shape[-1], dtype=logits.dtype)
        return soft + jax.lax.stop_gradient(hard - soft)

    return {name: relax(name, logits) for name, logits in alphas.items()}


def _sample_discrete(key: jax.Array, alphas: Alphas) -> tuple[Weights, Alphas]:
    """Draws one-hot weights from p_alpha, with the gradient of their log-probability."""
    keys = _keys_like(key, alphas)
    weights = {
        name: jax.nn.one_hot(jax.random.categorical(keys[name], logits), logits.shape[-1], dtype=logits.dtype)
        for name, logits in alphas.items()
    }
    return weights, {name: weights[name] - jax.nn.softmax(logits) for name, logits in alphas.items()}
