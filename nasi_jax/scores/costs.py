"""Parameters and multiply-adds of the architectures of a space, counted without building each."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.spaces import SearchSpace


class Costs(NamedTuple):
    """A count that is a sum over edges.

    Attributes:
        base: that of the architecture whose edges all have the first operation.
        extra: what each operation adds in its place, a tree like the weights.
    """

    base: float
    extra: dict[str, np.ndarray]

    def of(self, weights: dict[str, np.ndarray]) -> float:
        """Returns the count of an architecture from its one-hot weights."""
        return self.base + sum(float(np.sum(weights[kind] * extra)) for kind, extra in self.extra.items())


class Counter:
    """Counts the parameters and multiply-adds of the architectures of a space at one size.

    Where both are sums over edges of separate operations, as in NAS-Bench-201, the operations are measured once;
    elsewhere every derived network is traced, which takes up to seconds.
    """

    def __init__(self, space: SearchSpace, image_shape: tuple[int, ...], **size: Any):
        """Measures nothing yet.

        Args:
            space: the search space.
            image_shape: (height, width, colours).
            **size: attributes of the network.
        """
        self._space, self._image_shape, self._size = space, image_shape, size

    def __call__(self, genotype: Any) -> dict[str, float]:
        """Counts.

        Args:
            genotype: a concrete architecture.

        Returns:
            ``"params"``, the number of parameters, and ``"flops"``, the multiply-adds of convolutions and products for
            one image, as benchmarks count them.
        """
        if not self._space.additive:
            return self._measured(genotype)
        weights = jax.tree.map(np.asarray, self._space.encode(genotype))
        return {name: costs.of(weights) for name, costs in self._table.items()}

    @functools.cached_property
    def _table(self) -> dict[str, Costs]:
        """Measures the architectures that differ from the first in one edge."""
        zeros = jax.tree.map(lambda a: np.zeros(a.shape), self._space.alphas())
        base = self._measured(self._space.decode(zeros))
        extra = {name: jax.tree.map(np.copy, zeros) for name in base}
        for kind, values in zeros.items():
            for row, operation in np.ndindex(*values.shape):
                if operation:
                    logits = jax.tree.map(np.copy, zeros)
                    logits[kind][row, operation] = 1
                    found = self._measured(self._space.decode(logits))
                    for name, tree in extra.items():
                        tree[kind][row, operation] = found[name] - base[name]
        return {name: Costs(base[name], extra[name]) for name in base}

    def _measured(self, genotype: Any) -> dict[str, float]:
        network = self._space.network(genotype, **self._size)
        if hasattr(network, "fused"):
            network = network.clone(fused=False)
        # samples of a batch share their parameters, and two of them are the least that batch statistics take
        x = jax.ShapeDtypeStruct((2, *self._image_shape), jnp.float32)
        variables = jax.eval_shape(network.init, jax.random.key(0), x)
        closed = jax.make_jaxpr(network.apply)(variables, x)
        params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
        return {"params": float(params), "flops": float(_products(closed.jaxpr) // 2)}


def _products(jaxpr: Any) -> int:
    """Counts the multiply-adds of the convolutions and matrix products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        output = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name in ("dense_conv", "depthwise_conv", "conv_general_dilated"):
            layout, kernel = equation.params.get("dimension_numbers"), equation.invars[1].aval.shape
            total += output * math.prod(kernel) // kernel[-1 if layout is None else layout.rhs_spec[0]]
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += output * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                total += _products(getattr(inner, "jaxpr", inner))
    return total


def _is_program(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
