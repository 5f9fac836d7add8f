"""The LSTM controller: a policy that takes its decisions one after the other, each knowing those before it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.search.reinforce import IMPOSSIBLE, Chooser, Reinforce, possible
from nasi_jax.spaces import SearchSpace
from nasi_jax.spaces.base import check_positive


@dataclasses.dataclass(frozen=True)
class LSTMController(Reinforce):
    """REINFORCE or PPO with an LSTM as the policy.

    The LSTM reads the option that it took last, or a start vector, and its output gives the next decision's logits,
    which are ``bound * tanh(logits / temperature)``. Decisions with equally many options share embeddings and output
    weights. All parameters are drawn uniformly from -0.1 to 0.1.

    The defaults learn within the few hundred evaluations that a table or a score at initialisation allows. ENAS has
    thousands, and is ``LSTMController(1e-3, samples=20, decay=0.99, hidden=32, layers=2, temperature=5.0)``; it adds
    the entropy to the value instead. Values should be of the order of 1, as accuracies in [0, 1] are, for `entropy` and
    `max_norm`.

    Attributes:
        hidden: width of each layer.
        layers: number of layers.
        temperature: what logits are divided by.
        bound: largest size of a logit, which keeps the policy exploring.

    References:
        Zoph and Le, "Neural architecture search with reinforcement learning", ICLR 2017; Pham, Guan, Zoph, Le and Dean,
        "Efficient neural architecture search via parameter sharing", ICML 2018.
    """

    learning_rate: float = 3.5e-3
    decay: float = 0.95
    entropy: float = 1e-4
    max_norm: float | None = 5.0
    hidden: int = 64
    layers: int = 1
    temperature: float = 1.0
    bound: float = 2.5

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        check_positive(self, hidden=1, layers=1)
        for name in ("temperature", "bound"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")

    def init_policy(self, key: jax.Array, space: SearchSpace) -> Any:
        """Returns the parameters of the LSTM, its embeddings and its output."""
        kinds, most, width = len(set(space.decisions)), max(space.decisions), self.hidden
        shapes = {
            "start": (width,),
            "embeddings": (kinds, most, width),
            "logits": (kinds, most, width),
            "layers": [{"kernel": (4 * width, 2 * width), "bias": (4 * width,)} for _ in range(self.layers)],
        }
        leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
        keys = jax.random.split(key, len(leaves))
        drawn = [jax.random.uniform(k, shape, minval=-0.1, maxval=0.1) for k, shape in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, drawn)

    def walk(self, policy: Any, space: SearchSpace, chooser: Chooser) -> tuple[jax.Array, jax.Array]:
        """Takes every decision in turn; see `Reinforce.walk`."""
        kinds = np.unique(space.decisions, return_inverse=True)[1]

        def decide(carry: tuple[jax.Array, Any], step: tuple[jax.Array, ...]) -> tuple[Any, tuple[jax.Array, ...]]:
            x, memory = carry
            row, kind, there = step
            cells = []
            for layer, (hidden, cell) in zip(policy["layers"], memory, strict=True):
                gates = layer["kernel"] @ jnp.concatenate([x, hidden]) + layer["bias"]
                enter, forget, new, leave = jnp.split(gates, 4)
                cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
                x = jax.nn.sigmoid(leave) * jnp.tanh(cell)
                cells.append((x, cell))
            logits = self.bound * jnp.tanh(policy["logits"][kind] @ x / self.temperature)
            log_probabilities = jax.nn.log_softmax(jnp.where(there, logits, IMPOSSIBLE))
            option = chooser(row, log_probabilities)
            return (policy["embeddings"][kind, option], cells), (option, log_probabilities)

        memory = [(jnp.zeros(self.hidden), jnp.zeros(self.hidden))] * self.layers
        steps = jnp.arange(len(kinds)), jnp.asarray(kinds), jnp.asarray(possible(space))
        _, (options, log_probabilities) = jax.lax.scan(decide, (policy["start"], memory), steps)
        return options, log_probabilities
