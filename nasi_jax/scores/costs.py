"""Parameters, multiply-adds and memory access of the architectures of a space, counted without building each."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from nasi_jax.data import is_shared, shapes
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.scores.latency import Latency, LatencyMethod
from nasi_jax.scores.linear import LinearCost, by_differences, by_regression
from nasi_jax.spaces import SearchSpace

COUNTS = ("params", "flops", "memory")
COSTS = (*COUNTS, "latency_ms")
_FITTED = 64  # architectures to which costs are fitted where they are no sums


class Counter:
    """Counts the parameters, multiply-adds and memory access of the architectures of a space at one size.

    Where all are sums over edges of separate operations, as in NAS-Bench-201, the operations are measured once;
    elsewhere every derived network is traced, which takes up to seconds.
    """

    def __init__(self, space: SearchSpace, x: Any, size: Any, outputs: int, style: Style = Style()):
        """Measures nothing yet.

        Args:
            space: the search space.
            x: what the networks read for two examples, as arrays or `jax.ShapeDtypeStruct`; see `nasi_jax.data.shapes`.
            size: size of the networks, a `Size` of the space.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
        """
        self._space, self._x, self._arguments = space, x, (size, outputs, style)

    def __call__(self, genotype: Any) -> dict[str, float]:
        """Counts.

        Args:
            genotype: a concrete architecture.

        Returns:
            ``"params"``, the number of parameters; ``"flops"``, the multiply-adds of convolutions and products for one
            example, as benchmarks count them; and ``"memory"``, the numbers that these read and write for it: their
            inputs, their weights and their outputs. Where examples are parts of one graph, both are of the graph.
        """
        if not self._space.additive:
            return self._measured(genotype)
        weights = jax.tree.map(np.asarray, self._space.encode(genotype))
        return {name: float(cost.of(weights)) for name, cost in self.linear.items()}

    @functools.cached_property
    def linear(self) -> dict[str, LinearCost]:
        """The counts as sums over choices: exact in an additive space, fitted to random architectures in another."""
        counted: dict[str, dict[str, float]] = {}

        def count(name: str, genotype: Any) -> float:
            text = self._space.format(genotype)
            if text not in counted:
                counted[text] = self._measured(genotype)
            return counted[text][name]

        if self._space.additive:
            return {name: by_differences(self._space, functools.partial(count, name)) for name in COUNTS}
        genotypes = [self._space.sample(jax.random.key(i)) for i in range(_FITTED)]
        return {
            name: by_regression(self._space, genotypes, np.array([count(name, genotype) for genotype in genotypes]))
            for name in COUNTS
        }

    def _measured(self, genotype: Any) -> dict[str, float]:
        # every convolution is counted as it is written: apart from its neighbours, a separable one not as a dense one
        network = self._space.network(genotype, *self._arguments, Execution(blocks=True, fused=False))
        return counted(network, self._x)


def counted(module: nn.Module, *inputs: Any) -> dict[str, float]:
    """Counts parameters, multiply-adds and memory access of any module; see `Counter`.

    Args:
        module: the module.
        *inputs: what it is called with for two examples, the least that batch statistics take, as arrays or shapes.

    Returns:
        The counts by name.
    """
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    closed = jax.make_jaxpr(module.apply)(variables, *inputs)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get("params", {})))
    flops, moved, weights = (sum(counts) for counts in zip(*_products(closed.jaxpr), strict=True))
    # examples of a batch share their parameters; where they are parts of one graph, all is of the graph
    together = any(map(is_shared, jax.tree.leaves(inputs, is_leaf=is_shared)))
    examples = 1 if together else 2
    return {
        "params": float(params),
        "flops": float(flops // examples),
        "memory": float(moved // examples + weights),
    }


class Costs:
    """What architectures cost at the size at which they are trained in the end, on the inputs that suit the space."""

    def __init__(
        self,
        space: SearchSpace,
        outputs: int,
        *,
        x: Any = None,
        latency: LatencyMethod | None = None,
        file: pathlib.Path | None = None,
    ):
        """Measures nothing yet.

        Args:
            space: the search space.
            outputs: number of outputs.
            x: what the networks read for two examples, see `Counter`; the space's own random input when None.
            latency: how milliseconds are found, see `Latency`; None leaves them out.
            file: where measured times are kept.
        """
        self._space = space
        x, size = shapes(space.noise(outputs), 2).x if x is None else x, space.evaluation_size
        self._counter = Counter(space, x, size, outputs)
        self._latency = None if latency is None else Latency(space, x, size, outputs, method=latency, file=file)
        self._known: dict[str, dict[str, float]] = {}

    def __call__(self, genotype: Any) -> dict[str, float]:
        """Returns what `Counter` counts, and ``"latency_ms"`` where it is asked for."""
        text = self._space.format(genotype)
        if text not in self._known:
            found = self._counter(genotype)
            if self._latency is not None:
                found["latency_ms"] = self._latency(genotype)
            self._known[text] = found
        return self._known[text]

    def counted(self, genotype: Any) -> dict[str, float]:
        """Returns what `Counter` counts, of an architecture whose latency nobody asks for."""
        return self._known.get(self._space.format(genotype)) or self._counter(genotype)

    def linear(self, names: Iterable[str]) -> dict[str, LinearCost]:
        """Returns costs as sums over choices, for a search over relaxed architectures."""
        return {
            name: self._latency.linear if name == "latency_ms" and self._latency else self._counter.linear[name]
            for name in names
        }


def _products(jaxpr: Any) -> list[tuple[int, int, int]]:
    """Returns multiply-adds, elements read and written, and weights of the convolutions and products of a program."""
    found = [(0, 0, 0)]
    for equation in jaxpr.eqns:
        output = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name in ("dense_conv", "depthwise_conv", "conv_general_dilated", "dot_general"):
            read, kernel = (variable.aval.shape for variable in equation.invars[:2])
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                inner = math.prod(read[i] for i in contracted)
            else:
                layout = equation.params.get("dimension_numbers")
                inner = math.prod(kernel) // kernel[-1 if layout is None else layout.rhs_spec[0]]
            found.append((output * inner, math.prod(read) + output, math.prod(kernel)))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                found += _products(getattr(inner, "jaxpr", inner))
    return found


def _is_program(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
