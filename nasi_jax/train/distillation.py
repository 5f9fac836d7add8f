"""What a block is worth by how well it repeats a block of a teacher, as NAS-BERT's supernet is trained."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasi_jax.data import Source
from nasi_jax.nn import FEATURES
from nasi_jax.scores import MappedBlock, Teacher, block_states
from nasi_jax.spaces import BlockSpace


class Distillation:
    """Minus the distillation loss of blocks whose weights are shared and trained; see `nasi_jax.search.BlockEstimate`.

    Every block reads the teacher's states before its block and is trained to give those after it, by the mean squared
    error over all tokens. Blocks do not see each other. The candidates of a block and width share their weights, and a
    pair of linear maps where the teacher has another width.

    References:
        Xu et al., "NAS-BERT: Task-agnostic and adaptive-size BERT compression with neural architecture search", KDD
        2021. That candidates of a width share maps, the optimiser and its rate are choices of this library.
    """

    def __init__(
        self,
        space: BlockSpace,
        size: Any,
        source: Source,
        teacher: Teacher,
        *,
        steps: int = 200,
        batch: int = 32,
        batches: int = 16,
        held_out: int = 5,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ):
        """Runs the teacher on some batches, whose states are kept.

        Args:
            space: a space of blocks.
            size: of the networks, a `Size` of the space.
            source: where batches come from.
            teacher: see `Teacher`; of any width.
            steps: steps of each block in every round.
            batch: examples in a batch.
            batches: batches that blocks are trained on, again and again.
            held_out: further ones, on which they are valued.
            learning_rate: of Adam.
            seed: of the batches and of the weights.

        Raises:
            ValueError: an option is out of range, or the teacher does not give states of all blocks.
        """
        for name, value in {"steps": steps, "batches": batches, "held_out": held_out}.items():
            if value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate: expected a positive number, got {learning_rate}")
        self.steps = steps
        self._space, self._size, self._seed, self._optimiser = space, size, seed, optax.adam(learning_rate)
        keys = jax.random.split(jax.random.key(seed), batches + held_out)
        states = block_states(space, source, teacher, keys, batch)
        self._training, self._held_out = states.part(slice(batches)), states.part(slice(batches, None))
        self._batches = batches

    def init(self, seed: int) -> Any:
        """Returns weights and the optimiser's state of every block and width."""
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self._seed), seed), self._space.blocks)
        params = {
            f"block_{block}": {
                f"width_{port}": self._block(port).init(key)
                for port, key in enumerate(jax.random.split(keys[block], len(self._space.widths)))
            }
            for block in range(self._space.blocks)
        }
        optimiser = jax.tree.map(self._optimiser.init, params, is_leaf=lambda node: "shared" in node)
        return {"params": params, "optimiser": optimiser, "step": np.array(0)}

    def train(self, state: Any, block: int, candidates: np.ndarray) -> tuple[Any, float]:
        """Takes a step on each candidate; see `nasi_jax.search.BlockEstimate`."""
        ports, operations = self._space.candidates
        name, losses, step = f"block_{block}", [], int(state["step"])
        params, optimiser = dict(state["params"][name]), dict(state["optimiser"][name])
        for candidate in candidates:
            port, key = int(ports[candidate]), f"width_{ports[candidate]}"
            batch = self._training.batch(step % self._batches, block)
            params[key], optimiser[key], loss = self._step(
                port, params[key], optimiser[key], batch, operations[candidate]
            )
            losses.append(loss)
            step += 1
        state = {
            "params": state["params"] | {name: params},
            "optimiser": state["optimiser"] | {name: optimiser},
            "step": np.array(step),
        }
        return state, float(np.mean(jax.device_get(losses)))

    def values(self, state: Any, block: int, candidates: np.ndarray) -> np.ndarray:
        """Returns minus the loss on the batches that are held out, (candidates,)."""
        ports, operations = self._space.candidates
        params, found = state["params"][f"block_{block}"], []
        for candidate in candidates:
            port = int(ports[candidate])
            losses = [
                self._loss(port, params[f"width_{port}"], self._held_out.batch(i, block), operations[candidate])
                for i in range(len(self._held_out.masks))
            ]
            found.append(sum(losses[1:], losses[0]) / len(losses))
        return -np.asarray(jax.device_get(found), float)

    def whole(self, state: Any, architectures: np.ndarray) -> np.ndarray:
        """Returns minus the loss of whole networks, whose blocks read each other and not the teacher.

        It is that of the last block's states, on the batches that are held out. The published search takes the loss of
        the whole network as well; of which outputs is not known, and these need no head.

        Args:
            state: what is trained.
            architectures: the number of each block's candidate, (architectures, blocks).

        Returns:
            (architectures,).
        """
        ports, operations = self._space.candidates
        last, found = self._space.blocks - 1, []
        for numbers in architectures:
            losses = []
            for i in range(len(self._held_out.masks)):
                states, _, mask = self._held_out.batch(i, 0)
                for block, number in enumerate(numbers):
                    port = int(ports[number])
                    own, chosen = state["params"][f"block_{block}"][f"width_{port}"], operations[number]
                    if block < last:
                        states = self._states(port, own, states, mask, chosen)
                    else:
                        losses.append(self._loss(port, own, (states, self._held_out.batch(i, last)[1], mask), chosen))
            found.append(sum(losses[1:], losses[0]) / len(losses))
        return -np.asarray(jax.device_get(found), float)

    def _block(self, port: int) -> MappedBlock:
        return MappedBlock(self._space, self._size, port, self._training.width)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _states(self, port: int, params: Any, states: jax.Array, mask: jax.Array, operations: jax.Array) -> jax.Array:
        return self._block(port)(params, states, mask, operations)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _loss(self, port: int, params: Any, batch: Any, operations: jax.Array) -> jax.Array:
        return self._squared(port, params, batch, operations)

    def _squared(self, port: int, params: Any, batch: Any, operations: jax.Array) -> jax.Array:
        before, after, mask = batch
        error = jnp.mean((self._block(port)(params, before, mask, operations) - after) ** 2, axis=-1)
        return jnp.sum(error * mask) / jnp.sum(mask)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _step(self, port: int, params: Any, optimiser: Any, batch: Any, operations: jax.Array) -> Any:
        loss, gradient = jax.value_and_grad(self._squared, 1)(port, params, batch, operations)
        updates, optimiser = self._optimiser.update(gradient, optimiser, params)
        return optax.apply_updates(params, updates), optimiser, loss


