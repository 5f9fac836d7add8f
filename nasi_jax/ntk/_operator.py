"""The NTK as a linear operator: its products with vectors and matrices, without the kernel."""

from __future__ import annotations

import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data.source import map_examples
from nasi_jax.ntk._coupling import is_coupled
from nasi_jax.ntk._memory import activations, free_memory, text
from nasi_jax.ntk._network import (
    ApplyFn,
    as_matrix,
    automatic,
    batch_length,
    check_like,
    check_positive,
    hashable,
    of_one,
    output_shape,
    over_reals,
)
from nasi_jax.ntk.probes import pushforward


@struct.dataclass
class Operator:
    """Products with the empirical NTK of a network, as a function of vectors; a pytree, made by `operator`.

    Attributes:
        params: pytree of parameters.
        x1: inputs of the rows, a pytree of arrays (n1, ...).
        x2: inputs of the columns, a pytree of arrays (n2, ...), or None for `x1`.
        apply_fn: the network.
        shape: rows and columns of the kernel: samples times outputs, the outputs of a sample one after the other.
        dtype: type of the products.
        at_once: numbers of samples of both that go through the network together, and of vectors.
    """

    params: Any
    x1: Any
    x2: Any
    apply_fn: ApplyFn = struct.field(pytree_node=False)
    shape: tuple[int, int] = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)
    at_once: tuple[int, int, int] = struct.field(pytree_node=False)

    @property
    def structure(self) -> jax.ShapeDtypeStruct:
        """Shape and type of a vector to multiply with."""
        return jax.ShapeDtypeStruct(self.shape[1:], self.dtype)

    def __call__(self, vector: jax.Array) -> jax.Array:
        """Multiplies; may be jitted, vmapped and differentiated.

        Args:
            vector: a vector (columns,) or a matrix (columns, m).

        Returns:
            The product, (rows,) or (rows, m).

        Raises:
            ValueError: the vector is of another shape.
            TypeError: it is no array.
        """
        try:
            vector = jnp.asarray(vector, self.dtype)
        except TypeError as error:
            got = f"{type(vector).__name__}; ntk.vector_product takes a pytree like the outputs"
            raise TypeError(f"vector: expected an array, got {got}") from error
        if vector.ndim not in {1, 2} or len(vector) != self.shape[1]:
            expected = f"({self.shape[1]},) or ({self.shape[1]}, m)"
            raise ValueError(f"vector: expected shape {expected}, got {vector.shape}")
        if vector.ndim == 2 and vector.shape[1] <= self.at_once[2]:
            return jax.vmap(self, in_axes=1, out_axes=1)(vector)
        if vector.ndim == 2:
            return jax.lax.map(self, vector.T, batch_size=self.at_once[2]).T
        network, reals, x1, x2 = over_reals(self.apply_fn, self.params, self.x1, self.x2)
        network = as_matrix(network)
        gradient = _pulled_back(network, reals, x1 if x2 is None else x2, vector, self.at_once[1])
        return _pushed_forward(network, reals, x1, gradient, self.at_once[0])


