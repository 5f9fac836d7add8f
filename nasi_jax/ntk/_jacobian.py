"""Rows of the Jacobian of a network, a part at a time, and their inner products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasi_jax.data.source import map_examples
from nasi_jax.ntk._layers import Product, Program, slopes_of
from nasi_jax.ntk._network import widened

_HIGHEST = jax.lax.Precision.HIGHEST


class Rows(NamedTuple):
    """Gradients of some outputs of some samples.

    Attributes:
        dense: of each parameter whose gradients are formed, (samples, outputs, entries).
        factors: of each product whose gradients are kept as two factors: what it reads, (samples, groups, positions,
            inputs), and derivatives by what it gives, (samples, outputs, groups, positions, outputs of the layer).
    """

    dense: list[jax.Array]
    factors: list[tuple[jax.Array, jax.Array]]


def keeps_factors(product: Product, form: str, outputs: int) -> bool:
    """Whether inner products of gradients take fewer operations by the two factors than by the gradients.

    Args:
        product: of one sample.
        form: "traced", "full" or "diagonal".
        outputs: number of outputs.

    Returns:
        Whether to keep the factors.
    """
    (groups, positions, inputs), slopes = product.inputs, product.slopes[2]
    pairs = outputs**2 if form == "full" else outputs
    by_factors = positions**2 * (inputs + pairs * slopes)
    # a diagonal is asked for once, and then it counts what the gradients cost
    by_gradients = pairs * inputs * slopes * (positions if form == "diagonal" else 1)
    return groups * by_factors <= groups * by_gradients


def rows_of(
    program: Program, reals: list[jax.Array], x: Any, form: str, coupled: bool
) -> Callable[[jax.Array, jax.Array], Rows]:
    """Returns the function that computes rows of a Jacobian.

    Args:
        program: the network; over one sample, or over all of them where they are coupled.
        reals: its parameters.
        x: inputs of all samples, a pytree of arrays (samples, ...).
        form: "traced", "full" or "diagonal", which decides what is kept as factors.
        coupled: whether outputs depend on the other samples.

    Returns:
        A function of the indices of samples and of outputs. Rows of outputs that do not exist are zero.
    """
    others = [reals[i] for i in program.others]
    outputs = program.outputs.shape[1]
    kept = [not coupled and keeps_factors(product, form, outputs) for product in program.products]

    def pullback_of(x: Any) -> tuple[Callable[[jax.Array], tuple[list[jax.Array], list[jax.Array]]], list[jax.Array]]:
        run = lambda others, added: program(reals, x, others, added)  # noqa: E731
        _, pullback, inputs = jax.vjp(run, others, program.zeros(), has_aux=True)
        return pullback, [widened(value) for value in inputs]

    def row(pullback: Any, inputs: list[jax.Array], cotangent: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        gradients, added = pullback(cotangent)
        dense, factors = [widened(leaf).ravel() for leaf in gradients], []
        for product, keep, read, result in zip(program.products, kept, inputs, added, strict=True):
            slopes = widened(slopes_of(product, result))
            if keep:
                factors.append(slopes)
            else:
                dense.append(jnp.einsum("gsd,gse->gde", read, slopes, precision=_HIGHEST).ravel())
        return dense, factors

    def seeds(columns: jax.Array) -> jax.Array:
        return jax.nn.one_hot(columns, outputs, dtype=program.outputs.dtype)

    if coupled:
        pullback, inputs = pullback_of(x)
        zero = jnp.zeros(program.outputs.shape, program.outputs.dtype)

        def of_batch(samples: jax.Array, columns: jax.Array) -> Rows:
            one = lambda i, seed: row(pullback, inputs, zero.at[i].set(seed))[0]  # noqa: E731
            dense = jax.vmap(lambda i: jax.vmap(lambda seed: one(i, seed))(seeds(columns)))(samples)
            return Rows(dense, [])

        return of_batch

    def of_sample(x: Any, columns: jax.Array) -> Rows:
        pullback, inputs = pullback_of(map_examples(lambda leaf: leaf[None], x))
        dense, slopes = jax.vmap(lambda seed: row(pullback, inputs, seed[None]))(seeds(columns))
        read = [value for value, keep in zip(inputs, kept, strict=True) if keep]
        return Rows(dense, list(zip(read, slopes, strict=True)))

    def of_samples(samples: jax.Array, columns: jax.Array) -> Rows:
        taken = map_examples(lambda leaf: leaf[samples], x)
        return jax.vmap(lambda i: of_sample(_sample(taken, i), columns))(jnp.arange(len(samples)))

    return of_samples


def _sample(x: Any, index: jax.Array) -> Any:
    return map_examples(lambda leaf: leaf[index], x)


def inner_products(form: str, first: Rows, second: Rows) -> jax.Array:
    """Returns what rows of some samples have in common with rows of others.

    Args:
        form: "traced", for the sum over equal outputs, (n1, n2); "full", for (n1, n2, outputs, outputs); or "diagonal",
            where `second` is `first`, for (n1, outputs).
        first: rows of n1 samples.
        second: rows of n2 samples.
    """
    parts = [_of_dense(form, *pair) for pair in zip(first.dense, second.dense, strict=True)]
    for factors1, factors2 in zip(first.factors, second.factors, strict=True):
        parts.append(_of_factors(form, *factors1, *factors2))
    return sum(parts[1:], parts[0])


def _of_dense(form: str, first: jax.Array, second: jax.Array) -> jax.Array:
    if form == "diagonal":
        return jnp.sum(first * second, axis=2)
    if form == "full":
        return jnp.einsum("ikp,jlp->ijkl", first, second, precision=_HIGHEST)
    rows = [leaf.reshape(len(leaf), leaf[0].size) for leaf in (first, second)]
    return jnp.matmul(rows[0], rows[1].T, precision=_HIGHEST)


def _of_factors(form: str, read1: jax.Array, slopes1: jax.Array, read2: jax.Array, slopes2: jax.Array) -> jax.Array:
    if read1.shape[1:3] == (1, 1):  # one position: a product of two numbers for each pair of samples
        pairs = _of_dense(form, slopes1[:, :, 0, 0], slopes2[:, :, 0, 0])
        common = _of_dense("diagonal" if form == "diagonal" else "traced", read1[:, 0], read2[:, 0])
        return pairs * (common[..., None, None] if form == "full" else common)
    if form == "diagonal":
        common = jnp.einsum("igsd,igtd->igst", read1, read2, precision=_HIGHEST)
        moved = jnp.einsum("igst,ikgte->ikgse", common, slopes2, precision=_HIGHEST)
        return jnp.sum(slopes1 * moved, axis=(2, 3, 4))
    common = jnp.einsum("igsd,jgtd->ijgst", read1, read2, precision=_HIGHEST)
    if form == "traced":
        pairs = jnp.einsum("ikgse,jkgte->ijgst", slopes1, slopes2, precision=_HIGHEST)
        return jnp.sum(common * pairs, axis=(2, 3, 4))
    moved = jnp.einsum("ijgst,jlgte->ijlgse", common, slopes2, precision=_HIGHEST)
    return jnp.einsum("ikgse,ijlgse->ijkl", slopes1, moved, precision=_HIGHEST)


def entries(program: Program, form: str, coupled: bool) -> tuple[int, int, int]:
    """Counts what rows are made of.

    Args:
        program: see `rows_of`.
        form: see `rows_of`.
        coupled: see `rows_of`.

    Returns:
        Entries of each gradient that is formed; of the first factors of a sample; and of the second of an output of it.
    """
    dense = sum(math.prod(program.closed.jaxpr.invars[i].aval.shape) for i in program.others)
    read = slopes = 0
    for product in program.products:
        if not coupled and keeps_factors(product, form, program.outputs.shape[1]):
            read, slopes = read + math.prod(product.inputs), slopes + math.prod(product.slopes)
        else:
            groups, _, inputs = product.inputs
            dense += groups * inputs * product.slopes[2]
    return dense, read, slopes
