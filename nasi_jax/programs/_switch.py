"""A branch in a program whose gradient branches once, and needs nothing but what the branch was given.

Equals: `jax.lax.switch`, with all its derivatives.

Why: automatic differentiation lets the branch of a `jax.lax.switch` leave all that its gradient needs, and zeros for
what the gradients of the other branches would need; under `jax.checkpoint` the program branches twice for the
gradient. Both take time that grows with the number of branches, and compile for twice as long. Hence a primitive that
is linear in the last of its operands. Its derivative and its transpose are the same primitive, whose branches are the
derivatives and the transposes of those that it had.

Figure: one of four things that brought a score at full size from 1.5 of PyTorch's time to 0.82 (benchmarks/README.md).

Delete when: the gradient of `jax.lax.switch` under `jax.checkpoint` branches once and stores no zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Branch = Callable[..., list[jax.Array]]


def switch(index: jax.Array, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Calls one of several functions, as `jax.lax.switch` does; the gradient computes again what it needs of it.

    Args:
        index: () integer, which one.
        branches: functions of trees of arrays, which read no other arrays and return the same structure and shapes.
            They are kept, and traced once for all calls with operands of the same shapes.
        *operands: what they are called with.

    Returns:
        What that function returns.
    """
    leaves, structure = jax.tree.flatten(operands)
    results = _switch.bind(index, *leaves, branches=tuple(_flat(branch, structure) for branch in branches))
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(branches[0], *operands)), results)


@functools.cache
def _flat(branch: Callable[..., Any], structure: Any) -> Branch:
    return jax.jit(lambda *leaves: jax.tree.leaves(branch(*jax.tree.unflatten(structure, leaves))))


@functools.cache
def _derivative(branch: Branch, moved: tuple[int, ...]) -> Branch:
    """Returns the derivative of a branch, of its operands and then a tangent for each of those numbered `moved`."""

    def derivative(*arguments: jax.Array) -> list[jax.Array]:
        operands, tangents = arguments[: -len(moved)], arguments[-len(moved) :]

        def of_moved(*values: jax.Array) -> list[jax.Array]:
            at = dict(zip(moved, values, strict=True))
            return branch(*(at.get(i, operand) for i, operand in enumerate(operands)))

        return jax.jvp(of_moved, tuple(operands[i] for i in moved), tangents)[1]

    return jax.jit(derivative)


@functools.cache
def _transpose(branch: Branch, others: int, linear: tuple[ShapedArray, ...]) -> Branch:
    """Returns the transpose of a branch, of its first operands and cotangents in the place of the `linear` ones."""

    def transpose(*arguments: jax.Array) -> list[jax.Array]:
        of_linear = functools.partial(branch, *arguments[:others])
        return list(jax.linear_transpose(of_linear, *linear)(list(arguments[others:])))

    return jax.jit(transpose)


def _apply(index: jax.Array, *operands: jax.Array, branches: tuple[Branch, ...]) -> list[jax.Array]:
    return jax.lax.switch(index, branches, *operands)


def _shapes(index: ShapedArray, *operands: ShapedArray, branches: tuple[Branch, ...]) -> list[ShapedArray]:
    return [ShapedArray(found.shape, found.dtype) for found in jax.eval_shape(branches[0], *operands)]


def _differentiated(primals: Any, tangents: Any, *, branches: tuple[Branch, ...]) -> tuple[Any, Any]:
    moved = tuple(i for i, tangent in enumerate(tangents[1:]) if not isinstance(tangent, ad.Zero))
    directions = [tangents[1 + i] for i in moved]
    derivatives = tuple(_derivative(branch, moved) for branch in branches)
    return _switch.bind(*primals, branches=branches), _switch.bind(*primals, *directions, branches=derivatives)


def _transposed(cotangents: Any, index: Any, *operands: Any, branches: tuple[Branch, ...]) -> list[Any]:
    linear = tuple(operand.aval for operand in operands if ad.is_undefined_primal(operand))
    others = operands[: -len(linear)]
    transposes = tuple(_transpose(branch, len(others), linear) for branch in branches)
    found = _switch.bind(index, *others, *map(ad.instantiate_zeros, cotangents), branches=transposes)
    return [None] * (1 + len(others)) + found


def _batched(arguments: Any, axes: Any, *, branches: tuple[Branch, ...]) -> tuple[list[jax.Array], list[int]]:
    results = jax.vmap(functools.partial(_apply, branches=branches), in_axes=axes)(*arguments)
    return results, [0] * len(results)


_switch = Primitive("switch")
_switch.multiple_results = True
_switch.def_impl(jax.jit(_apply, static_argnames="branches"))
_switch.def_abstract_eval(_shapes)
ad.primitive_jvps[_switch] = _differentiated
ad.primitive_transposes[_switch] = _transposed
batching.primitive_batchers[_switch] = _batched
mlir.register_lowering(_switch, mlir.lower_fun(_apply, multiple_results=True))