def operator(
    apply_fn: ApplyFn,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    batch_statistics: bool | None = None,
    memory: float | None = None,
) -> Operator:
    r"""Makes the operator that multiplies the empirical NTK with vectors, without forming it.

    .. math:: v \mapsto J(x_1) J(x_2)^\top v

    A product costs one vector-Jacobian and one Jacobian-vector product, in blocks of vectors, and of samples where
    these are independent, that fit into memory together. Solvers and matrix functions of other libraries take it:
    `lineax.FunctionLinearOperator(op, op.structure, lineax.positive_semidefinite_tag)`; in matfree, `op` is the
    `matvec`.

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, ...), see `ApplyFn`.
        params: pytree of parameters.
        x1: inputs, a pytree of arrays (n1, ...).
        x2: inputs, a pytree of arrays (n2, ...) like those of `x1`, or None for `x1`.
        batch_statistics: whether an output may depend on the other samples of its batch, see `kernel`.
        memory: bytes that a product may take beside parameters and inputs; by default half of what is free.

    Returns:
        The operator, of `shape` (n1 times outputs, n2 times outputs).

    Raises:
        ValueError: as `kernel`; of the memory it is a single vector that has to fit.
        TypeError: as `kernel`.
    """
    if memory is not None:
        check_positive("memory", memory, "a positive number of bytes")
    shapes = [output_shape(apply_fn, params, x1)]
    params, x1, x2 = automatic(params, x1, x2)
    if x2 is not None:
        batch_length("x2", x2)
        check_like("x2", of_one(x2), "one sample of x1", of_one(x1))
        shapes.append(output_shape(apply_fn, params, x2))
    coupled = is_coupled(apply_fn, params, x1, batch_statistics)
    memory = min(free_memory() / 2 if memory is None else memory, sys.maxsize)
    rows, columns = shapes[0], shapes[-1]
    largest = x1 if x2 is None or rows.shape[0] > columns.shape[0] else x2
    network, reals = over_reals(apply_fn, params)[:2]
    program = jax.make_jaxpr(network)(reals, largest if coupled else of_one(x1)).jaxpr
    at_once = _at_once(program, reals, coupled, int(memory), (rows.shape[0], columns.shape[0]))
    size = (math.prod(rows.shape), math.prod(columns.shape))
    return Operator(params, x1, x2, hashable(apply_fn), size, rows.dtype, at_once)


def _at_once(
    jaxpr: Any, reals: list[jax.Array], coupled: bool, memory: int, sizes: tuple[int, int]
) -> tuple[int, int, int]:
    """Chooses how many samples of both batches, and how many vectors, are taken together.

    Args:
        jaxpr: the network, over one sample, or over the larger batch where samples are coupled.
        reals: its parameters.
        coupled: whether outputs depend on the other samples.
        memory: bytes that a product may take.
        sizes: numbers of samples of both batches.

    Returns:
        Samples of the first batch, of the second, and vectors.

    Raises:
        ValueError: the memory does not suffice for a vector.
    """
    # forward and backward, and what they pass on; beside it the gradient, and the sum of gradients
    part, fixed = 3 * activations(jaxpr)[0], 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in reals)
    if part + fixed > memory:
        expected = f"at least {text(part + fixed)} for a vector and {'the batch' if coupled else 'one sample'}"
        raise ValueError(f"memory: expected {expected}, got {text(memory)}")
    samples = max(sizes) if coupled else min(max(sizes), (memory - fixed) // max(part, 1))
    vectors = memory // (fixed + (part if coupled else samples * part))
    return min(sizes[0], samples), min(sizes[1], samples), vectors


def _pulled_back(network: ApplyFn, reals: list[jax.Array], x: Any, vector: jax.Array, at_once: int) -> list[jax.Array]:
    """Multiplies the transposed Jacobian with a vector."""
    vector = vector.reshape(batch_length("x", x), -1)

    def part(x: Any, vector: jax.Array) -> list[jax.Array]:
        return jax.vjp(lambda p: network(p, x), reals)[1](vector)[0]

    if at_once >= len(vector):
        return part(x, vector)
    index = _in_turns(len(vector), at_once)
    there = index < len(vector)  # what fills the last turn counts nothing
    index = jnp.minimum(index, len(vector) - 1)

    def add(total: list[jax.Array], turn: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
        index, there = turn
        found = part(map_examples(lambda leaf: leaf[index], x), jnp.where(there[:, None], vector[index], 0))
        return jax.tree.map(jnp.add, total, found), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, reals), (index, there))[0]


def _pushed_forward(
    network: ApplyFn, reals: list[jax.Array], x: Any, gradient: list[jax.Array], at_once: int
) -> jax.Array:
    """Multiplies the Jacobian with a direction in the parameters."""
    count = batch_length("x", x)
    if at_once >= count:
        return pushforward(network, reals, x, gradient).ravel()

    def part(index: jax.Array) -> jax.Array:
        return pushforward(network, reals, map_examples(lambda leaf: leaf[index], x), gradient)

    found = jax.lax.map(part, jnp.minimum(_in_turns(count, at_once), count - 1))
    return found.reshape(-1, found.shape[-1])[:count].ravel()


def _in_turns(count: int, at_once: int) -> jax.Array:
    return jnp.arange(count + -count % at_once).reshape(-1, at_once)
