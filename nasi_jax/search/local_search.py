"""Local search: neighbours until one is better, and a new start where none is."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.search.strategy import Strategy, StrategyState, choose, common, draw
from nasi_jax.spaces import SearchSpace


@struct.dataclass
class LocalState(StrategyState):
    """The state of a local search.

    Attributes:
        centre: the genotype whose neighbours are asked for.
        centre_value: its value, () float; NaN where the next genotype told is to be the centre.
        asked: for each neighbour whether it was asked for, (neighbours,) bool.
        seen: for each neighbour whether its value was told, (neighbours,) bool.
    """

    centre: Any
    centre_value: jax.Array
    asked: jax.Array
    seen: jax.Array


@dataclasses.dataclass(frozen=True)
class LocalSearch(Strategy[LocalState]):
    """Hill climbing by first improvement, with random restarts.

    Neighbours of the centre are asked for in random order. The first one told that is better becomes the centre. When
    all of them were told and none is better, the centre is a local optimum, and the next centre is drawn uniformly.
    Where more are asked for than there are neighbours left, the others are drawn uniformly too.

    References:
        White, Nolen and Savani, "Exploring the loss landscape in neural architecture search", UAI 2021.
    """

    def init(self, key: jax.Array, space: SearchSpace) -> LocalState:
        """Returns the state before anything was told."""
        fields, none = common(space), jnp.zeros(space.neighbours, bool)
        return LocalState(
            **fields, centre=fields["incumbent"], centre_value=fields["incumbent_value"], asked=none, seen=none
        )

    def ask(self, key: jax.Array, state: LocalState, count: int = 1) -> tuple[Any, LocalState]:
        """Returns `count` neighbours that were not asked for, as far as there are any, then random architectures."""
        draw_key, order_key = jax.random.split(key)
        order = jnp.where(state.asked, -1.0, jax.random.uniform(order_key, state.asked.shape))
        left, places = jax.lax.top_k(order, min(count, state.space.neighbours))
        usable = (left >= 0) & ~jnp.isnan(state.centre_value)
        around = jax.vmap(state.space.neighbour, in_axes=(None, 0))(state.centre, places)
        drawn = draw(draw_key, state.space, count)
        genotypes = jax.tree.map(
            lambda all_, near: all_.at[: len(places)].set(
                jax.vmap(jnp.where)(usable, near, all_[: len(places)])  # a condition for each genotype
            ),
            drawn,
            around,
        )
        asked = state.asked.at[places].set(state.asked[places] | usable)
        return genotypes, dataclasses.replace(state, asked=asked)

    def observe(self, state: LocalState, genotype: Any, value: jax.Array) -> LocalState:
        """Moves to the genotype where it is better than the centre, and away where the centre is a local optimum."""
        space, rows = state.space, jnp.arange(state.space.neighbours)
        around = jax.vmap(lambda i: space.to_decisions(space.neighbour(state.centre, i)))(rows)
        seen = state.seen | jnp.all(around == space.to_decisions(genotype)[None], axis=1)
        moves = (value > state.centre_value) | (jnp.isnan(state.centre_value) & ~jnp.isnan(value))
        restarts = jnp.all(seen) & ~moves
        fresh = moves | restarts | jnp.isnan(state.centre_value)
        centre_value = jnp.where(moves, value, jnp.where(restarts, jnp.nan, state.centre_value))
        return dataclasses.replace(
            state,
            centre=choose(moves, genotype, state.centre),
            centre_value=centre_value,
            asked=state.asked & ~fresh,
            seen=seen & ~fresh,
        )

    def reject(self, state: LocalState, genotypes: Any) -> LocalState:
        """Counts them as neighbours that are not better, so that a centre without others is a local optimum."""

        def one(state: LocalState, genotype: Any) -> tuple[LocalState, None]:
            return self.observe(state, genotype, jnp.full((), jnp.nan)), None

        return jax.lax.scan(one, state, genotypes)[0]
