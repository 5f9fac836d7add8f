"""Training as pure functions, and the loops around them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nasi_jax.data import Examples, GraphData, Images, Loss, Stream, TokenData, augment, cross_entropy, inputs
from nasi_jax.nn import RUNNING_STATISTICS, as_bert, as_pytorch, in_half_precision, initial_statistics
from nasi_jax.programs import Population, choose_execution, member, stack
from nasi_jax.spaces import Weights
from nasi_jax.train.recipes import Recipe

InMemory = Images | GraphData | TokenData
_LONGEST_CHUNK = 50
_LONGEST_TURN = 10
_INITIALISATIONS = {"pytorch": as_pytorch, "bert": as_bert}


class TrainState(struct.PyTreeNode):
    """State of a training; all that decides how it goes on, beside its key.

    Attributes:
        step: number of steps done, int32.
        params: parameters.
        statistics: running statistics of batch normalisation.
        optimizer: state of the optax transformation.
        average: moving average of the parameters, or None.
        loss: sum of the losses over the steps of this epoch.
        correct: training images of this epoch that were classified rightly, int32.
    """

    step: jax.Array
    params: Any
    statistics: Any
    optimizer: optax.OptState
    average: Any
    loss: jax.Array
    correct: jax.Array


class NonFiniteLossError(FloatingPointError):
    """The loss of a training stopped being finite.

    Attributes:
        member: index of the training among those run together.
        step: first step at which it was seen.
    """

    def __init__(self, member: int, step: int, loss: float):
        self.member, self.step = member, step
        super().__init__(f"the loss stopped being finite by step {step} of training {member}: {loss}")


def steps_per_epoch(recipe: Recipe, images: Examples) -> int:
    """Returns the number of whole batches in the examples.

    Raises:
        ValueError: the batch is larger than the data, or the recipe asks for what the data do not go with: crops of
            random size where the images are in memory or none where they are not, changes of images where there are
            none, of hues where there are not three colours, smooth labels where the loss is not the cross-entropy.
        TypeError: the recipe asks for jitter, and the images are not bytes.
    """
    if bool(recipe.resized_crop) != isinstance(images, Stream):
        expected = "0 with images in memory" if recipe.resized_crop else "a positive share with a stream"
        raise ValueError(f"resized_crop: expected {expected}, got {recipe.resized_crop}")
    if recipe.label_smoothing and images.loss is not cross_entropy:
        raise ValueError(f"label_smoothing: expected 0 with another loss, got {recipe.label_smoothing}")
    leaves = jax.tree.leaves(images.stored(1).x)
    for name in ("crop", "flip", "jitter", "cutout"):
        if getattr(recipe, name) and not (len(leaves) == 1 and leaves[0].ndim == 4):
            raise ValueError(f"{name}: expected 0 with inputs that are no images, got {getattr(recipe, name)}")
    if recipe.jitter and leaves[0].shape[-1] != 3:
        raise ValueError(
            f"jitter: expected 0 with images of {leaves[0].shape[-1]} colours instead of red, green and blue, "
            f"got {recipe.jitter}"
        )
    if recipe.jitter and leaves[0].dtype != jnp.uint8:
        raise TypeError(f"jitter: expected images of bytes, got {leaves[0].dtype}")
    images.check_batch(recipe.batch)
    return len(images) // recipe.batch


def schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    """Returns the learning rate over the steps, for epochs of `steps` steps."""
    rate, warmup = recipe.learning_rate, round(recipe.warmup * steps)
    if recipe.decay:
        falling = optax.exponential_decay(rate, steps, recipe.decay, staircase=True)
        return (
            optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), falling], [warmup]) if warmup else falling
        )
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else rate, rate, warmup, recipe.epochs * steps)


def transformation(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Returns the optimiser of a recipe for epochs of `steps` steps."""
    return optax.chain(
        optax.clip_by_global_norm(recipe.gradient_clip) if recipe.gradient_clip else optax.identity(),
        optax.add_decayed_weights(recipe.weight_decay),
        optax.adam(schedule(recipe, steps))
        if recipe.optimizer == "adam"
        else optax.sgd(schedule(recipe, steps), recipe.momentum, recipe.nesterov),
    )


