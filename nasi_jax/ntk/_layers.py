"""Where a network multiplies with its parameters, so that the gradients by these need not be formed.

The gradient of an output by the weights of a matrix product or a convolution is itself a product: of what the layer
reads, a row for each position, and of the derivative of the output by what the layer gives, a row for each position. A
parameter that is read once, by such a product, is found in the equations of a network, which is then evaluated with a
zero added to the result of the product: the derivative by that zero is the second factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp

from nasi_jax.ntk._network import ApplyFn

# what only moves the entries of a parameter, which inner products of gradients do not see
_MOVES = {"convert_element_type", "expand_dims", "reshape", "rev", "squeeze", "transpose"}
_CALLS = {"jit", "pjit"}
_PRODUCTS = {"conv_general_dilated", "dot_general"}


class Product(NamedTuple):
    """An equation that multiplies with a parameter.

    Attributes:
        parameter: index of it.
        order: number of products that are evaluated before.
        equation: the equation.
        side: which of its operands comes from the parameter.
        inputs: shape (groups, positions, inputs) of what is multiplied with the parameter.
        slopes: shape (groups, positions, outputs) of the derivative by the result.
    """

    parameter: int
    order: int
    equation: Any
    side: int
    inputs: tuple[int, int, int]
    slopes: tuple[int, int, int]


class Program(NamedTuple):
    """A network as equations.

    Attributes:
        closed: the equations, of all leaves of parameters and inputs.
        products: one for each parameter that is read by a single product alone.
        others: indices of the other parameters.
        outputs: shape and type of the outputs.
    """

    closed: Any
    products: tuple[Product, ...]
    others: tuple[int, ...]
    outputs: jax.ShapeDtypeStruct

    def zeros(self) -> list[jax.Array]:
        """Returns what is added to the results of the products."""
        avals = [product.equation.outvars[0].aval for product in self.products]
        return [jnp.zeros(aval.shape, aval.dtype) for aval in avals]

    def __call__(
        self, reals: list[jax.Array], x: Any, others: list[jax.Array], added: list[jax.Array]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Evaluates the network.

        Args:
            reals: all parameters.
            x: inputs, a pytree of arrays.
            others: the values of those of `others`, by which one may differentiate.
            added: to the results of the products, like `zeros`.

        Returns:
            The outputs, and of each product what is multiplied with the parameter, (groups, positions, inputs).
        """
        reals = list(reals)
        for index, value in zip(self.others, others, strict=True):
            reals[index] = value
        found: dict[int, jax.Array] = {}
        order = itertools.count()

        def product(equation: Any, values: list[Any]) -> list[Any]:
            results, number = _results(equation, values, self.closed.jaxpr.debug_info), next(order)
            for product, zero in zip(self.products, added, strict=True):
                if product.order == number:
                    found[number] = _inputs(product.equation, product.side, values[1 - product.side])
                    return [results[0] + zero]
            return results

        outputs = _evaluate(self.closed.jaxpr, self.closed.consts, jax.tree.leaves((reals, x)), product)
        return outputs[0], [found[product.order] for product in self.products]


def program_of(network: ApplyFn, reals: list[jax.Array], x: Any) -> Program:
    """Writes a network as equations and finds its products.

    Args:
        network: a network over real parameters with outputs (batch, outputs).
        reals: its parameters.
        x: inputs, a pytree of arrays (batch, ...), or of their shapes.

    Returns:
        The program.
    """
    closed, outputs = jax.make_jaxpr(network, return_shape=True)(reals, x)
    read = _Reads()
    labels = [i if i < len(reals) else None for i in range(len(closed.jaxpr.invars))]
    read.forget(read.follow(closed.jaxpr, labels))
    found = [(i, *read.products[i][0]) for i in range(len(reals)) if i not in read.other and len(read.products[i]) == 1]
    products = []
    for parameter, order, equation, side in found:
        other, result = equation.invars[1 - side].aval, equation.outvars[0].aval
        shapes = (
            jax.eval_shape(lambda a, e=equation, s=side: _inputs(e, s, a), other).shape,
            jax.eval_shape(lambda a, e=equation, s=side: _slopes(e, s, a), result).shape,
        )
        products.append(Product(parameter, order, equation, side, *shapes))
    taken = {product.parameter for product in products}
    return Program(closed, tuple(products), tuple(i for i in range(len(reals)) if i not in taken), outputs)


def slopes_of(product: Product, result: jax.Array) -> jax.Array:
    """Returns the derivative by the result of a product as (groups, positions, outputs)."""
    return _slopes(product.equation, product.side, result)


def inner_jaxprs(equation: Any) -> list[Any]:
    """Returns the equations within an equation, such as a loop, a branch or a derivative of its own."""
    parts = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns"))
    inner = [getattr(part, "jaxpr", part) for part in parts]
    return [part for part in inner if hasattr(part, "eqns")]


