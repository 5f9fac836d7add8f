"""Parameters and multiply-adds of the architectures of a space, counted without building each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.spaces import SearchSpace, Weights


class Costs(NamedTuple):
    """A count that is a sum over edges.

    Attributes:
        base: that of the architecture whose edges all have the first operation.
        extra: what each operation adds in its place, a tree like the weights.
    """

    base: float
    extra: Weights

    def of(self, weights: Weights) -> jax.Array:
        """Returns the count of an architecture from its one-hot weights; may be jitted."""
        parts = jax.tree.map(lambda w, c: jnp.sum(w * c), weights, self.extra)
        return self.base + jax.tree.reduce(jnp.add, parts)


def count(space: SearchSpace, image_shape: tuple[int, ...], **size: Any) -> dict[str, Costs]:
    """Counts for all architectures of a space, from those that differ from the first in one edge.

    Operations of separate edges have separate parameters and convolutions, so that both counts are sums over edges.

    Args:
        space: the search space.
        image_shape: (height, width, colours).
        **size: attributes of the network.

    Returns:
        ``"params"``, the number of parameters, and ``"flops"``, the multiply-adds of convolutions and products for one
        image, as benchmarks count them.
    """
    zeros = jax.tree.map(lambda a: np.zeros(a.shape), space.alphas())

    def measured(choice: tuple[str, int, int] | None) -> tuple[int, int]:
        logits = jax.tree.map(np.copy, zeros)
        if choice is not None:
            logits[choice[0]][choice[1:]] = 1
        network = space.network(space.decode(logits), **size)
        # samples of a batch share their parameters, and two of them the least that batch statistics take
        x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
        variables = jax.eval_shape(network.init, jax.random.key(0), x)
        closed = jax.make_jaxpr(network.apply)(variables, x)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])), _products(closed.jaxpr) // 2

    base = measured(None)
    extra = [jax.tree.map(np.copy, zeros) for _ in base]
    for kind, values in zeros.items():
        for row, operation in np.ndindex(*values.shape):
            if operation:
                found = measured((kind, row, operation))
                for tree, value, first in zip(extra, found, base, strict=True):
                    tree[kind][row, operation] = value - first
    return {name: Costs(float(b), tree) for name, b, tree in zip(("params", "flops"), base, extra, strict=True)}


def _products(jaxpr: Any) -> int:
    """Counts the multiply-adds of the convolutions and matrix products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        output = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += output * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += output * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                total += _products(getattr(inner, "jaxpr", inner))
    return total


def _is_program(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