def init(
    network: nn.Module, recipe: Recipe, images: Examples, key: jax.Array, weights: Weights | None = None
) -> TrainState:
    """Draws the state before the first step.

    Args:
        network: module called as `module(x)`, or `module(x, weights)` where there are weights.
        recipe: settings.
        images: the training images.
        key: typed random key of the training.
        weights: one-hot weights of a one-shot network.

    Returns:
        The state.

    Raises:
        ValueError: the batch is larger than the data, or the images do not fit the network.
    """
    extra = () if weights is None else (weights,)
    x = inputs(images, 2)
    params = network.lazy_init(jax.random.fold_in(key, 0), x, *extra)["params"]
    if recipe.initialisation != "he":
        params = _INITIALISATIONS[recipe.initialisation](jax.random.fold_in(key, 3), params)
    shapes = jax.eval_shape(
        lambda p, x: network.apply({"params": p}, x, *extra, mutable=[RUNNING_STATISTICS])[1], params, x
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        statistics=initial_statistics(shapes.get(RUNNING_STATISTICS, {})),
        optimizer=transformation(recipe, steps_per_epoch(recipe, images)).init(params),
        average=jax.tree.map(jnp.copy, params) if recipe.average else None,
        loss=jnp.zeros(()),
        correct=jnp.zeros((), jnp.int32),
    )


def pretrained(states: TrainState, params: Any) -> TrainState:
    """Starts trainings from the parameters of another one, such as an encoder's before it had labels.

    Args:
        states: of trainings before their first step, along a leading axis.
        params: parameters of one training, with such an axis. Those that the networks lack, and those of other shapes,
            as of a head, are left out.

    Returns:
        The states, with these parameters where both have some of a name.

    Raises:
        ValueError: there are none of a name and shape.
    """
    given, taken = dict(jax.tree.leaves_with_path(params)), []

    def chosen(path: Any, leaf: jax.Array) -> jax.Array:
        found = given.get(path)
        if found is None or found.shape[1:] != leaf.shape[1:]:
            return leaf
        taken.append(path)
        # by way of the host: arrays that are bound to a device are another program, of the first step alone
        return jnp.broadcast_to(jnp.asarray(np.asarray(found), leaf.dtype), leaf.shape)

    changed = jax.tree_util.tree_map_with_path(chosen, states.params)
    if not taken:
        raise ValueError("pretrained: expected parameters of the network's names and shapes, there are none")
    return states.replace(params=changed, average=None if states.average is None else jax.tree.map(jnp.copy, changed))


def order(images: Examples, key: jax.Array, epoch: jax.typing.ArrayLike) -> jax.Array:
    """Returns the order of the images in an epoch, (examples,) int32."""
    return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 1), epoch), len(images))


