"""How well a network fits synthetic signals in a short training (GenNAS)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.nn import RUNNING_STATISTICS, BatchNorm, initial_statistics
from nasi_jax.ntk._network import automatic, batch_length, check_count
from nasi_jax.programs import is_traced, run_by_programs
from nasi_jax.proxies.signals import STAGES, Task, resized

STAGE_WEIGHTS = (0.25, 0.5, 1.0)
"""Weights of the stages' squared errors in the loss."""
_LEARNING_RATE = 0.1
_MOMENTUM = 0.9
_WEIGHT_DECAY = 4e-5
_LARGEST_SIDE = 8
_LEAST_SIDE = 2

StagesFn = Callable[[Any, Any, Any, bool], tuple[Sequence[jax.Array], Any]]
"""A network of three stages: `stages_fn(params, statistics, x, training)` returns the feature maps at the end of each,
(batch, height, width, channels), and the running statistics after that batch. Where `training` is false, it normalises
by the running statistics that it has, and what it returns of them is not used. Without any they are an empty tuple."""


class Regression(NamedTuple):
    """What is fitted.

    Attributes:
        targets: for each stage (batch, side, side, channels).
        weights: for each stage the weight of each channel's mean squared error in the loss, (channels,).
    """

    targets: tuple[jax.Array, ...]
    weights: tuple[jax.Array, ...]

    @classmethod
    def of(cls, targets: Sequence[jax.Array]) -> Regression:
        """Weighs the channels of a stage alike, and stages by `STAGE_WEIGHTS`."""
        weights = (
            jnp.full(target.shape[-1], weight / target.shape[-1], target.dtype)
            for target, weight in zip(targets, STAGE_WEIGHTS, strict=True)
        )
        return cls(tuple(targets), tuple(weights))

    def loss(self, outputs: Sequence[jax.Array]) -> jax.Array:
        """Returns the weighted sum of the stages' mean squared errors, a scalar."""
        terms = (
            jnp.mean((output - target) ** 2, axis=(0, 1, 2)) @ weight
            for output, target, weight in zip(outputs, self.targets, self.weights, strict=True)
        )
        return sum(terms, jnp.zeros(()))


