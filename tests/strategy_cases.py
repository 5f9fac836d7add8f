"""A space that is its decisions and nothing else, and a planted optimum for any space."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax import spaces


@struct.dataclass(eq=False)
class Decisions(spaces.Genotype):
    options: jax.Array


@dataclasses.dataclass(frozen=True)
class DecisionSpace(spaces.SearchSpace):
    decisions: tuple[int, ...] = (3, 2, 4)
    name = "decisions"

    def to_decisions(self, genotype):
        return genotype.options

    def from_decisions(self, options):
        return Decisions(options)

    def format(self, genotype):
        return str(genotype.options.tolist())

    def canonical(self, genotype):
        return str(sorted(genotype.options.tolist()))


def entries(genotype):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(genotype)])


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def search(strategy, space, key, evaluations):
    """Returns the values of what was asked for, (evaluations,), and the last state.

    The value of a genotype is the share of its entries that are those of a hidden one.
    """
    hidden = entries(space.sample(jax.random.key(99)))

    def evaluate(state, number):
        genotypes, state = strategy.ask(jax.random.fold_in(key, number), state)
        values = jnp.mean(jax.vmap(entries)(genotypes) == hidden[None], axis=1)
        return strategy.tell(state, genotypes, values), values[0]

    state, values = jax.lax.scan(evaluate, strategy.init(key, space), jnp.arange(evaluations))
    return values, state


def reached(strategy, space, evaluations, seed=0):
    """Whether the hidden genotype was found."""
    values, state = search(strategy, space, jax.random.key(seed), evaluations)
    assert state.incumbent_value == np.max(values)
    return (strategy.best(state) == space.sample(jax.random.key(99))) and state.incumbent_value == 1
