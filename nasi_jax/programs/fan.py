"""One array for several readers, and the sum of several arrays: linear maps of which each is the other's transpose.

Equals: ``[x] * count`` (`fan_out`) and `sum` (`add`), with their derivatives.

Why: automatic differentiation adds what the readers of an array give back pair by pair, which outside of `jit` is a
program and a pass through memory for each of them.

Figure: with what else is listed there, a step of the search in the DARTS space takes 0.26 of PyTorch's time for 0.38
(benchmarks/README.md, "A step of the search in the DARTS space").

Delete when: networks need no longer run outside of one `jit` on a CPU, because XLA compiles large programs in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def fan_out(x: jax.Array, count: int) -> list[jax.Array]:
    """Returns an array `count` times, for as many readers, whose cotangents are added at once."""
    return _fan_out.bind(x, count=count)


def add(terms: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of arrays of one shape, at once."""
    return terms[0] if len(terms) == 1 else _add.bind(*terms)


def _repeated(x: Any, *, count: int) -> list[Any]:
    return [x] * count


def _total(*terms: jax.Array) -> jax.Array:
    return sum(terms[1:], terms[0])


def _moved(tangents: Sequence[Any]) -> list[Any]:
    return [tangent for tangent in tangents if not isinstance(tangent, ad.Zero)]


def _fan_out_derivative(primals: Any, tangents: Any, *, count: int) -> tuple[Any, Any]:
    return fan_out(primals[0], count), fan_out(tangents[0], count)


def _fan_out_transpose(cotangents: Sequence[Any], x: Any, *, count: int) -> list[Any]:
    moved = _moved(cotangents)
    return [add(moved) if moved else None]


def _add_derivative(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return add(primals), add(_moved(tangents))


def _add_transpose(cotangent: Any, *terms: Any) -> list[Any]:
    return [cotangent] * len(terms)


def _fan_out_batched(arguments: Any, axes: Any, *, count: int) -> tuple[Any, Any]:
    return fan_out(arguments[0], count), [axes[0]] * count


def _add_batched(arguments: Any, axes: Any) -> tuple[Any, Any]:
    return jax.vmap(_total, in_axes=axes)(*arguments), 0


_fan_out = Primitive("fan_out")
_fan_out.multiple_results = True
_fan_out.def_impl(_repeated)
_fan_out.def_abstract_eval(_repeated)
ad.primitive_jvps[_fan_out] = _fan_out_derivative
ad.primitive_transposes[_fan_out] = _fan_out_transpose
batching.primitive_batchers[_fan_out] = _fan_out_batched
mlir.register_lowering(_fan_out, mlir.lower_fun(_repeated, multiple_results=True))

_add = Primitive("add_n")
_add.def_impl(jax.jit(_total))
_add.def_abstract_eval(lambda *terms: ShapedArray(terms[0].shape, terms[0].dtype))
ad.primitive_jvps[_add] = _add_derivative
ad.primitive_transposes[_add] = _add_transpose
batching.primitive_batchers[_add] = _add_batched
mlir.register_lowering(_add, mlir.lower_fun(_total, multiple_results=False))
