"""Selection by perturbation: of each row the choice whose removal costs most, instead of the largest logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import Batch, Halves
from nasi_jax.nn import RUNNING_STATISTICS
from nasi_jax.nn.style import RUNNING_SHARE
from nasi_jax.programs import Execution, NetworkProgram
from nasi_jax.spaces import IMPOSSIBLE, Alphas, SearchSpace, Weights

if TYPE_CHECKING:
    from nasi_jax.search.supernet import Supernet, SupernetState


def rows(space: SearchSpace) -> list[tuple[str, int]]:
    """Returns kind and number of every row of the logits."""
    return [(kind, row) for kind, values in sorted(space.alphas().items()) for row in range(len(values))]


def schedule(space: SearchSpace, start: int, end: int) -> list[int]:
    """Returns for each row, in the order of decision, how many steps are done when it is decided.

    Args:
        space: the search space.
        start: steps done when the first row is decided.
        end: steps of the whole search, the last ones of which train after the last decision.

    Returns:
        The numbers of steps.
    """
    count = len(rows(space))
    return [start + (end - start) * i // count for i in range(count)]


class Losses:
    """Validation losses of a one-shot network at any weights of its operations."""

    def __init__(self, strategy: Supernet[Any], space: SearchSpace, source: Halves, execution: Execution):
        """Draws and compiles nothing yet.

        Args:
            strategy: settings of the search.
            space: the search space.
            source: training and validation examples.
            execution: how the network runs.
        """
        self.strategy, self.space = strategy, space
        self._source, self._execution = source, execution

    def __call__(self, params: Any, weights: Weights, key: jax.Array) -> float:
        """Returns the mean loss of `perturbation_batches` validation batches.

        With `recalibration`, batch normalisation is by statistics of as many training batches at these weights.

        Args:
            params: weights of the network.
            weights: weights of the operations.
            key: typed random key, the same for all that are compared.

        Returns:
            The loss.
        """
        statics, strategy = (self.strategy, self.space, self._execution), self.strategy
        statistics = None
        keys = jax.random.split(key, strategy.perturbation_batches + strategy.recalibration)
        for i in range(strategy.recalibration):
            moments = _moments(self._execution, *statics, self._source, params, weights, keys[-1 - i])
            statistics = moments if statistics is None else jax.tree.map(jnp.add, statistics, moments)
        if statistics is not None:
            statistics = jax.tree.map(lambda leaf: leaf / strategy.recalibration, statistics)
        found = [
            float(_validation_loss(self._execution, *statics, self._source, params, weights, statistics, own))
            for own in keys[: strategy.perturbation_batches]
        ]
        return float(np.mean(found))


def decide(losses: Losses, state: SupernetState, start: int, key: jax.Array) -> SupernetState:
    """Decides the rows whose turn it is, and at the end of all steps how much each of them is worth.

    Args:
        losses: how weights of the operations are judged.
        state: state of the search.
        start: steps done when the first row is decided.
        key: typed random key.

    Returns:
        The state, whose logits leave a row that is decided a single choice. At the end the larger the loss without a
        row, the larger is its logit, by which a space such as DARTS' selects the edges that it keeps.
    """
    space, done, steps = losses.space, int(state.step), losses.strategy.steps
    everything, turns = rows(space), schedule(space, start, steps)
    # by the settings alone, so that the order is the same at each look
    order = np.random.default_rng(steps).permutation(len(everything))
    alphas = state.alphas
    for number, place in enumerate(order):
        if turns[number] == done:
            kind, row = everything[place]
            alphas = _decided(losses, state.params, alphas, kind, row, key)
    if done == steps:
        alphas = _ranked(losses, state.params, alphas, key)
    return state.replace(alphas=alphas)


def _decided(losses: Losses, params: Any, alphas: Alphas, kind: str, row: int, key: jax.Array) -> Alphas:
    """Returns logits that leave a row the choice whose removal costs most."""
    weights = {name: jax.nn.softmax(logits) for name, logits in alphas.items()}
    choices = np.flatnonzero(np.asarray(alphas[kind][row]) > IMPOSSIBLE / 2)
    costs = [losses(params, weights | {kind: weights[kind].at[row, k].set(0)}, key) for k in choices]
    best = choices[int(np.argmax(costs))]
    only = jnp.full_like(alphas[kind][row], IMPOSSIBLE).at[best].set(0)
    return alphas | {kind: alphas[kind].at[row].set(only)}


def _ranked(losses: Losses, params: Any, alphas: Alphas, key: jax.Array) -> Alphas:
    """Returns logits that are 0, or from 2 to 3 for the choices of the rows, the larger the more a row is worth."""
    weights = {name: jax.nn.softmax(logits) for name, logits in alphas.items()}
    everything = rows(losses.space)
    costs = [losses(params, weights | {kind: weights[kind].at[row].set(0)}, key) for kind, row in everything]
    ranked = {kind: jnp.where(logits > IMPOSSIBLE / 2, logits, 0) for kind, logits in losses.space.alphas().items()}
    possible = {kind: losses.space.alphas()[kind] for kind in ranked}
    for rank, place in enumerate(np.argsort(costs, kind="stable")):
        kind, row = everything[place]
        chosen = int(np.argmax(np.asarray(alphas[kind][row])))
        ranked[kind] = ranked[kind].at[row, chosen].set(2 + rank / len(everything))
    return {kind: jnp.where(possible[kind] > IMPOSSIBLE / 2, ranked[kind], IMPOSSIBLE) for kind in ranked}


def _loss(
    strategy: Supernet[Any],
    space: SearchSpace,
    execution: Execution,
    source: Halves,
    params: Any,
    weights: Weights,
    statistics: Any,
    key: jax.Array,
) -> jax.Array:
    batch: Batch = source.validation.batch(key, strategy.batch)
    variables = {"params": params} | ({} if statistics is None else {RUNNING_STATISTICS: statistics})
    outputs: Any = strategy.one_shot(space, source, execution).apply(variables, batch.x, weights)
    return jnp.mean(source.loss(outputs, batch.y))


def _batch_moments(
    strategy: Supernet[Any],
    space: SearchSpace,
    execution: Execution,
    source: Halves,
    params: Any,
    weights: Weights,
    key: jax.Array,
) -> Any:
    """Returns mean and variance of every channel before normalisation, over a training batch."""
    batch: Batch = source.training.batch(key, strategy.batch)
    module = strategy.one_shot(space, source, execution)
    _, updated = module.apply({"params": params}, batch.x, weights, mutable=[RUNNING_STATISTICS])

    def of_batch(moved: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # running statistics start at mean 0 and variance 1, and have moved a share of the way
        return moved[0] / RUNNING_SHARE, (moved[1] - (1 - RUNNING_SHARE)) / RUNNING_SHARE

    return jax.tree.map(of_batch, updated.get(RUNNING_STATISTICS, {}), is_leaf=lambda node: isinstance(node, tuple))


_validation_loss = NetworkProgram(_loss, 3)
_moments = NetworkProgram(_batch_moments, 3)
