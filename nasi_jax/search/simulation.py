"""Strategies replayed on a table: thousands of repetitions are one program."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.search.strategy import Strategy
from nasi_jax.spaces import SearchSpace


class Simulation(NamedTuple):
    """What repetitions of a strategy did, as places in `SearchSpace.enumerate`.

    The values of another column at `incumbents` are its curve over evaluations.

    Attributes:
        evaluated: what was asked for, (repetitions, evaluations) int32.
        incumbents: the best one told after each evaluation, (repetitions, evaluations) int32.
    """

    evaluated: np.ndarray
    incumbents: np.ndarray


def simulate(
    strategy: Strategy, space: SearchSpace, values: np.ndarray, keys: jax.Array, evaluations: int
) -> Simulation:
    """Runs a strategy on a table, once for each key; architectures are asked for one at a time and told at once.

    Args:
        strategy: the strategy.
        space: a space that the table has all of.
        values: the column to maximise, (space.cardinality,), in the order of `space.enumerate`.
        keys: random keys, (repetitions,).
        evaluations: how many architectures to evaluate; one that comes again is paid for again.

    Returns:
        What was evaluated, and the best ones.

    Raises:
        ValueError: there are not as many values as architectures, or the strategy does not fit the space.
    """
    if np.shape(values) != (space.cardinality,):
        raise ValueError(f"values: expected shape ({space.cardinality},) for {space.name}, got {np.shape(values)}")
    evaluated, incumbents = _simulate(strategy, space, evaluations, jnp.asarray(values), keys)
    return Simulation(np.asarray(evaluated), np.asarray(incumbents))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _simulate(
    strategy: Strategy, space: SearchSpace, evaluations: int, values: jax.Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def repetition(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        init_key, ask_key = jax.random.split(key)

        def evaluate(state, number):
            genotypes, state = strategy.ask(jax.random.fold_in(ask_key, number), state)
            places = jax.vmap(space.index)(genotypes)
            state = strategy.tell(state, genotypes, values[places])
            return state, (places[0], space.index(strategy.best(state)))

        return jax.lax.scan(evaluate, strategy.init(init_key, space), jnp.arange(evaluations))[1]

    return jax.vmap(repetition)(keys)
