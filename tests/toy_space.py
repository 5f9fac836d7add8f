"""A search space that compiles in a second: six edges in a row, five operations on vectors."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax import spaces
from nasi_jax.nn import Style
from nasi_jax.programs import Execution

OPERATIONS = ("none", "skip", "dense", "tanh", "normalise")


class ToyNetwork(spaces.Network):
    genotype: Any = None

    @nn.compact
    def __call__(self, x, weights=None):
        rows = jax.nn.one_hot(self.genotype.operations, len(OPERATIONS)) if weights is None else weights["cell"]
        h = jnp.tanh(nn.Dense(self.size.channels, param_dtype=x.dtype)(x.reshape(len(x), -1)))
        for row in rows:
            linear, squashed = (nn.Dense(self.size.channels, param_dtype=x.dtype)(h) for _ in range(2))
            normalised = jax.nn.standardize(h, axis=0, epsilon=1e-5)
            h = 0.3 * h + row[1] * h + row[2] * linear + row[3] * jnp.tanh(squashed) + row[4] * normalised
        return nn.Dense(self.outputs, param_dtype=x.dtype)(h)


@dataclasses.dataclass(frozen=True)
class ToySpace(spaces.NASBench201):
    """NAS-Bench-201's choices with `ToyNetwork` behind them."""

    name = "toy"

    search_size = spaces.NASBench201Size(2, 1)

    def network(self, genotype, size, outputs, style=Style(), execution=Execution()):
        return ToyNetwork(size, outputs, style, execution, genotype)
