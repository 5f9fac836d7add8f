"""What a block is worth at initialisation, without a teacher and without text."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import Source
from nasi_jax.ntk import squared_norm
from nasi_jax.scores.block_states import MappedBlock, Teacher, block_states, untrained
from nasi_jax.spaces import BlockSpace

_PROBES = 2


class BlockNTK:
    """A score of blocks by their NTK at initialisation; see `nasi_jax.search.BlockEstimate`.

    It is the logarithm of the trace of the NTK of all states that the block gives, for each token, which NASI maximises
    over whole networks; by Hutchinson's estimate, and in the weights of the block alone. A sum over blocks is the
    logarithm of a product.

    The blocks of one width share the weights that they are drawn with, and each reads the hidden states of a network of
    `BlockSpace.reference` blocks up to it, which is not trained either.

    References:
        Shu et al., "NASI: Label- and data-agnostic neural architecture search at initialization", ICLR 2022, eq. 9.
    """

    steps = 0

    def __init__(
        self,
        space: BlockSpace,
        size: Any,
        source: Source,
        *,
        batch: int = 16,
        seed: int = 0,
        teacher: Teacher | None = None,
    ):
        """Draws the weights and the hidden states.

        Args:
            space: a space of blocks.
            size: of the networks, a `Size` of the space.
            source: where the batch comes from, for example `space.noise()`.
            batch: examples in it.
            seed: of batch, weights and probe.
            teacher: gives the hidden states instead of the network that is not trained.

        Raises:
            ValueError: the batch is too large for the data, or the teacher does not give states of all blocks.
        """
        keys = jax.random.split(jax.random.key(seed), 4)
        teacher = untrained(space, size, keys[0]) if teacher is None else teacher
        self._space = space
        self._states = block_states(space, source, teacher, keys[1][None], batch)
        self._probe = keys[2]
        self._blocks = [MappedBlock(space, size, port, self._states.width) for port in range(len(space.widths))]
        widths = zip(self._blocks, jax.random.split(keys[3], len(space.widths)), strict=True)
        self._params = [block.init(key) for block, key in widths]

    def init(self, seed: int) -> Any:
        """Returns nothing: nothing is trained."""
        return ()

    def train(self, state: Any, block: int, candidates: np.ndarray) -> tuple[Any, float]:
        """Trains nothing."""
        return state, float("nan")

    def values(self, state: Any, block: int, candidates: np.ndarray) -> np.ndarray:
        """Returns the scores, (candidates,)."""
        ports, operations = self._space.candidates
        before, _, mask = self._states.batch(0, block)
        found = [
            _value(self._blocks[ports[i]], self._params[ports[i]], before, mask, operations[i], self._probe)
            for i in candidates
        ]
        return np.asarray(jax.device_get(found), float)


@functools.partial(jax.jit, static_argnums=0)
def _value(
    block: MappedBlock, params: Any, states: jax.Array, mask: jax.Array, operations: jax.Array, key: jax.Array
) -> jax.Array:
    def outputs(shared: Any) -> jax.Array:
        return block.inner(params | {"shared": shared}, states, mask, operations)

    found, pullback = jax.vjp(outputs, params["shared"])
    there = mask[..., None].astype(found.dtype)

    def trace(probe: jax.Array) -> jax.Array:
        return squared_norm(pullback(jax.random.rademacher(probe, found.shape, found.dtype) * there)[0])

    # a loop, so that what a probe is pulled back by is compiled once
    traces = jax.lax.map(trace, jax.random.split(key, _PROBES))
    return jnp.log(jnp.mean(traces) / jnp.sum(mask))
