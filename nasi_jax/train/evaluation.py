"""What a trained network does on examples that it has not seen."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.data import Examples, cross_entropy
from nasi_jax.nn import RUNNING_STATISTICS
from nasi_jax.programs import jit_network
from nasi_jax.spaces import Weights
from nasi_jax.train.loop import TrainState

_MOST_OUTPUTS = 2**25  # numbers that a network hands out at once


class Evaluation(NamedTuple):
    """What a network does on examples.

    Attributes:
        accuracy: share of the examples whose largest logit is the label's; NaN where they have no labels but targets of
            a regression or words that are masked out.
        top_five: share of the examples whose label is among the five largest logits; likewise.
        loss: mean loss: of labels and words the cross-entropy, in nats, of targets the mean absolute error in their
            units.
        confusion: (classes, classes), counts of examples by label and by prediction; empty where they have no labels.
        count: number of examples.
    """

    accuracy: float
    top_five: float
    loss: float
    confusion: np.ndarray
    count: int

    @property
    def merit(self) -> float:
        """What is compared, higher being better: the accuracy, or of a regression minus the loss."""
        return -self.loss if np.isnan(self.accuracy) else self.accuracy


def evaluate(
    network: nn.Module, state: TrainState, examples: Examples, weights: Weights | None = None, batch: int = 500
) -> Evaluation:
    """Judges a network by the running statistics, and by the moving average of the parameters where there is one.

    Args:
        network: see `nasi_jax.train.init`.
        state: state of one training.
        examples: examples, normalised like those of the training.
        weights: see `nasi_jax.train.init`.
        batch: examples taken at once.

    Returns:
        Accuracies, loss and confusion matrix.
    """
    params = state.params if state.average is None else state.average
    variables = {"params": params, RUNNING_STATISTICS: state.statistics}
    confusion, sums = np.zeros(2 * (_classes(examples),), np.int64), np.zeros(2)
    batch = min(batch, len(examples), max(1, _MOST_OUTPUTS // examples.outputs))
    for x, y in examples.batches(batch):
        missing = batch - len(x)  # so that one program serves the last batch too
        x, y = (jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)) for a in (x, y))
        counts, added = _judge(network, variables, examples, x, y, batch - missing, weights)
        confusion += np.asarray(counts)
        sums += np.asarray(added)
    top_five, loss = sums / len(examples)
    accuracy = np.trace(confusion) / len(examples)
    if examples.loss is not cross_entropy:
        accuracy = top_five = np.nan
    return Evaluation(float(accuracy), float(top_five), float(loss), confusion, len(examples))


def _classes(examples: Examples) -> int:
    """Returns the number of labels that are told apart; none where there are no labels."""
    return examples.outputs if examples.loss is cross_entropy else 0


@functools.partial(jit_network, static_argnums=0)
def _judge(
    network: nn.Module,
    variables: Any,
    examples: Examples,
    x: jax.Array,
    y: jax.Array,
    count: jax.Array,
    weights: Weights | None,
) -> tuple[jax.Array, jax.Array]:
    """Counts labels and predictions of the first `count` examples, and sums (label among the best five, loss)."""
    outputs = network.apply(variables, examples.prepare(x), *(() if weights is None else (weights,)))
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    counted = jnp.arange(len(x)) < count
    losses = examples.loss(logits, y)
    counts = jnp.zeros(2 * (_classes(examples),), jnp.int32)
    better = jnp.zeros(len(x), jnp.int32)
    if examples.loss is cross_entropy:
        better = jnp.sum(logits > jnp.take_along_axis(logits, y[:, None], axis=1), axis=1)
        counts = counts.at[y, jnp.argmax(logits, axis=-1)].add(counted.astype(jnp.int32))
    return counts, jnp.sum(jnp.where(counted, jnp.stack([better < 5, losses]), 0), axis=1)
