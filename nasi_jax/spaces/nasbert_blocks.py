"""One program for all candidates of a block of NAS-BERT and a width."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.nn import Style
from nasi_jax.programs import switch
from nasi_jax.spaces.nasbert_network import HEADS, LAYERS, OPERATIONS, NASBERTOperation, NASBERTSize


@dataclasses.dataclass(frozen=True)
class NASBERTBlock:
    """All candidates of a block of one width: each layer has the weights of every operation, and one is computed.

    The operations are an input of the program, so that one compilation serves 19,530 candidates.

    Attributes:
        size: see `NASBERTSize`.
        port: the place of the width.
        style: see `nasi_jax.nn.Style`.
    """

    size: NASBERTSize
    port: int
    style: Style = Style()

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.size.widths[self.port]

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Draws the weights: for each operation its parameters with a leading axis of the layers."""
        states, mask = jnp.zeros((1, 2, self.width)), jnp.ones((1, 2), bool)
        keys = jax.random.split(key, (len(OPERATIONS), LAYERS))
        return {
            name: jax.vmap(lambda k, module=module: module.init(k, states, mask)["params"])(own)
            for name, module, own in zip(OPERATIONS, self._modules, keys, strict=True)
        }

    def __call__(self, params: dict[str, Any], states: jax.Array, mask: jax.Array, operations: jax.Array) -> jax.Array:
        """Computes one candidate.

        Args:
            params: from `init`.
            states: (batch, length, width).
            mask: (batch, length), which tokens are no padding.
            operations: (6,), as in a genotype.

        Returns:
            An array like `states`.
        """

        def layer(states: jax.Array, own: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
            return switch(own[0], self._branches, states, mask, own[1]), None

        return jax.lax.scan(layer, states, (operations, params))[0]

    def derived(self, params: dict[str, Any], operations: Any) -> list[dict[str, Any]]:
        """Returns the parameters of a concrete candidate's layers, in their order, as of `NASBERTOperation`."""
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], params[OPERATIONS[number - 1]])
            for i, number in enumerate(operations)
            if number
        ]

    @property
    def _modules(self) -> list[NASBERTOperation]:
        return [
            NASBERTOperation(name, HEADS[self.port], self.size.convolutions, self.style, parent=None)
            for name in OPERATIONS
        ]

    @functools.cached_property
    def _branches(self) -> tuple[Callable[..., jax.Array], ...]:
        """What each operation computes, the identity first."""

        def operation(name: str, module: nn.Module, states: jax.Array, mask: jax.Array, params: Any) -> jax.Array:
            return module.apply({"params": params[name]}, states, mask)  # type: ignore[return-value]

        named = zip(OPERATIONS, self._modules, strict=True)
        return (lambda states, *_: states, *(functools.partial(operation, name, module) for name, module in named))
