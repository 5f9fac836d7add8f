"""What searches share that train the weights of a one-shot network: its settings, its state, its two optimisers."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from nasi_jax.data import Batch, Halves, Source, augmented, halves
from nasi_jax.nn import Style
from nasi_jax.programs import Execution, add, choose_execution
from nasi_jax.programs.compiler import in_groups
from nasi_jax.scores.costs import Costs
from nasi_jax.scores.linear import LinearCost
from nasi_jax.search import perturbation
from nasi_jax.search.relaxed import Begun, Limited, Relaxed, draw_params, within_limits
from nasi_jax.spaces import IMPOSSIBLE, Alphas, Network, SearchSpace, Weights
from nasi_jax.spaces.base import check_positive

SizeT = TypeVar("SizeT")
MeanLoss = Callable[..., jax.Array]
"""``loss(params, weights, batch, rate, key)``: mean loss of a batch, with edges dropped at a rate or none at None."""


class SupernetState(struct.PyTreeNode):
    """State of a search that trains weights; all that decides how it goes on, beside its key.

    Attributes:
        step: number of steps done, int32.
        alphas: logits so far.
        logits: state of the optax transformation of the logits.
        params: weights of the one-shot network, theta.
        optimizer: state of the optax transformation of the weights.
        limits: costs that are limited, each divided by its bound.
        resources: costs that are part of the loss.
        moments: the logits at each of the moments, (moments, ...), zeros before.
        looks: what is measured at each of them alone, (moments,) under each name, NaN before.
        stopped: index of the moment whose logits the search has gone back to and stays at, or -1, int32.
    """

    step: jax.Array
    alphas: Alphas
    logits: optax.OptState
    params: Any
    optimizer: optax.OptState
    limits: tuple[LinearCost, ...]
    resources: tuple[LinearCost, ...]
    moments: Alphas
    looks: dict[str, jax.Array]
    stopped: jax.Array


@dataclasses.dataclass(frozen=True)
class Supernet(Relaxed, Generic[SizeT]):
    """Settings of every search that trains the weights of a one-shot network.

    Batch normalisation takes the statistics of each batch, in training and when architectures are judged, and has no
    learnable scale and shift.

    Attributes:
        steps: number of steps, those of the selection by perturbation included.
        batch: examples in each batch of a step.
        validation: share of the examples that weights are not trained on.
        warmup: share of the steps, the first ones, in which the weights are trained and the logits stay (Elsken et al.,
            2021).
        learning_rate: of the weights at the first step; it falls as half a cosine.
        final_learning_rate: that at the last step.
        momentum: factor of the velocity of the weights.
        nesterov: whether momentum is Nesterov's.
        weight_decay: of the weights, added to the gradient; R-DARTS (Zela et al., 2020) tries up to 27 times 3e-4.
        gradient_clip: largest norm of the gradient of all weights, before weight decay; 0 is no limit.
        logits_learning_rate: of Adam, which moves the logits; published searches have 3e-4 and far more steps.
        logits_decay: weight decay of the logits, added to their gradient.
        logits_clip: largest norm of their gradient, before weight decay; 0 is no limit.
        drop_path: probability that an edge is dropped for an example while weights are trained.
        crop: pixels of black around each image of a step, from which one of the same size is cut at random; 0 is none.
        flip: whether half of the images of a step are mirrored.
        cutout: side of the square that is set to the mean in each image of a step (DeVries and Taylor, 2017), in pixels
            of the data's images; 0 is none.
        moments: number of times, equally far apart, at which logits are kept for the report.
        perturbation: share of the steps, the last ones, in which rows are decided one after the other by what their
            loss costs (DARTS-PT, Wang et al., 2021); 0 takes the largest logits.
        perturbation_batches: validation batches by which that is judged.
        recalibration: training batches over which statistics of batch normalisation are averaged before architectures
            are judged; 0 judges by the statistics of the validation batch.
        size: size of the one-shot network, a size of the space; by default that of its searches.

    Raises:
        ValueError: a setting is out of range.
    """

    steps: int = 1000
    batch: int = 32
    validation: float = 0.5
    warmup: float = 0.0
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    logits_learning_rate: float = 0.01
    logits_decay: float = 1e-3
    logits_clip: float = 0.0
    drop_path: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    moments: int = 25
    perturbation: float = 0.0
    perturbation_batches: int = 4
    recalibration: int = 0
    size: SizeT | None = None

    start: ClassVar[tuple[float, float]] = (0.0, 1e-3)
    """Mean and deviation of the logits at the beginning."""
    validates_changed: ClassVar[bool] = True
    """Whether the images that architectures are judged by are changed as those that weights are trained on."""

    def __post_init__(self) -> None:
        """Checks every setting."""
        check_positive(self, steps=1, batch=1, moments=1, perturbation_batches=1, recalibration=0, crop=0, cutout=0)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation: expected a share above 0 and below 1, got {self.validation!r}")
        for name in ("warmup", "momentum", "drop_path", "perturbation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number from 0 to below 1, got {getattr(self, name)!r}")
        for name in ("learning_rate", "logits_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        for name in ("final_learning_rate", "weight_decay", "gradient_clip", "logits_decay", "logits_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        if self.moments > self._searching:
            raise ValueError(f"moments: expected at most {self._searching}, as many as steps, got {self.moments}")
        if self.warmup_steps >= self._searching:
            raise ValueError(
                f"warmup: expected fewer than the {self._searching} steps of the search, got {self.warmup_steps}"
            )

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of what is measured at each moment."""
        return ()

    @property
    def _searching(self) -> int:
        """Number of steps before the selection by perturbation."""
        return self.steps - round(self.perturbation * self.steps)

    @property
    def warmup_steps(self) -> int:
        """The number of steps, the first ones, in which the logits stay."""
        return round(self.warmup * self.steps)

    def prepared(self, source: Source) -> Halves:
        """Splits the source, whose images change from step to step; see `nasi_jax.data.halves` and `augmented`."""
        if isinstance(source, Halves):
            return source
        parts = halves(source, self.validation, self.batch)

        def changed(part: Source) -> Source:
            return augmented(part, crop=self.crop, flip=self.flip, cutout=self.cutout)

        return Halves(
            changed(parts.training), changed(parts.validation) if self.validates_changed else parts.validation
        )

    def one_shot(self, space: SearchSpace, source: Source, execution: Execution = Execution()) -> Network:
        """Returns the one-shot network, called as `module(x, weights)`."""
        size = space.search_size if self.size is None else self.size
        return space.network(None, size, source.outputs, Style(affine=False), execution)

    def execution(self, space: SearchSpace, source: Source) -> Execution:
        """Chooses how steps run on the device at hand; see `Relaxed`."""
        module = self.one_shot(space, source)
        if self.drop_path and "drop_path" not in module.capabilities:
            raise ValueError(f"drop_path: expected 0, networks of {space.name} have none, got {self.drop_path}")
        params = jax.eval_shape(lambda key: draw_params(module, space, source, self.batch, key), jax.random.key(0))
        return choose_execution("search", module.capabilities, arrays=len(jax.tree.leaves(params)))

    def begin(
        self, space: SearchSpace, source: Source, key: jax.Array, limits: Limited = (), costs: Costs | None = None
    ) -> Begun:
        """Draws weights and logits; see `Relaxed`."""
        params_key, logits_key = jax.random.split(key)
        params = draw_params(self.one_shot(space, source), space, source, self.batch, params_key)
        mean, deviation = self.start
        alphas = space.alphas()
        keys = dict(zip(sorted(alphas), jax.random.split(logits_key, len(alphas)), strict=True))
        alphas = {
            kind: leaf + mean + deviation * jax.random.normal(keys[kind], leaf.shape, leaf.dtype)
            for kind, leaf in alphas.items()
        }
        dtype = jnp.result_type(float)
        state = SupernetState(
            step=jnp.zeros((), jnp.int32),
            alphas=alphas,
            logits=self._logits_transformation().init(alphas),
            params=params,
            optimizer=self.transformation().init(params),
            limits=tuple(cost.relative_to(bound) for cost, bound in limits),
            resources=self._resources(space, source, costs),
            moments=jax.tree.map(lambda leaf: jnp.zeros((self.moments, *leaf.shape), leaf.dtype), alphas),
            looks={name: jnp.full(self.moments, jnp.nan, dtype) for name in self.measured},
            stopped=jnp.array(-1, jnp.int32),
        )
        return Begun(state, ())

    def _resources(self, space: SearchSpace, source: Source, costs: Costs | None) -> tuple[LinearCost, ...]:
        """Returns the costs that are part of the loss."""
        return ()

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optimiser of the weights, after `descend` has clipped their gradient."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(self.schedule, self.momentum, self.nesterov),
        )

    def schedule(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Returns the learning rate of the weights at a step."""
        share = self.final_learning_rate / self.learning_rate
        return jnp.asarray(optax.cosine_decay_schedule(self.learning_rate, self.steps, share)(step))

    def _logits_transformation(self) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(0.5, 0.999), optax.scale(-self.logits_learning_rate))

    def mean_loss(self, space: SearchSpace, source: Source, execution: Execution) -> MeanLoss:
        """Returns the mean loss of a batch as a function; see `MeanLoss`."""
        module = self.one_shot(space, source, execution)

        def loss(
            params: Any,
            weights: Weights,
            batch: Batch,
            rate: jax.typing.ArrayLike | None = None,
            key: jax.Array | None = None,
        ) -> jax.Array:
            options = {} if rate is None else {"drop_path": rate, "rngs": {"drop_path": key}}
            outputs: Any = module.apply({"params": params}, batch.x, weights, **options)
            return jnp.mean(source.loss(outputs, batch.y))

        return loss

    def drop_rate(self, step: jax.Array) -> jax.Array | None:
        """Returns the probability that an edge is dropped at a step, which rises linearly; None where none are."""
        return self.drop_path * step / self.steps if self.drop_path else None

    def descend(self, state: SupernetState, gradient: Any) -> tuple[Any, optax.OptState, jax.Array]:
        """Takes a step of the weights down a gradient.

        Args:
            state: state before the step.
            gradient: of the training loss by the weights.

        Returns:
            Weights, state of their optimiser, and the norm of the gradient.
        """
        velocities, count = (optax.tree.get(state.optimizer, name) for name in ("trace", "count"))
        norm = norm_of(gradient)
        moved = in_groups(functools.partial(_descend, self, norm, count), gradient, velocities, state.params)
        structure = jax.tree.structure(gradient)
        params, velocities = (jax.tree.unflatten(structure, part) for part in zip(*moved, strict=True))
        optimizer = optax.tree.set(state.optimizer, trace=velocities, count=optax.safe_increment(count))
        return params, optimizer, norm

    def move(self, state: SupernetState, gradient: Alphas) -> tuple[Alphas, optax.OptState, jax.Array, jax.Array]:
        """Takes a step of the logits down a gradient, within limits.

        Args:
            state: state before the step.
            gradient: of what is minimised by the logits.

        Returns:
            Logits, state of their optimiser, norm of the gradient, and excess of the expected costs.
        """
        return _move(self, gradient, state.logits, state.alphas, state.limits, state.stopped)

    def pauses(self, space: SearchSpace) -> tuple[int, ...]:
        """Returns the steps after which logits are kept, or a row is decided."""
        decided = {*perturbation.schedule(space, self._searching, self.steps), self.steps} if self.perturbation else ()
        return tuple(sorted({*self.moments_at, *decided}))

    @property
    def moments_at(self) -> tuple[int, ...]:
        """The number of steps done at each of the moments."""
        return tuple(max(1, round(self._searching * (i + 1) / self.moments)) for i in range(self.moments))

    def look(
        self, space: SearchSpace, source: Halves, state: SupernetState, key: jax.Array, execution: Execution
    ) -> SupernetState:
        """Keeps and measures what a moment asks for, stops, and decides rows; see `Relaxed`."""
        done, at = int(state.step), self.moments_at
        if done in at:
            place = at.index(done)
            moments = {kind: kept.at[place].set(state.alphas[kind]) for kind, kept in state.moments.items()}
            found = self._measured(space, source, state, key, execution)
            looks = {name: values.at[place].set(found[name]) for name, values in state.looks.items()}
            state = self._stopping(state.replace(moments=moments, looks=looks), place)
        if self.perturbation and done >= self._searching:
            losses = perturbation.Losses(self, space, source, execution)
            state = perturbation.decide(losses, state, self._searching, jax.random.fold_in(key, 1))
        return state

    def _measured(
        self, space: SearchSpace, source: Halves, state: SupernetState, key: jax.Array, execution: Execution
    ) -> dict[str, float]:
        """Measures what `measured` names."""
        return {}

    def _stopping(self, state: SupernetState, place: int) -> SupernetState:
        """Goes back to an earlier moment, where a rule says so, at the moment `place`."""
        return state

    def ended(self, state: SupernetState) -> bool:
        """Whether the search has stopped early, and nothing is left to decide."""
        return not self.perturbation and int(state.stopped) >= 0


def entropy(alphas: Alphas) -> jax.Array:
    """Returns the entropy of p_alpha, its mean over all rows, in nats."""
    rows = [-jnp.sum(jax.nn.softmax(leaf) * jax.nn.log_softmax(leaf), axis=-1) for leaf in alphas.values()]
    return jnp.mean(jnp.concatenate(rows))


def skips(space: SearchSpace) -> dict[str, np.ndarray]:
    """Returns for each kind of choice which of its choices pass on what they read, (choices,) of 0 and 1."""
    return {
        kind: np.array([float(name.startswith(("skip", "identity"))) for name in names])
        for kind, names in space.choices.items()
    }


def skip_share(space: SearchSpace, alphas: Alphas) -> jax.Array:
    """Returns the mean probability of a skip, over the rows that have one; 0 where there is none."""
    rows = [jax.nn.softmax(alphas[kind]) @ marked for kind, marked in skips(space).items() if any(marked)]
    return jnp.mean(jnp.concatenate(rows)) if rows else jnp.zeros(())


def norm_of(tree: Any) -> jax.Array:
    """Returns the norm of all leaves together."""
    return jnp.sqrt(add(in_groups(_squared_sums, tree)))


@jax.jit
def _squared_sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.sum(leaf * leaf) for leaf in leaves]


@functools.partial(jax.jit, static_argnums=0)
def _descend(
    strategy: Supernet[Any],
    norm: jax.Array,
    count: jax.Array,
    gradients: list[jax.Array],
    velocities: list[jax.Array],
    params: list[jax.Array],
) -> list[tuple[jax.Array, jax.Array]]:
    """Returns some weights and their velocities after a step, from the norm of the whole gradient."""
    clip, rule = strategy.gradient_clip, strategy.transformation()
    if clip:
        gradients = [jnp.where(norm < clip, leaf, leaf / norm * clip) for leaf in gradients]
    optimizer = optax.tree.set(rule.init(params), trace=velocities, count=count)
    updates, optimizer = rule.update(gradients, optimizer, params)
    moved: Any = optax.apply_updates(params, updates)
    return list(zip(moved, optax.tree.get(optimizer, "trace"), strict=True))


@functools.partial(jax.jit, static_argnums=0)
def _move(
    strategy: Supernet[Any],
    gradient: Alphas,
    optimizer: optax.OptState,
    alphas: Alphas,
    limits: tuple[LinearCost, ...],
    stopped: jax.Array,
) -> tuple[Alphas, optax.OptState, jax.Array, jax.Array]:
    direction, excess = within_limits(jax.tree.map(jnp.negative, gradient), alphas, limits)
    norm = optax.tree.norm(direction)
    if strategy.logits_clip:
        scale = jnp.minimum(1, strategy.logits_clip / jnp.maximum(norm, 1e-30))
        direction = jax.tree.map(lambda leaf: scale * leaf, direction)
    # a choice that is left out, by the space or by a decision, stays so
    possible = jax.tree.map(lambda leaf: leaf > IMPOSSIBLE / 2, alphas)
    decayed = jax.tree.map(
        lambda towards, leaf, there: jnp.where(there, strategy.logits_decay * leaf - towards, 0),
        direction, alphas, possible,
    )  # fmt: skip
    updates, optimizer = strategy._logits_transformation().update(decayed, optimizer, alphas)
    moved = jax.tree.map(
        lambda leaf, update, there: jnp.where(there & (stopped < 0), leaf + update, leaf), alphas, updates, possible
    )
    return moved, optimizer, norm, excess
