"""Architectures judged by a short training."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data import Examples
from nasi_jax.programs import Execution, member, stack
from nasi_jax.scores.evaluator import FAILED
from nasi_jax.spaces import Network, SearchSpace
from nasi_jax.train.evaluation import evaluate
from nasi_jax.train.loop import iterate
from nasi_jax.train.recipes import Recipe, size


class TrainingEvaluator:
    """The accuracy of an architecture on held-out examples after a training; a `nasi_jax.scores.Evaluator`.

    All architectures train by one program, that of the one-shot network at their one-hot weights, or each by its own
    where the space has none, and from the same seed. One whose loss is not finite has no value.

    Attributes:
        names: names of the figures.
    """

    def __init__(self, space: SearchSpace, recipe: Recipe, training: Examples, held_out: Examples, seed: int):
        """Builds the network; nothing is compiled yet.

        Args:
            space: the search space.
            recipe: how it trains; without an auxiliary head and drop path, which a one-shot network has not.
            training: the training examples.
            held_out: those that it is judged on.
            seed: seed of parameters, order and changes.

        Raises:
            ValueError: the recipe asks for what the one-shot network does not have.
        """
        for name in ("auxiliary", "drop_path"):
            if getattr(recipe, name):
                raise ValueError(f"{name}: expected 0 for architectures that are compared, got {getattr(recipe, name)}")
        self.names = ("accuracy", "loss")
        self._space, self._recipe, self._training, self._held_out = space, recipe, training, held_out
        self._key = jax.random.key(seed)
        self._one_shot = self._network(None) if space.one_shot else None

    def _network(self, genotype: Any) -> Network:
        sizes = size(self._space, self._recipe)
        return self._space.network(genotype, sizes, self._training.outputs, execution=Execution("one-hot"))

    def stream(self, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Trains architectures one after the other; see `nasi_jax.scores.Evaluator`."""
        for genotype in genotypes:
            if self._one_shot is None:
                network, weights = self._network(genotype), None
            else:
                network, weights = self._one_shot, jax.tree.map(jnp.asarray, self._space.encode(genotype))
            several = None if weights is None else stack([weights])
            course = iterate(self._key[None], network, self._recipe, self._training, weights=several)
            try:
                (states,) = collections.deque(course, maxlen=1)
                found = evaluate(network, member(states, 0), self._held_out, weights)
                yield {"accuracy": found.accuracy, "loss": found.loss}
            except FloatingPointError as error:
                yield dict.fromkeys(self.names, math.nan) | {FAILED: str(error)}
