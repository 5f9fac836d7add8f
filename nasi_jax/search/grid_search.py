"""Grid search: every combination of options, in a fixed order."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.search.strategy import Strategy, StrategyState, common
from nasi_jax.spaces import SearchSpace

Order = Literal["lexicographic", "strided", "shuffled"]


@struct.dataclass
class GridState(StrategyState):
    """The state of a grid search.

    Attributes:
        order: places in the grid in the order of asking, (size,) int32.
        asked: how many were asked for, () int32.
    """

    order: jax.Array
    asked: jax.Array


@dataclasses.dataclass(frozen=True)
class GridSearch(Strategy[GridState]):
    """Asks for every combination of options once, then from the start again.

    In lexicographic order the first decisions hardly change for a long time, which makes a part of the grid a bad
    sample. Strides of about 0.618 of the grid that have no factor in common with its size visit all of it too, and
    any part of the visit is spread over every decision.

    Attributes:
        order: "lexicographic": the last decision changes fastest; "strided"; "shuffled": uniformly at
            random, which is random search without replacement.
        options: for each decision of the space the options to combine; all of them by default.
        limit: the largest size to accept.

    References:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 2012, for what grids lack.
    """

    order: Order = "strided"
    options: tuple[tuple[int, ...], ...] | None = None
    limit: int = 100_000

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.order not in ("lexicographic", "strided", "shuffled"):
            raise ValueError(f"order: expected 'lexicographic', 'strided' or 'shuffled', got {self.order!r}")
        if not 1 <= self.limit <= np.iinfo(np.int32).max:
            raise ValueError(f"limit: expected 1 to {np.iinfo(np.int32).max}, got {self.limit!r}")

    @property
    def adaptive(self) -> bool:
        """False."""
        return False

    def combined(self, space: SearchSpace) -> tuple[tuple[int, ...], ...]:
        """Returns the options of each decision.

        Raises:
            ValueError: `options` are not distinct ones of each decision of the space.
        """
        if self.options is None:
            return tuple(tuple(range(count)) for count in space.decisions)
        if len(self.options) != len(space.decisions):
            raise ValueError(f"options: expected {len(space.decisions)} decisions, got {len(self.options)}")
        for row, (chosen, count) in enumerate(zip(self.options, space.decisions, strict=True)):
            if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(count)):
                raise ValueError(f"options: expected distinct ones of 0 to {count - 1} in row {row}, got {chosen}")
        return self.options

    def size(self, space: SearchSpace) -> int:
        """Returns how many architectures the grid has.

        Raises:
            ValueError: `options` are not distinct ones of each decision of the space.
        """
        return math.prod(map(len, self.combined(space)))

    def init(self, key: jax.Array, space: SearchSpace) -> GridState:
        """Returns the state before anything was told.

        Raises:
            ValueError: the grid is larger than `limit`, or `options` do not fit the space.
        """
        size = self.size(space)
        if size > self.limit:
            raise ValueError(f"grid: expected at most limit={self.limit} architectures of {space.name}, got {size}")
        if self.order == "shuffled":
            order = jax.random.permutation(key, size)
        else:
            step = stride(size) if self.order == "strided" else 1
            order = jnp.array(np.arange(size, dtype=np.int64) * step % size)
        return GridState(**common(space), order=order.astype(jnp.int32), asked=jnp.zeros((), jnp.int32))

    def ask(self, key: jax.Array, state: GridState, count: int = 1) -> tuple[Any, GridState]:
        """Returns the next `count` of the order."""
        combined = self.combined(state.space)
        places = state.order[(state.asked + jnp.arange(count)) % len(state.order)]
        columns = jnp.unravel_index(places, tuple(map(len, combined)))
        chosen = [jnp.array(options)[column] for options, column in zip(combined, columns, strict=True)]
        genotypes = jax.vmap(state.space.from_decisions)(jnp.stack(chosen, axis=1).astype(jnp.int32))
        return genotypes, dataclasses.replace(state, asked=(state.asked + count) % len(state.order))

    def observe(self, state: GridState, genotype: Any, value: jax.Array) -> GridState:
        """Changes nothing."""
        return state


def stride(size: int) -> int:
    """Returns a number near 0.618 of `size` that has no factor in common with it, so that its multiples are a tour."""
    golden = round(size * (math.sqrt(5) - 1) / 2)
    return next(step for i in range(size) for step in (golden + i, golden - i) if math.gcd(step, size) == 1)