class _Reads:
    """Follows parameters through equations to where they are read."""

    def __init__(self) -> None:
        self.products: dict[int, list[tuple[int, Any, int]]] = _Lists()
        self.other: set[int] = set()
        self.order = itertools.count()

    def forget(self, labels: list[int | None]) -> None:
        self.other.update(label for label in labels if label is not None)

    def follow(self, jaxpr: Any, labels: list[int | None]) -> list[int | None]:
        known = dict(zip(jaxpr.invars, labels, strict=True))

        def label(variable: Any) -> int | None:
            return None if isinstance(variable, jax.extend.core.Literal) else known.get(variable)

        for equation in jaxpr.eqns:
            name, read = equation.primitive.name, [label(v) for v in equation.invars]
            results: list[int | None] = [None] * len(equation.outvars)
            if name in _CALLS:
                results = self.follow(equation.params["jaxpr"].jaxpr, read)
            elif name in _PRODUCTS:
                order = next(self.order)
                sides = [side for side, parameter in enumerate(read) if parameter is not None]
                if len(sides) == 1 and _is_simple(equation, sides[0]):
                    self.products[read[sides[0]] or 0].append((order, equation, sides[0]))
                else:
                    self.forget(read)
            elif name in _MOVES and len(read) == 1 and _is_floating(equation.outvars[0]):
                results = read
            else:
                self.forget(read)
            known.update(zip(equation.outvars, results, strict=True))
        return [label(v) for v in jaxpr.outvars]


class _Lists(dict):
    def __missing__(self, key: int) -> list[Any]:
        return self.setdefault(key, [])


def _is_floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def _is_simple(equation: Any, side: int) -> bool:
    if not _is_floating(equation.outvars[0]):
        return False
    return equation.primitive.name == "dot_general" or (side == 1 and equation.params["batch_group_count"] == 1)


def _results(equation: Any, values: list[Any], debug_info: Any) -> list[Any]:
    """Evaluates an equation."""
    if not inner_jaxprs(equation):
        results = equation.primitive.bind(*values, **equation.params)
        return list(results) if equation.primitive.multiple_results else [results]
    # loops, branches and derivatives of their own are not bound as they are written
    pairs = zip(equation.invars, values, strict=True)
    given = {variable: value for variable, value in pairs if not isinstance(variable, jax.extend.core.Literal)}
    debug = debug_info._replace(arg_names=None, result_paths=None)
    alone = jax.extend.core.Jaxpr((), list(given), equation.outvars, [equation], equation.effects, debug_info=debug)
    return jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(alone, ()))(*given.values())


def _evaluate(
    jaxpr: Any, constants: Any, arguments: Any, product: Callable[[Any, list[Any]], list[Any]]
) -> list[jax.Array]:
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jax.extend.core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        values = [read(v) for v in equation.invars]
        if equation.primitive.name in _CALLS:
            inner = equation.params["jaxpr"]
            results = _evaluate(inner.jaxpr, inner.consts, values, product)
        elif equation.primitive.name in _PRODUCTS:
            results = product(equation, values)
        else:
            results = _results(equation, values, jaxpr.debug_info)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _inputs(equation: Any, side: int, other: jax.Array) -> jax.Array:
    """Returns the operand that is not the parameter as (groups, positions, inputs)."""
    if equation.primitive.name == "conv_general_dilated":
        return _patches(equation, other)
    contracted, batch = (axes[1 - side] for axes in equation.params["dimension_numbers"])
    free = [i for i in range(other.ndim) if i not in {*contracted, *batch}]
    sizes = [math.prod(other.shape[i] for i in axes) for axes in (batch, free, contracted)]
    return jnp.transpose(other, [*batch, *free, *contracted]).reshape(sizes)


def _slopes(equation: Any, side: int, result: jax.Array) -> jax.Array:
    """Returns an array like the result as (groups, positions, outputs)."""
    if equation.primitive.name == "conv_general_dilated":
        groups, spec = equation.params["feature_group_count"], equation.params["dimension_numbers"].out_spec
        moved = jnp.transpose(result, (spec[0], *spec[2:], spec[1]))
        return jnp.moveaxis(moved.reshape(-1, groups, moved.shape[-1] // groups), 1, 0)
    contracted, batch = equation.params["dimension_numbers"]
    other = equation.invars[1 - side].aval
    positions = other.ndim - len(contracted[0]) - len(batch[0])
    groups, rest = result.shape[: len(batch[0])], result.shape[len(batch[0]) :]
    split = positions if side == 1 else len(rest) - positions
    first, second = math.prod(rest[:split]), math.prod(rest[split:])
    moved = result.reshape(math.prod(groups), first, second)
    return moved if side == 1 else jnp.swapaxes(moved, 1, 2)


def _patches(equation: Any, images: jax.Array) -> jax.Array:
    """Returns what a convolution multiplies with its kernel, (groups, positions, kernel size times channels)."""
    params = equation.params
    spec, groups = params["dimension_numbers"], params["feature_group_count"]
    kernel = [equation.invars[1].aval.shape[i] for i in spec.rhs_spec[2:]]
    sizes = [equation.outvars[0].aval.shape[i] for i in spec.out_spec[2:]]
    images = jnp.transpose(images, (spec.lhs_spec[0], *spec.lhs_spec[2:], spec.lhs_spec[1]))
    inner = [(*ends, dilation - 1) for ends, dilation in zip(params["padding"], params["lhs_dilation"], strict=True)]
    images = jax.lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    shifted = []
    for offset in itertools.product(*map(range, kernel)):
        start = [o * dilation for o, dilation in zip(offset, params["rhs_dilation"], strict=True)]
        strides = params["window_strides"]
        limit = [a + (size - 1) * stride + 1 for a, size, stride in zip(start, sizes, strides, strict=True)]
        ends = (len(images), *limit, images.shape[-1])
        shifted.append(jax.lax.slice(images, (0, *start, 0), ends, (1, *strides, 1)))
    stacked = jnp.stack(shifted, axis=-2)
    stacked = stacked.reshape(-1, len(shifted), groups, stacked.shape[-1] // groups)
    return jnp.moveaxis(stacked, 2, 0).reshape(groups, stacked.shape[0], -1)
