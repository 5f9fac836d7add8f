"""Random search."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from nasi_jax.search.grid_search import GridSearch, GridState
from nasi_jax.search.strategy import Strategy, StrategyState, common, draw
from nasi_jax.spaces import SearchSpace

_LISTED = 10_000_000


@dataclasses.dataclass(frozen=True)
class RandomSearch(Strategy[StrategyState]):
    """Draws architectures uniformly.

    `nasi_jax.tabular.best_of_random` says in closed form what it finds on a table. `nasi_jax.search.BlackBox` can leave
    out what was evaluated before in a space of any size, and architectures that compute the same.

    Attributes:
        replace: whether an architecture may be drawn again. Without, the state holds the space in random order, and
            starts again when all of it was asked for.

    References:
        Li and Talwalkar, "Random search and reproducibility for neural architecture search", UAI 2019.
    """

    replace: bool = True

    @property
    def adaptive(self) -> bool:
        """False."""
        return False

    def init(self, key: jax.Array, space: SearchSpace) -> StrategyState:
        """Returns the state before anything was told.

        Raises:
            ValueError: without replacement: the space has more than ten million architectures.
        """
        return StrategyState(**common(space)) if self.replace else self._shuffled.init(key, space)

    def ask(self, key: jax.Array, state: StrategyState, count: int = 1) -> tuple[Any, StrategyState]:
        """Draws `count` architectures."""
        if isinstance(state, GridState):
            return self._shuffled.ask(key, state, count)
        return draw(key, state.space, count), state

    def observe(self, state: StrategyState, genotype: Any, value: jax.Array) -> StrategyState:
        """Changes nothing."""
        return state

    @property
    def _shuffled(self) -> GridSearch:
        return GridSearch("shuffled", limit=_LISTED)