class Heads(nn.Module):
    """Brings the feature maps of each stage to the shape of its target: nearest pixels, normalisation, 1x1 convolution.

    Attributes:
        side: height and width of the targets.
        channels: their channels, for each stage.
    """

    side: int
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps (batch, height, width, ...) of each stage to (batch, side, side, channels)."""
        outputs = []
        for i, (x, channels) in enumerate(zip(maps, self.channels, strict=True)):
            y = BatchNorm(name=f"norm_{i}")(resized(x, self.side))
            drawn = functools.partial(_uniform, x.shape[-1] ** -0.5)
            kernel = self.param(f"kernel_{i}", drawn, (x.shape[-1], channels), x.dtype)
            bias = self.param(f"bias_{i}", drawn, (channels,), x.dtype)
            outputs.append(y @ kernel + bias.reshape(1, 1, 1, -1))
        return outputs


def _uniform(bound: float, key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def gennas(
    stages_fn: StagesFn, params: Any, statistics: Any, x: jax.Array, task: Task, key: jax.Array, *, steps: int = 100
) -> jax.Array:
    """Trains a network for some steps to fit a task, without labels, and returns minus its last loss.

    Pure, for `jit` and `vmap`, where the steps are a loop in the program. Outside of `jit` the host loops, and what
    `stages_fn` has under `jax.jit` is compiled by itself. Under `jit` at least one of the parameters, the statistics,
    the images and the key is to be an argument of the program: where all are constants, the steps are unrolled, which
    takes much memory to compile.

    Args:
        stages_fn: the network.
        params: its parameters, a pytree; the authors draw them as PyTorch does.
        statistics: its running statistics before the first step.
        x: images, (batch, height, width, colours), normalised. The authors take 16 training images of 32x32. Noise
            serves as well, and ranks somewhat worse; see experiments/README.md.
        task: what is fitted, such as one of `TASKS`.
        key: typed random key of the targets, the heads and the noise; architectures are compared at the same one.
        steps: number of steps.

    Returns:
        A scalar, larger for better fits; NaN where the training diverges.

    Raises:
        ValueError: there are fewer than 2 images or no step, the network has not three stages, or these leave too few
            pixels.
        TypeError: `steps` is no integer.

    References:
        Li, Hao, Zhang and Chen, "Generic neural architecture search via regression", NeurIPS 2021.
    """
    side = side_of(stages_fn, params, statistics, x)
    target_key, fit_key = jax.random.split(key)
    regression = Regression.of(_targets(task, target_key, x, side))
    loss = losses(stages_fn, params, statistics, x, regression, task.noisy, fit_key, steps=steps)[-1]
    return jnp.where(jnp.isfinite(loss), -loss, jnp.nan)


def losses(
    stages_fn: StagesFn,
    params: Any,
    statistics: Any,
    x: jax.Array,
    regression: Regression,
    noisy: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    *,
    steps: int = 100,
    every: int | None = None,
) -> jax.Array:
    """Trains a network to fit targets, by stochastic gradient descent with momentum, and returns its losses.

    Args:
        stages_fn: see `gennas`.
        params: see `gennas`.
        statistics: see `gennas`.
        x: see `gennas`.
        regression: what is fitted.
        noisy: adds noise to images, `noisy(key, x)`.
        key: typed random key of the heads and the noise.
        steps: number of steps.
        every: how many steps there are from one evaluation to the next; by default one evaluation, at the end.

    Returns:
        The loss on images with fresh noise, by running statistics, after each `every` steps, (steps / every,).

    Raises:
        ValueError: see `gennas`; or `every` does not divide the steps.
        TypeError: `steps` is no integer.
    """
    steps = check_count("steps", steps)
    every = check_count("every", steps if every is None else every)
    if steps % every:
        raise ValueError(f"every: expected a divisor of {steps} steps, got {every}")
    params, statistics, x, regression = automatic(params, statistics, x, regression)
    side = side_of(stages_fn, params, statistics, x)
    if regression.targets[0].shape[1] != side:
        raise ValueError(f"regression: expected targets of {side}x{side}, got shape {regression.targets[0].shape}")
    heads = Heads(side, tuple(target.shape[-1] for target in regression.targets))
    head_key, noise_key, fresh_key = jax.random.split(key, 3)
    maps = jax.eval_shape(lambda: stages_fn(params, statistics, x, True)[0])
    drawn = heads.lazy_init(head_key, maps)["params"]
    tracked = jax.eval_shape(lambda maps: _outputs(heads, True, drawn, {}, maps)[1], maps)

    def objective(trained: Any, statistics: Any, x: jax.Array, training: bool) -> tuple[jax.Array, Any]:
        maps, after = stages_fn(trained[0], statistics[0], x, training)
        loss, of_heads = _loss(heads, training, trained[1], statistics[1], list(maps), regression)
        return loss, (after, of_heads)

    def step(i: Any, state: Any) -> Any:
        trained, momenta, statistics = state
        noised = noisy(jax.random.fold_in(noise_key, i), x)
        slopes, statistics = jax.grad(objective, has_aux=True)(trained, statistics, noised, True)
        leaves = (jax.tree.leaves(tree) for tree in (trained, momenta, slopes))
        moved = [_descend(*of_leaf) for of_leaf in zip(*leaves, strict=True)]
        structure = jax.tree.structure(trained)
        return *(jax.tree.unflatten(structure, part) for part in zip(*moved, strict=True)), statistics

    def evaluate(i: Any, state: Any) -> jax.Array:
        return objective(state[0], state[2], noisy(jax.random.fold_in(fresh_key, i), x), False)[0]

    trained = (params, drawn)
    state = (trained, jax.tree.map(jnp.zeros_like, trained), (statistics, initial_statistics(tracked)))
    loop = _in_program if is_traced((params, statistics, x, regression, key)) else _on_host
    return loop(step, evaluate, state, steps // every, every)


def side_of(stages_fn: StagesFn, params: Any, statistics: Any, x: jax.Array) -> int:
    """Returns the height and width of the targets for a network: 8, or less where its last stage has less.

    Args:
        stages_fn: see `gennas`.
        params: see `gennas`.
        statistics: see `gennas`.
        x: see `gennas`.

    Returns:
        The side, in pixels.

    Raises:
        ValueError: see `gennas`.
    """
    length = batch_length("x", x)
    if length < 2:
        raise ValueError(f"x: expected at least 2 images, which batch normalisation takes apart, got {length}")
    maps, _ = jax.eval_shape(lambda: stages_fn(params, statistics, x, True))
    shapes = [getattr(leaf, "shape", ()) for leaf in maps]
    if len(shapes) != STAGES or any(len(shape) != 4 or shape[0] != length for shape in shapes):
        raise ValueError(
            f"stages_fn: expected feature maps ({length}, height, width, channels) of {STAGES} stages, got {shapes}"
        )
    side = min(_LARGEST_SIDE, *shapes[-1][1:3])
    if side < _LEAST_SIDE:
        raise ValueError(
            f"x: expected images of which the last stage leaves at least {_LEAST_SIDE}x{_LEAST_SIDE} pixels, "
            f"got {'x'.join(map(str, shapes[-1][1:3]))}"
        )
    if any(min(shape[1:3]) < side for shape in shapes):
        raise ValueError(f"stages_fn: expected stages of at least {side}x{side}, as the last one, got {shapes}")
    return side


_targets = jax.jit(Task.targets, static_argnums=(0, 3))


def _outputs(heads: Heads, training: bool, params: Any, statistics: Any, maps: Any) -> tuple[list[jax.Array], Any]:
    left = [RUNNING_STATISTICS] if training else []
    outputs, updated = heads.apply({"params": params, RUNNING_STATISTICS: statistics}, maps, mutable=left)
    return outputs, updated.get(RUNNING_STATISTICS, statistics)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loss(
    heads: Heads, training: bool, params: Any, statistics: Any, maps: list[jax.Array], regression: Regression
) -> tuple[jax.Array, Any]:
    outputs, statistics = _outputs(heads, training, params, statistics, maps)
    return regression.loss(outputs), statistics


@jax.jit
def _descend(value: jax.Array, momentum: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes a step, as PyTorch's SGD does; weights decay, and biases and scales, which are vectors, do not."""
    decayed = slope + _WEIGHT_DECAY * value if value.ndim > 1 else slope
    momentum = _MOMENTUM * momentum + decayed
    return value - _LEARNING_RATE * momentum, momentum


def _in_program(step: Any, evaluate: Any, state: Any, evaluations: int, every: int) -> jax.Array:
    def part(state: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        state, _ = jax.lax.scan(lambda s, i: (step(i, s), None), state, number * every + jnp.arange(every))
        return state, evaluate(number, state)

    return jax.lax.scan(part, state, jnp.arange(evaluations))[1]


def _on_host(step: Any, evaluate: Any, state: Any, evaluations: int, every: int) -> jax.Array:
    step, evaluate, found = run_by_programs(step), run_by_programs(evaluate), []
    for number in range(evaluations):
        for i in range(every):
            state = step(jnp.asarray(number * every + i), state)
        found.append(evaluate(jnp.asarray(number), state))
    return jnp.stack(found)