def as_teacher(space: BlockSpace, genotype: Any, size: Any, params: Any) -> Teacher:
    """Returns the states of a network of the space as a teacher.

    Args:
        space: a space of blocks, whose networks show what every operation hands on.
        genotype: the architecture.
        size: of the network.
        params: its parameters.

    Returns:
        The teacher.
    """
    ends = np.cumsum([0, *np.sum(np.asarray(genotype.operations) > 0, axis=1)])

    def teacher(x: Any) -> list[jax.Array]:
        places = 1 if x.targets is None else x.targets.shape[1] * x.vocabulary
        network = space.network(genotype, size, places)
        found: Any = network.apply({"params": params}, x, mutable=[FEATURES])[1]
        return [found[FEATURES][f"{end:03d}"] for end in ends]

    return teacher


def train_teacher(
    key: jax.Array, space: BlockSpace, genotype: Any, size: Any, source: Source, steps: int, batch: int = 32
) -> tuple[Any, float]:
    """Trains a small teacher on the loss of a source, such as that of words that are masked out.

    By Adam at 5e-4, which the first tenth of the steps rises to and the others fall from along half a cosine.

    Args:
        key: typed random key.
        space: a space of blocks.
        genotype: the architecture.
        size: of the network.
        source: where batches come from.
        steps: number of steps.
        batch: examples in a batch.

    Returns:
        The parameters, and the mean loss of the last tenth of the steps.

    Raises:
        ValueError: the batch is too large for the data.
        FloatingPointError: the loss is NaN or infinite.
    """
    source.check_batch(batch)
    network = space.network(genotype, size, source.outputs)
    rate = optax.warmup_cosine_decay_schedule(0.0, 5e-4, max(1, steps // 10), max(2, steps))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    params = jax.jit(network.init)(key, source.batch(key, 2).x)["params"]

    @jax.jit
    def step(params: Any, state: Any, number: jax.Array) -> Any:
        x, y = source.batch(jax.random.fold_in(key, number), batch)

        def mean_loss(params: Any) -> jax.Array:
            outputs: Any = network.apply({"params": params}, x)
            return jnp.mean(source.loss(outputs, y))

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimiser.init(params), []
    for number in range(steps):
        params, state, loss = step(params, state, jnp.asarray(number))
        losses.append(loss)
    last = float(np.mean(jax.device_get(losses[-max(1, steps // 10) :]))) if losses else float("nan")
    if losses and not np.isfinite(last):
        raise FloatingPointError(f"the loss of the teacher is {last} after {steps} steps")
    return params, last
