"""Evolution: a population that breeds by fitness, and loses its oldest or its worst."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.search.strategy import Strategy, StrategyState, choose, common, draw, fitness
from nasi_jax.spaces import SearchSpace
from nasi_jax.spaces.base import check_positive


@struct.dataclass
class EvolutionState(StrategyState):
    """The state of an evolution.

    Attributes:
        members: genotypes stacked along a leading axis (population,). They are the first ones told, then changed
            one at a time; until there are as many as that, the last places are empty.
        values: their values, (population,).
    """

    members: Any
    values: jax.Array


@dataclasses.dataclass(frozen=True)
class Evolution(Strategy[EvolutionState]):
    """Regularised evolution, which ages, and plain evolution with crossover.

    The first `population` architectures are drawn uniformly. From then on every child has parents that were selected
    by their values. It takes each decision from either of two parents, with probability `crossover`, or is one parent
    with one choice changed. Children that are asked for at once are of one population.

    The defaults are those of GenNAS, which on NAS-Bench-201 find more in 200 evaluations than the paper's population
    of 100 with 25 contenders does, and no less in 500.

    Attributes:
        population: how many members there are.
        contenders: how many members are considered for a parent.
        selection: "tournament": the fittest of some contenders that are drawn uniformly; "truncation": any of as many
            fittest members.
        replace: whether a member may be drawn more than once for a tournament.
        remove: the member that a child takes the place of: "oldest" (aging), or "worst", if the child is no
            worse itself.
        crossover: how often a child has two parents.
        mutate_copies: whether to mutate a child of two parents that is equal to one of them.

    References:
        Real, Aggarwal, Huang and Le, "Regularized evolution for image classifier architecture search", AAAI 2019,
        Algorithm 1; Li et al., "Generic neural architecture search via regression", NeurIPS 2021, for the defaults.
    """

    population: int = 50
    contenders: int = 10
    selection: Literal["tournament", "truncation"] = "tournament"
    replace: bool = False
    remove: Literal["oldest", "worst"] = "oldest"
    crossover: float = 0.0
    mutate_copies: bool = True

    def __post_init__(self) -> None:
        """Checks the options."""
        check_positive(self, population=1, contenders=1)
        if self.selection not in ("tournament", "truncation"):
            raise ValueError(f"selection: expected 'tournament' or 'truncation', got {self.selection!r}")
        if self.remove not in ("oldest", "worst"):
            raise ValueError(f"remove: expected 'oldest' or 'worst', got {self.remove!r}")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"crossover: expected a probability, got {self.crossover!r}")
        repeated = self.selection == "tournament" and self.replace
        largest = self.population - (self.crossover > 0 and self.selection == "tournament")
        if self.contenders > largest and not repeated:
            raise ValueError(f"contenders: expected at most {largest} of the population, got {self.contenders}")
        if self.crossover and min(self.population, self.contenders if self.selection == "truncation" else 2) < 2:
            raise ValueError(f"crossover: expected 0 where there are not two parents to choose, got {self.crossover}")

    def init(self, key: jax.Array, space: SearchSpace) -> EvolutionState:
        """Returns the state before anything was told."""
        fields = common(space)
        members = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], self.population, axis=0), fields["incumbent"])
        return EvolutionState(**fields, members=members, values=jnp.full(self.population, jnp.nan))

    def ask(self, key: jax.Array, state: EvolutionState, count: int = 1) -> tuple[Any, EvolutionState]:
        """Draws `count` architectures while the population is incomplete, and breeds as many children after that."""
        draw_key, breed_key = jax.random.split(key)
        keys = jax.random.split(breed_key, count)
        children = jax.vmap(self._child, in_axes=(0, None))(keys, state)
        return choose(state.told < self.population, draw(draw_key, state.space, count), children), state

    def observe(self, state: EvolutionState, genotype: Any, value: jax.Array) -> EvolutionState:
        """Takes the genotype into the population, in the place of another one or not at all."""
        if self.remove == "oldest":
            place, takes = state.told % self.population, jnp.array(True)
        else:
            growing = state.told < self.population
            place = jnp.where(growing, state.told, jnp.argmin(fitness(state.values)))
            takes = growing | (fitness(value) >= fitness(state.values[place]))

        def put(members: jax.Array, new: jax.Array) -> jax.Array:
            return members.at[place].set(jnp.where(takes, new, members[place]))

        members = jax.tree.map(put, state.members, genotype)
        return dataclasses.replace(state, members=members, values=put(state.values, value))

    def _child(self, key: jax.Array, state: EvolutionState) -> Any:
        space, (select_key, mutate_key, cross_key, coin_key) = state.space, jax.random.split(key, 4)
        first, second = (
            jax.tree.map(lambda leaf, i=i: leaf[i], state.members) for i in self._parents(select_key, state.values)
        )
        if not self.crossover:
            return space.mutate(mutate_key, first)
        crossed = space.cross(cross_key, first, second)
        two = jax.random.bernoulli(coin_key, self.crossover)
        changed = ~two
        if self.mutate_copies:
            changed |= _equal(crossed, first) | _equal(crossed, second)
        child = choose(two, crossed, first)
        return choose(changed, space.mutate(mutate_key, child), child)

    def _parents(self, key: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the places of two members; they differ where there is crossover, and the second is not used else."""
        first_key, second_key = jax.random.split(key)
        if self.selection == "truncation":
            fittest = jax.lax.top_k(fitness(values), self.contenders)[1]
            first = jax.random.randint(first_key, (), 0, self.contenders)
            second = (first + jax.random.randint(second_key, (), 1, max(self.contenders, 2))) % self.contenders
            return fittest[first], fittest[second]
        first = self._winner(jnp.arange(self.population), first_key, values)
        if not self.crossover:
            return first, first
        others = jnp.arange(self.population - 1)
        return first, self._winner(others + (others >= first), second_key, values)

    def _winner(self, places: jax.Array, key: jax.Array, values: jax.Array) -> jax.Array:
        """Returns the place of the fittest of some of these places, the first that was drawn on ties."""
        if self.replace:
            drawn = places[jax.random.randint(key, (self.contenders,), 0, len(places))]
        else:
            drawn = places[jax.lax.top_k(jax.random.uniform(key, places.shape), self.contenders)[1]]
        return drawn[jnp.argmax(fitness(values[drawn]))]


def _equal(first: Any, second: Any) -> jax.Array:
    same = jax.tree.map(lambda a, b: jnp.all(a == b), first, second)
    return jnp.all(jnp.stack(jax.tree.leaves(same)))
