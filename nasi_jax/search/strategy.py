"""The contract of a black-box strategy: architectures are asked for, and their values are told."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.spaces import SearchSpace
from nasi_jax.spaces.base import lacking


@struct.dataclass
class StrategyState:
    """What every strategy remembers.

    Attributes:
        space: the space, which is static.
        told: how many values have been told, () int32.
        incumbent: the best genotype told; an arbitrary one before.
        incumbent_value: its value, () float; NaN before.
    """

    space: SearchSpace = struct.field(pytree_node=False)
    told: jax.Array
    incumbent: Any
    incumbent_value: jax.Array


S = TypeVar("S", bound=StrategyState)


class Strategy(Protocol, Generic[S]):
    """A way to choose architectures by values alone, larger for better ones.

    A strategy is a frozen dataclass of its options. Its methods are pure: they work under `jit`, `vmap` and `scan`, and
    a state is a pytree that can be saved at any time. Architectures may be told in any order and any number at once,
    and without having been asked for, which starts a search from what is known. Telling several at once is telling
    them one after the other.

    Every variant in `nasi_jax.search.VARIANTS` is held to this contract by one shared set of tests.
    """

    @property
    def adaptive(self) -> bool:
        """Whether what is told changes what is asked for."""
        return True

    def init(self, key: jax.Array, space: SearchSpace) -> S:
        """Returns the state before anything was told.

        Raises:
            ValueError: the options do not fit the space.
        """
        lacking(self, "init")

    def ask(self, key: jax.Array, state: S, count: int = 1) -> tuple[Any, S]:
        """Chooses architectures to evaluate.

        Args:
            key: random key; a new one for each call.
            state: the state.
            count: how many.

        Returns:
            `count` genotypes, stacked along a leading axis, and the next state.
        """
        lacking(self, "ask")

    def tell(self, state: S, genotypes: Any, values: jax.Array) -> S:
        """Takes in what architectures are worth.

        Args:
            state: the state.
            genotypes: stacked along a leading axis.
            values: their values, (genotypes,), larger for better ones. NaN is an architecture without a value: it is
                worse than all others.

        Returns:
            The next state.

        Raises:
            ValueError: there is not one value for each genotype.
        """
        count = len(jax.tree.leaves(genotypes)[0])
        if jnp.shape(values) != (count,):
            raise ValueError(f"values: expected shape ({count},), one for each genotype, got {jnp.shape(values)}")

        def one(state: S, told: tuple[Any, jax.Array]) -> tuple[S, None]:
            genotype, value = told
            better = (value > state.incumbent_value) | (jnp.isnan(state.incumbent_value) & ~jnp.isnan(value))
            better |= state.told == 0
            state = self.observe(state, genotype, value)
            return dataclasses.replace(
                state,
                told=state.told + 1,
                incumbent=choose(better, genotype, state.incumbent),
                incumbent_value=jnp.where(better, value, state.incumbent_value),
            ), None

        return jax.lax.scan(one, state, (genotypes, jnp.asarray(values, state.incumbent_value.dtype)))[0]

    def observe(self, state: S, genotype: Any, value: jax.Array) -> S:
        """Takes in the value of one architecture, () and maybe NaN; `tell` keeps the best and counts."""
        lacking(self, "observe")

    def reject(self, state: S, genotypes: Any) -> S:
        """Takes in that architectures that were asked for will have no value, because they do not meet the limits.

        Args:
            state: the state.
            genotypes: stacked along a leading axis.

        Returns:
            The next state; most strategies go on as if they had not asked.
        """
        return state

    def best(self, state: S) -> Any:
        """Returns the best genotype told, the first one on ties."""
        return state.incumbent


def common(space: SearchSpace) -> dict[str, Any]:
    """Returns the fields of a `StrategyState` before anything was told."""
    first = space.from_decisions(jnp.zeros(len(space.decisions), jnp.int32))
    return {
        "space": space,
        "told": jnp.zeros((), jnp.int32),
        "incumbent": first,
        "incumbent_value": jnp.full((), jnp.nan),
    }


def draw(key: jax.Array, space: SearchSpace, count: int) -> Any:
    """Draws `count` genotypes uniformly, stacked along a leading axis."""
    return jax.vmap(space.sample)(jax.random.split(key, count))


def choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Returns one of two pytrees of the same shapes by a condition ()."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def fitness(values: jax.Array) -> jax.Array:
    """Replaces NaN by -inf, for comparisons alone."""
    return jnp.where(jnp.isnan(values), -jnp.inf, values)