def _flow(recipe: Recipe, images: Stream, key: jax.Array, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads the batches of a training from the step `start` on."""
    seed = int(jax.random.bits(jax.random.fold_in(key, 1), dtype=jnp.uint32))
    return images.shuffled(seed, recipe.batch, recipe.epochs, start, recipe.resized_crop)


def step(
    network: nn.Module,
    recipe: Recipe,
    mesh: Mesh | None,
    images: InMemory,
    state: TrainState,
    ordered: jax.Array,
    key: jax.Array,
    weights: Weights | None = None,
) -> TrainState:
    """Takes one step on images in memory; pure, for `jit`, `vmap` over state, order, key and weights, and `scan`.

    Which images come next and what is drawn follow from the state's step and the key alone, so that a training that
    continues from a stored state goes on as if it had never stopped.

    Args:
        network: see `update`; static.
        recipe: see `update`; static.
        mesh: see `update`; static.
        images: the training images.
        state: state before the step.
        ordered: order of the images in the state's epoch, from `order`.
        key: typed random key of the training.
        weights: see `init`.

    Returns:
        The state after the step.
    """
    within = state.step % steps_per_epoch(recipe, images)
    index = jax.lax.dynamic_slice(ordered, (within * recipe.batch,), (recipe.batch,))
    return update(network, recipe, mesh, images, state, images.x[index], images.y[index], key, weights)


def update(
    network: nn.Module,
    recipe: Recipe,
    mesh: Mesh | None,
    images: Examples,
    state: TrainState,
    x: jax.Array,
    y: jax.Array,
    key: jax.Array,
    weights: Weights | None = None,
) -> TrainState:
    """Takes one step on a batch; pure, for `jit` and `vmap`.

    Args:
        network: see `init`; static.
        recipe: settings; static.
        mesh: devices over which the batch is spread, along the first axis; None for one. Batch normalisation takes its
            statistics over the whole batch. Static.
        images: the training images, for their normalisation and number.
        state: state before the step.
        x: a batch as the training images are stored, (batch, height, width, colours).
        y: labels, (batch,).
        key: typed random key of the training.
        weights: see `init`.

    Returns:
        The state after the step.
    """
    steps = steps_per_epoch(recipe, images)
    within = state.step % steps
    keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 2), state.step), 5)
    if mesh is not None:
        # without the types of its axes, by which jax.make_mesh would ask for inputs that are spread already
        spread = NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(mesh.axis_names))
        x, y = jax.lax.with_sharding_constraint((x, y), spread)
    if recipe.crop:
        x = augment.crop(keys[0], x, recipe.crop)
    if recipe.flip:
        x = augment.flip(keys[1], x)
    if recipe.jitter:
        x = 255 * augment.jitter(keys[4], x.astype(jnp.result_type(float)) / 255, recipe.jitter)
    x, y = images.redrawn(keys[0], x, y)
    if recipe.cutout:
        x = augment.cutout(keys[2], x, recipe.cutout)
    options: dict[str, Any] = {"mutable": [RUNNING_STATISTICS]}
    if recipe.drop_path:
        epoch = state.step // steps
        options |= {"drop_path": recipe.drop_path * epoch / recipe.epochs, "rngs": {"drop_path": keys[3]}}
    if recipe.dropout:
        options |= {"dropout": recipe.dropout, "rngs": options.get("rngs", {}) | {"dropout": keys[4]}}
    extra = () if weights is None else (weights,)
    loss_of = _smoothed(recipe.label_smoothing) if recipe.label_smoothing else images.loss

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        computed, read = params, x
        if recipe.precision == "bfloat16":
            computed, read = in_half_precision((params, x))
        variables = {"params": computed, RUNNING_STATISTICS: state.statistics}
        outputs, updated = network.apply(variables, read, *extra, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        logits, *auxiliary = (output.astype(jnp.result_type(float)) for output in outputs)
        loss = jnp.mean(loss_of(logits, y))
        for other in auxiliary:
            loss = loss + recipe.auxiliary * jnp.mean(loss_of(other, y))
        return loss, (logits, updated.get(RUNNING_STATISTICS, {}))

    (loss, (logits, statistics)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer = transformation(recipe, steps).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    average = None
    if recipe.average:
        average = optax.incremental_update(params, state.average, 1 - recipe.average)
    first = within == 0
    return TrainState(
        step=state.step + 1,
        params=params,
        statistics=statistics,
        optimizer=optimizer,
        average=average,
        loss=jnp.where(first, 0, state.loss) + loss,
        correct=jnp.where(first, 0, state.correct) + _correct(images.loss, logits, y),
    )


def _correct(loss: Loss, logits: jax.Array, y: jax.Array) -> jax.Array:
    """Counts the labels that have the largest logit; of a regression none."""
    if loss is not cross_entropy:
        return jnp.zeros((), jnp.int32)
    return jnp.sum(jnp.argmax(logits, axis=-1) == y, dtype=jnp.int32)


def _smoothed(share: float) -> Loss:
    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, share))

    return loss


def _step(
    network: nn.Module,
    recipe: Recipe,
    mesh: Mesh | None,
    images: InMemory,
    state: TrainState,
    ordered: jax.Array,
    key: jax.Array,
    weights: Weights | None,
) -> tuple[TrainState, tuple[()]]:
    return step(network, recipe, mesh, images, state, ordered, key, weights), ()


def _update(
    network: nn.Module,
    recipe: Recipe,
    mesh: Mesh | None,
    images: Examples,
    state: TrainState,
    batch: tuple[Any, Any],
    key: jax.Array,
    weights: Weights | None,
) -> tuple[TrainState, tuple[()]]:
    return update(network, recipe, mesh, images, state, *batch, key, weights), ()


_in_memory = Population(_step, statics=3, donate=True)
_from_disk = Population(_update, statics=3, donate=True)
_compiled_order = jax.jit(jax.vmap(order, in_axes=(None, 0, None)))


def init_states(
    keys: jax.Array, network: nn.Module, recipe: Recipe, images: Examples, weights: Weights | None = None
) -> TrainState:
    """Returns the states of several trainings before their first step, along a leading axis; see `iterate`."""
    return stack([init(network, recipe, images, key, member(weights, i)) for i, key in enumerate(keys)])


def iterate(
    keys: jax.Array,
    network: nn.Module,
    recipe: Recipe,
    images: Examples,
    states: TrainState | None = None,
    *,
    weights: Weights | None = None,
    mesh: Mesh | None = None,
    scan: bool | None = None,
) -> Iterator[TrainState]:
    """Trains a population: one network from several seeds, or several architectures of a space.

    On an accelerator all members are one program, vmapped and scanned over up to 50 steps at a time. On a CPU the host
    loops; see `nasi_jax.programs.Population`. Both give the same results up to rounding. The host also loops where
    images are read from disk.

    Args:
        keys: typed random keys, (members,).
        network: a derived network; or with weights a one-shot network with `discrete="one-hot"` and `affine=True`.
        recipe: settings.
        images: the training images.
        states: states to continue from, with a leading axis (members,); the initial ones when None.
        weights: one-hot weights of the members' architectures, from `SearchSpace.encode`, with a leading axis.
        mesh: see `step`.
        scan: whether to scan; by default where the backend is not a CPU and the images are in memory.

    Yields:
        The states after some more steps, none beyond the end of an epoch.

    Raises:
        ValueError: the batch is larger than the data, the images do not fit the network or the recipe, or `scan` is
            asked for with images on disk.
        NonFiniteLossError: a loss is NaN or infinite; what was handed out before stands.
    """
    steps = steps_per_epoch(recipe, images)
    current: Any = init_states(keys, network, recipe, images, weights) if states is None else states
    if scan and isinstance(images, Stream):
        raise ValueError("scan: expected False with images on disk, got True")
    execution = choose_execution("train")
    scan = not isinstance(images, Stream) and (execution.scan if scan is None else scan)
    execution = dataclasses.replace(execution, scan=scan)
    chunk = next(n for n in range(min(_LONGEST_CHUNK if scan else _LONGEST_TURN, steps), 0, -1) if steps % n == 0)
    done, ordered = int(current.step[0]), None
    flows = [_flow(recipe, images, key, done) for key in keys] if isinstance(images, Stream) else []
    statics, wait = (network, recipe, mesh), jax.default_backend() == "cpu"
    while done < recipe.epochs * steps:
        length = chunk - done % chunk
        if not isinstance(images, Stream):
            if ordered is None or done % steps == 0:
                ordered = _compiled_order(images, keys, done // steps)
            population, turns = _in_memory, [ordered]
        else:
            population, turns = _from_disk, ([next(flow) for flow in flows] for _ in range(length))
        for read in turns:
            own = [(read[i], key, member(weights, i)) for i, key in enumerate(keys)]
            taken = length if population is _in_memory else 1
            current, _ = population.advance(statics, images, current, own, execution=execution, length=taken, wait=wait)
        done += length
        losses = np.asarray(current.loss)
        if not np.isfinite(losses).all():
            bad = int(np.argmin(np.isfinite(losses)))
            raise NonFiniteLossError(bad, done - 1, float(losses[bad]))
        yield current


def time_step(
    network: nn.Module, recipe: Recipe, images: Examples, state: TrainState, key: jax.Array, mesh: Mesh | None = None
) -> tuple[float, float]:
    """Compiles a step and times it, on a copy of the state and without reading images from disk.

    Args:
        network: see `init`.
        recipe: settings.
        images: the training images.
        state: state of one training.
        key: typed random key of the training.
        mesh: see `step`.

    Returns:
        Seconds that the compilation and one step take.
    """
    states, execution = stack([state]), dataclasses.replace(choose_execution("train"), scan=False)
    if not isinstance(images, Stream):
        population, read = _in_memory, order(images, key, 0)
    else:
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), images.stored(recipe.batch))
        population, read = _from_disk, tuple(blank)
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        advanced = population.advance((network, recipe, mesh), images, states, [(read, key, None)], execution=execution)
        states, _ = jax.block_until_ready(advanced)
        seconds.append(time.monotonic() - start)
    return max(0.0, seconds[0] - seconds[1]), seconds[1]
