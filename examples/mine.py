"""A score and a strategy of one's own, for `nasi search --load mine.py --strategy climb --score contrast`."""

import dataclasses

import jax
import jax.numpy as jnp

from nasi_jax import scores, search


def contrast(candidate):
    """How differently a network answers different inputs."""
    outputs = candidate.apply_fn(candidate.params, candidate.x)
    return jnp.std(outputs, axis=0).mean() / jnp.abs(outputs).mean()


scores.SCORES["contrast"] = scores.Score(
    contrast,
    formula="spread of the outputs over the batch / their mean size",
    paper="",
    higher_is_better=True,
    labels=False,
)


@dataclasses.dataclass(frozen=True)
class Climb(search.Strategy[search.StrategyState]):
    """Mutates the best architecture so far, or draws a new one.

    Attributes:
        explore: probability that a new one is drawn.
    """

    explore: float = 0.1

    def init(self, key, space):
        """Starts with nothing told."""
        return search.StrategyState(**search.common(space))

    def ask(self, key, state, count=1):
        """Chooses `count` architectures, stacked along a leading axis."""

        def one(key):
            coin, draw, mutate = jax.random.split(key, 3)
            fresh = jax.random.bernoulli(coin, self.explore) | (state.told == 0)
            near = state.space.mutate(mutate, state.incumbent)
            return search.choose(fresh, state.space.sample(draw), near)

        return jax.vmap(one)(jax.random.split(key, count)), state

    def observe(self, state, genotype, value):
        """Remembers nothing beside the best one, which `tell` keeps."""
        return state


search.STRATEGIES["climb"] = Climb
search.VARIANTS["climb-greedy"] = Climb(explore=0.0)  # --strategy climb --preset greedy
