"""The hidden states that blocks read and that they are to give."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasi_jax.data import Source, shapes
from nasi_jax.nn import Dense
from nasi_jax.spaces import BlockSpace

Teacher = Callable[[Any], Sequence[jax.Array]]
"""Hidden states of a network for the inputs of a batch: those before the first block and after every block, each
(batch, length, channels). Any function will do, such as one of a Flax module's `apply`, and any number of channels."""


class BlockStates(NamedTuple):
    """States of some batches.

    Attributes:
        masks: (batches, batch, length), which tokens are no padding.
        states: before the first block and after each, (batches, batch, length, channels).
    """

    masks: jax.Array
    states: tuple[jax.Array, ...]

    @property
    def width(self) -> int:
        """Channels of the states before and after a block."""
        return self.states[0].shape[-1]

    def part(self, index: slice) -> BlockStates:
        """Returns some of the batches."""
        return BlockStates(self.masks[index], tuple(states[index] for states in self.states))

    def batch(self, number: int, block: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the states before and after a block, and the mask, of one batch."""
        return self.states[block][number], self.states[block + 1][number], self.masks[number]


def block_states(space: BlockSpace, source: Source, teacher: Teacher, keys: jax.Array, batch: int) -> BlockStates:
    """Runs a teacher on batches.

    Args:
        space: the space whose blocks read the states.
        source: where batches come from.
        teacher: see `Teacher`.
        keys: of the batches, (batches,).
        batch: examples in each.

    Returns:
        The states.

    Raises:
        ValueError: the batch is too large for the data, or the teacher gives something else.
    """
    source.check_batch(batch)
    x = shapes(source, batch).x
    found = jax.eval_shape(lambda x: tuple(teacher(x)), x)
    given = [states.shape for states in found]
    if len(found) != space.blocks + 1 or any(shape != (*x.ids.shape, given[0][-1]) for shape in given):
        raise ValueError(
            f"teacher: expected {space.blocks + 1} arrays of states, before the first block and after every one, each "
            f"{x.ids.shape} and the same number of channels, got {given}"
        )

    @jax.jit
    def run(key: jax.Array) -> BlockStates:
        x = source.batch(key, batch).x
        return BlockStates(x.mask, tuple(teacher(x)))

    parts = [run(key) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def untrained(space: BlockSpace, size: Any, key: jax.Array) -> Teacher:
    """Returns the states of a network at initialisation, of the space's `reference` block in every place.

    Args:
        space: a space of blocks.
        size: of the network, a `Size` of the space.
        key: typed random key of its weights.

    Returns:
        A teacher of the width of that block.
    """
    ports, operations = space.candidates
    port, keys = int(ports[space.reference]), jax.random.split(key, space.blocks + 1)

    def teacher(x: Any) -> list[jax.Array]:
        piece = space.joint_piece(size, 1, None, port, x)
        assert piece is not None
        stem, block = piece[0], space.block(size, port)
        first = stem.init_with_output(keys[0], x)[0][0]

        def through(states: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            states = block(block.init(key), states, x.mask, jnp.asarray(operations[space.reference]))
            return states, states

        # a scan, so that one block is compiled and not all of them
        return [first, *jax.lax.scan(through, first, keys[1:])[1]]

    return teacher


@dataclasses.dataclass(frozen=True)
class MappedBlock:
    """The candidates of a block and a width between states of another width, with a linear map before and after them.

    Attributes:
        space: a space of blocks.
        size: of the networks.
        port: place of the width.
        outside: channels of the states around it; there are no maps where they are those of the block.
    """

    space: BlockSpace
    size: Any
    port: int
    outside: int

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: jax.Array) -> dict[str, Any]:
        """Draws the weights: ``"shared"`` of the block, and of the maps ``"before"`` and ``"after"``."""
        shared_key, *map_keys = jax.random.split(key, 3)
        block = self.space.block(self.size, self.port)
        params = {"shared": block.init(shared_key)}
        if block.width != self.outside:
            ends = {"before": (self.outside, block.width), "after": (block.width, self.outside)}
            for map_key, (name, (inputs, outputs)) in zip(map_keys, ends.items(), strict=True):
                params[name] = Dense(outputs).init(map_key, jnp.zeros((1, inputs)))["params"]
        return params

    def inner(self, params: dict[str, Any], states: jax.Array, mask: jax.Array, operations: Any) -> jax.Array:
        """Computes a candidate's own states, (batch, length, width), before they are mapped."""
        block = self.space.block(self.size, self.port)
        if "before" in params:
            states = Dense(block.width).apply({"params": params["before"]}, states)  # type: ignore[assignment]
        return block(params["shared"], states, mask, operations)

    def __call__(self, params: dict[str, Any], states: jax.Array, mask: jax.Array, operations: Any) -> jax.Array:
        """Computes a candidate; see `nasi_jax.spaces.SharedBlock`."""
        found = self.inner(params, states, mask, operations)
        if "after" not in params:
            return found
        return Dense(self.outside).apply({"params": params["after"]}, found)  # type: ignore[return-value]
