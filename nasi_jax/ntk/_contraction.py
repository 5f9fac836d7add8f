"""Empirical neural tangent kernels by contraction of Jacobians, in blocks of samples and outputs."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nasi_jax.data.source import map_examples
from nasi_jax.ntk._jacobian import Rows, inner_products, rows_of
from nasi_jax.ntk._layers import Program, program_of
from nasi_jax.ntk._memory import UNROLLED, Blocks, blocks_of
from nasi_jax.ntk._network import ApplyFn, as_matrix, batch_length, over_reals, shared_out
from nasi_jax.programs import is_traced


class Task(NamedTuple):
    """What is computed; equal for equal ones, so that programs are compiled once.

    Attributes:
        apply_fn: the network.
        output: index of the output among the leaves of what the network returns; None for all as one.
        form: "traced", "full", "diagonal" or "summed", see `KernelForm`.
        coupled: whether an output depends on the other samples of its batch.
        mesh: devices among which the samples of the first batch are divided.
    """

    apply_fn: ApplyFn
    output: int | None
    form: str
    coupled: bool
    mesh: Mesh | None

    @property
    def products(self) -> str:
        """Form of the inner products."""
        return "traced" if self.form == "summed" else self.form

    def network(self, params: Any, *batch: Any) -> tuple[Any, ...]:
        """Returns the network over real parameters, with outputs (batch, outputs), these, and the inputs."""
        network, reals, *rest = over_reals(self.apply_fn, params, *batch)
        some = slice(None) if self.output is None else self.output
        one = as_matrix(lambda p, x: jax.tree.leaves(network(p, x))[some])
        summed = lambda p, x: jnp.sum(one(p, x), axis=1, keepdims=True)  # noqa: E731
        return summed if self.form == "summed" else one, reals, *rest

    def program(self, network: ApplyFn, reals: list[jax.Array], x: Any) -> Program:
        """Returns the network over one sample, or over the batch where samples are coupled."""
        example = x if self.coupled else jax.eval_shape(lambda x: map_examples(lambda leaf: leaf[:1], x), x)
        return program_of(network, reals, example)


def contraction(task: Task, params: Any, x1: Any, x2: Any, memory: float) -> jax.Array:
    """Computes a kernel in blocks.

    Args:
        task: what is computed.
        params: pytree of parameters.
        x1: inputs, a pytree of arrays (n1, ...).
        x2: inputs, a pytree of arrays (n2, ...), or None for `x1`.
        memory: bytes that each device may take beside parameters and inputs.

    Returns:
        The kernel, of the shape that the form says; the diagonal (n1, outputs).

    Raises:
        ValueError: the memory does not suffice.
    """
    n1 = batch_length("x1", x1)
    n2 = n1 if x2 is None else batch_length("x2", x2)
    devices = 1 if task.mesh is None else task.mesh.size
    program = task.program(*task.network(params, x1))
    blocks = blocks_of(program, task.products, task.coupled, n1, n2, devices, memory)
    outputs = program.outputs.shape[1]
    columns = np.arange(outputs + -outputs % blocks.outputs, dtype=np.int32).reshape(-1, blocks.outputs)
    size = blocks.held * devices
    samples = np.minimum(np.arange(n1 + -n1 % size, dtype=np.int32), n1 - 1).reshape(-1, size)

    def stripe(samples: Any) -> jax.Array:
        part = lambda some: _stripe(task, blocks, params, x1, x2, samples, some)  # noqa: E731
        if len(columns) == 1:
            return part(columns[0])
        if task.form in {"full", "diagonal"}:
            axis = 2 if task.form == "full" else 1
            found = jnp.stack([part(some) for some in columns]) if loops_here else jax.lax.map(part, columns)
            found = jnp.moveaxis(found, 0, axis)
            found = found.reshape(*found.shape[:axis], -1, *found.shape[axis + 2 :])
            return jax.lax.slice_in_dim(found, 0, outputs, axis=axis)
        if loops_here or len(columns) <= UNROLLED:
            total = part(columns[0])
            for some in columns[1:]:
                total = total + part(some if loops_here else _after(jnp.asarray(some), total))
            return total
        zero = jax.eval_shape(part, columns[0])
        add = lambda total, some: (total + part(some), None)  # noqa: E731
        return jax.lax.scan(add, jnp.zeros(zero.shape, zero.dtype), columns)[0]

    loops_here = not is_traced((params, x1, x2))
    if len(samples) == 1:
        return stripe(samples[0])[:n1]
    if loops_here:
        return jnp.concatenate([stripe(some) for some in samples])[:n1]
    found = jax.lax.map(stripe, samples)
    return found.reshape(samples.size, *found.shape[2:])[:n1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _stripe(
    task: Task, blocks: Blocks, params: Any, x1: Any, x2: Any, samples: jax.Array, columns: jax.Array
) -> jax.Array:
    """Computes the kernel of some samples and outputs with all of the others."""

    def compute(params: Any, x1: Any, x2: Any, columns: jax.Array, samples: jax.Array) -> jax.Array:
        network, reals, x1, x2 = task.network(params, x1, x2)
        program = task.program(network, reals, x1)
        rows = rows_of(program, reals, x1, task.products, task.coupled)
        held = _held(rows, samples, columns, blocks.at_once)
        if task.form == "diagonal":
            return inner_products("diagonal", held, held)
        n2 = batch_length("x", x1 if x2 is None else x2)
        count = -(-n2 // blocks.at_once)
        others = jnp.minimum(jnp.arange(count * blocks.at_once), n2 - 1).reshape(count, -1)
        whole = x2 is None and task.mesh is None and len(samples) >= n2
        whole = whole and (task.form != "full" or len(columns) == program.outputs.shape[1])
        if whole and (count == 1 or not held.factors):
            return inner_products(task.products, held, held)[:, :n2]
        dense = 0.0
        if whole:
            cut = lambda leaf, others: jax.lax.dynamic_slice_in_dim(leaf, others[0], blocks.at_once)  # noqa: E731
            kept = held._replace(dense=[])
            rows = lambda others, _: jax.tree.map(lambda leaf: cut(leaf, others), kept)  # noqa: E731
            if held.dense:  # in one product, for which nothing more is stored
                dense = inner_products(task.products, held._replace(factors=[]), held._replace(factors=[]))[:, :n2]
            held = kept
        elif x2 is not None:
            program = task.program(network, reals, x2) if task.coupled else program
            rows = rows_of(program, reals, x2, task.products, task.coupled)
        if task.form != "full":
            found = _map(lambda some: inner_products("traced", held, rows(some, columns)), others)
            return dense + jnp.moveaxis(found, 0, 1).reshape(len(samples), -1)[:, :n2]
        outputs = program.outputs.shape[1]
        blocked = jnp.arange(outputs + -outputs % blocks.outputs).reshape(-1, blocks.outputs)
        found = _map(lambda i: _map(lambda k: inner_products("full", held, rows(i, k)), blocked), others)
        # (samples of the second, outputs of the second, samples, samples, outputs, outputs)
        found = jnp.transpose(found, (2, 0, 3, 4, 1, 5))
        n1, k1 = len(samples), len(columns)
        return dense + found.reshape(n1, others.size, k1, blocked.size)[:, :n2, :, :outputs]

    return shared_out(compute, task.mesh)(params, x1, x2, columns, samples)


def _held(rows: Any, samples: jax.Array, columns: jax.Array, at_once: int) -> Rows:
    found = _map(lambda some: rows(some, columns), samples.reshape(-1, at_once))
    return jax.tree.map(lambda leaf: leaf.reshape(len(samples), *leaf.shape[2:]), found)


def _map(function: Any, items: jax.Array) -> Any:
    """Maps over a leading axis, in turn, without a loop where there are few items."""
    if len(items) > UNROLLED:
        return jax.lax.map(function, items)
    found: Any = None
    results: Any = None
    for i, item in enumerate(items):
        item = item if i == 0 else _after(item, found)
        found = function(item)
        if i == 0:
            results = jax.tree.map(lambda leaf: jnp.zeros((len(items), *leaf.shape), leaf.dtype), found)
        # in the place where it stays
        put = lambda whole, leaf, i=i: jax.lax.dynamic_update_index_in_dim(whole, leaf, i, 0)  # noqa: E731
        results = jax.tree.map(put, results, found)
    return results


def _after(item: jax.Array, found: Any) -> jax.Array:
    """Returns an item that is known after results, whose memory then is used again.

    A barrier would say so, but XLA drops barriers on a CPU before it decides on an order.
    """
    first = functools.reduce(jnp.add, [leaf.ravel()[0] for leaf in jax.tree.leaves(found)])
    never = (first == first) & (first != first)
    return jnp.where(never, 0, item)
