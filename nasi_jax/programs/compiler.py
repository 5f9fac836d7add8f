"""How programs of networks are compiled: with what XLA is asked for, or as a sequence of small ones.

Equals: `jax.jit` (`jit_network`), and the function itself (`run_by_programs`).

Why: from 32 channels on XLA hands convolutions to YNNPACK, which takes up to twice as long for them on a CPU with AVX2
as Eigen. And one program for a step of the search in the DARTS space was still compiling after five minutes, where its
parts, each compiled once, take 34 steps of it.

Figure: benchmarks/README.md, scores at full size and the step of the search.

Delete when: YNNPACK's convolutions are as fast as Eigen's, and XLA compiles a program of 40,000 lines in seconds.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from nasi_jax.programs.execution import Execution

R = TypeVar("R")

_TOGETHER = 16
_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def jit_network(function: Callable[..., R], **options: Any) -> Callable[..., R]:
    """Compiles as `jax.jit`, on a CPU with convolutions by Eigen.

    From 32 channels on XLA hands convolutions to YNNPACK, which takes up to twice as long for them on a CPU with AVX2.

    Args:
        function: what is compiled as a program of its own; it cannot be called in another `jax.jit`.
        **options: other arguments of `jax.jit`.

    Returns:
        The compiled function.
    """

    @functools.cache
    def compiled() -> Callable[..., R]:
        return jax.jit(function, compiler_options=compiler_options(), **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        # the backend is unknown before the first call
        return compiled()(*args, **kwargs)

    return call


def run_by_programs(function: Callable[..., R]) -> Callable[..., R]:
    """Traces a function at its first call, and runs what it was traced to as a sequence of programs.

    Every function under `jax.jit` that it calls is a program. Those that are alike share one, so that it compiles in a
    fraction of the time of one program for all; its Python, and automatic differentiation in it, run once. What its
    results do not depend on is left out.

    Args:
        function: what is traced; called with arguments of the same shapes each time.

    Returns:
        The function that runs the programs.
    """

    @functools.cache
    def traced(structure: Any, *shapes: Any) -> tuple[Callable[..., list[Any]], Any]:
        jaxpr, results = jax.make_jaxpr(function, return_shape=True)(*jax.tree.unflatten(structure, shapes))
        return jaxpr_as_fun(_without_idle(jaxpr)), jax.tree.structure(results)

    def call(*arguments: Any) -> R:
        leaves, structure = jax.tree.flatten(arguments)
        run, results = traced(structure, *map(jax.typeof, leaves))
        return jax.tree.unflatten(results, run(*leaves))

    return call


def in_groups(function: Callable[..., list[Any]], *trees: Any) -> list[Any]:
    """Applies a function to the leaves of trees, those of equal shape together and a few at a time.

    Outside of `jit`, where the function is under it, each kind of group is a program. For the weights of the DARTS
    space one program for all takes 14 seconds to compile and 0.3 GB, and one for each array four times as long to run.

    Args:
        function: of a list of leaves of each tree, returns a list for them.
        *trees: of one structure.

    Returns:
        What the function gave for each leaf, in their order.
    """
    leaves = [jax.tree.leaves(tree) for tree in trees]
    places: dict[tuple[int, ...], list[int]] = {}
    for i, leaf in enumerate(leaves[0]):
        places.setdefault(leaf.shape, []).append(i)
    results: list[Any] = [None] * len(leaves[0])
    for found in places.values():
        for start in range(0, len(found), _TOGETHER):
            group = found[start : start + _TOGETHER]
            of_group = function(*([part[i] for i in group] for part in leaves))
            for i, result in zip(group, of_group, strict=True):
                results[i] = result
    return results


def _without_idle(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Returns the equations on which results depend."""
    jaxpr, kept = closed.jaxpr, []
    needed = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in needed for variable in equation.outvars):
            kept.append(equation)
            needed.update(id(variable) for variable in equation.invars)
    return closed.replace(jaxpr=jaxpr.replace(eqns=kept[::-1]))


class NetworkProgram:
    """A function of a network, as one program or as a sequence of them: as `nasi_jax.programs.Execution` says."""

    def __init__(self, function: Callable[..., Any], statics: int, **options: Any):
        """Compiles nothing yet.

        Args:
            function: pure, called as ``function(*statics, *arguments)``.
            statics: number of its first arguments, hashable, for each of which it is compiled.
            **options: other arguments of `jax.jit`, of no use where it runs as a sequence.
        """
        self._statics = statics
        self._compiled = jit_network(function, static_argnums=tuple(range(statics)), **options)
        self._by_programs = functools.lru_cache(lambda *first: run_by_programs(functools.partial(function, *first)))

    def __call__(self, execution: Execution, *arguments: Any) -> Any:
        """Calls the function with its statics and arguments; it runs as a sequence where `execution` says blocks."""
        if not execution.blocks:
            return self._compiled(*arguments)
        first, rest = arguments[: self._statics], arguments[self._statics :]
        return self._by_programs(*first)(*rest)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Returns the options of `jit_network`, or None where there are none.

    There are none on other devices than CPUs, for a version of XLA that does not know them, and where the user's
    XLA_FLAGS say which library is to be used. Products are handed over one by one, as XLA does by itself: those that
    are fused with what they read come out wrong where that is a constant.
    """
    if jax.default_backend() != "cpu" or _LIBRARY in os.environ.get("XLA_FLAGS", ""):
        return None
    options: dict[str, Any] = {_LIBRARY: _WITHOUT_CONVOLUTIONS}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return None
    return options
