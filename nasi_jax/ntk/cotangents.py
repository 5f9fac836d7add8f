"""The cotangents of which each trace estimate is made, and how their squared norms add up to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.ntk._network import as_outputs, batch_length, check_count

TraceMethod = Literal[
    "exact",
    "neural-tangents",
    "hutchinson",
    "hadamard",
    "hutch++",
    "xtrace",
    "xnystrace",
    "per-sample",
    "per-batch",
    "one-batch",
]
"""How a trace is computed.

Exactly: ``"exact"`` takes one vector-Jacobian product for each output of each sample, in chunks, so that memory does
not grow with the number of outputs; ``"neural-tangents"`` takes the diagonal of the kernel.

Unbiased, with an error bar: ``"hutchinson"`` is the mean of ||J^T v||^2 over Rademacher vectors v in output space
(Hutchinson, 1990). ``"hadamard"`` takes them in blocks of orthogonal vectors that cancel all that the outputs of one
sample share, and needs a fraction of the probes for the same error once a block of 2 to 4 times the number of outputs
is affordable. ``"hutch++"`` (Meyer, Musco, Musco and Woodruff, 2021) spends half of its probes on the leading
eigenvectors and the other half on what these leave, and pays where a few of them hold most of the trace, as in networks
without normalisation. ``"xtrace"`` and ``"xnystrace"`` (Epperly, Tropp and Webber, 2024) let every vector do both, each
left out in turn, and have the smallest errors there; the second needs half of the products and a kernel whose small
eigenvalues are above the rounding of its largest. Their standard errors count what the estimates of one set of vectors
have in common.

Lower bounds from the gradients of a loss, which need labels: ``"per-sample"``, ``"per-batch"`` and
``"one-batch"``, each below the one before.
"""

RANDOM = {"hutchinson", "hadamard", "hutch++", "xtrace", "xnystrace"}
"""Methods that need a key."""

_PROBES_BETWEEN_LOOKS = 16  # after fewer, the spread is too often small by chance
_LIPSCHITZ_SQUARED = 2.0  # of the cross entropy as a function of the logits: the supremum of ||softmax(f) - e_y||^2

Cotangent = Callable[[jax.Array, Any, Any, jax.Array], jax.Array]


class Plan(NamedTuple):
    """How the squared norms ||J^T c||^2 of cotangents c make up a trace.

    Attributes:
        cotangent: one of them, for the outputs of a group of samples: `cotangent(outputs, labels, random, index)`.
        group: number of consecutive samples in a group; outside its group a cotangent is zero.
        count: number of cotangents for each group.
        reduce: value and standard error from the squared norms.
        step: number of squared norms after each of which `reduce` may be asked, 0 if only after all.
    """

    cotangent: Cotangent
    group: int
    count: int
    reduce: Callable[[np.ndarray], tuple[float, float]]
    step: int = 0


def make_plan(
    method: TraceMethod,
    shape: tuple[int, ...],
    y: Any,
    probes: int,
    batch_size: int | None,
    loss: Loss = cross_entropy,
    outputs_like: Any = None,
) -> Plan:
    """Lays out a method for a network's outputs.

    Args:
        method: one that is made of squared norms of vector-Jacobian products.
        shape: of the outputs, (samples, outputs).
        y: labels or targets, for the lower bounds.
        probes: number of random vectors; made whole blocks of for "hadamard".
        batch_size: for "per-batch".
        loss: for the lower bounds.
        outputs_like: shapes of the outputs as the network returns them, for the lower bounds.

    Returns:
        The plan.

    Raises:
        ValueError: labels or batch size do not fit the method and the samples.
        TypeError: the batch size is no integer.
    """
    samples, outputs = shape
    if method == "exact":
        return Plan(_basis, 1, outputs, lambda squares: (float(np.sum(squares)), 0.0))
    if method == "hutchinson":
        return Plan(_rademacher, samples, probes, _mean, _PROBES_BETWEEN_LOOKS)
    if method == "hadamard":
        block = _block(outputs)
        probes = block * math.ceil(probes / block)
        return Plan(_hadamard, samples, probes, functools.partial(_block_mean, block), block)
    if method == "hutch++":
        return Plan(_projected, samples, probes, functools.partial(_sum_and_mean, sketch_size(probes, shape)))
    got = "None" if y is None else f"{batch_length('y', y)} samples"
    if got != f"{samples} samples":
        what = "integer labels of shape" if loss is cross_entropy else "arrays that begin with the shape"
        raise ValueError(f"y: expected {what} ({samples},) with method={method!r}, got {got}")
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size)
    if method == "per-batch" and (batch_size is None or samples % batch_size):
        raise ValueError(f"batch_size: expected a divisor of the {samples} samples, got {batch_size}")
    group = {"per-sample": 1, "per-batch": batch_size, "one-batch": samples}[method]
    leaves, structure = jax.tree.flatten(outputs_like)
    return Plan(
        _LossGradient(loss, structure, tuple(leaves)),
        group or samples,
        1,
        lambda squares: (float(np.sum(squares)), math.nan),
    )


def sketch_size(probes: int, shape: tuple[int, ...]) -> int:
    """Returns how many of the probes of "hutch++" are leading directions of the kernel."""
    return min(probes // 2, math.prod(shape))


def _basis(outputs: jax.Array, labels: Any, random: Any, index: jax.Array) -> jax.Array:
    return jax.nn.one_hot(index, outputs.shape[1], dtype=outputs.dtype)[None]


class _LossGradient(NamedTuple):
    """The cotangent of the mean loss of a group; equal for one loss, so that programs are compiled once for it."""

    loss: Loss
    structure: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]

    def __call__(self, outputs: jax.Array, labels: Any, random: Any, index: jax.Array) -> jax.Array:
        like = jax.tree.unflatten(self.structure, self.shapes)
        gradient = jax.grad(lambda f: jnp.sum(self.loss(as_outputs(f, like), labels)))(outputs)
        squared = _LIPSCHITZ_SQUARED if self.loss is cross_entropy else 1.0
        return gradient / math.sqrt(squared * len(outputs))


def _rademacher(outputs: jax.Array, labels: Any, key: Any, index: jax.Array) -> jax.Array:
    return jax.random.rademacher(jax.random.fold_in(key, index), outputs.shape, outputs.dtype)


def _mean(squares: np.ndarray) -> tuple[float, float]:
    error = np.std(squares, ddof=1) / math.sqrt(len(squares)) if len(squares) > 1 else math.nan
    return float(np.mean(squares)), float(error)


def _projected(outputs: jax.Array, labels: Any, random: Any, index: jax.Array) -> jax.Array:
    key, directions = random  # (count, samples, outputs), orthonormal
    probe = _rademacher(outputs, labels, key, index)
    rest = probe - jnp.tensordot(jnp.tensordot(directions, probe, 2), directions, 1)
    return jnp.where(index < len(directions), directions[jnp.minimum(index, len(directions) - 1)], rest)


def _sum_and_mean(size: int, squares: np.ndarray) -> tuple[float, float]:
    mean, error = _mean(squares[size:])
    return float(np.sum(squares[:size])) + mean, error


def _block(outputs: int) -> int:
    return 2 << math.ceil(math.log2(outputs))


def _hadamard(outputs: jax.Array, labels: Any, key: Any, index: jax.Array) -> jax.Array:
    """Spreads a row of a Hadamard matrix over the outputs, by columns that differ among those of one sample."""
    samples, classes = outputs.shape
    block = _block(classes)
    shift_key, code_key, sign_key = jax.random.split(jax.random.fold_in(key, index // block), 3)
    codes = jax.random.permutation(code_key, block // 2)[None, :classes]
    columns = codes ^ jax.random.randint(shift_key, (samples, 1), 0, block)
    odd = jax.lax.population_count((index % block).astype(columns.dtype) & columns) % 2
    return jax.random.rademacher(sign_key, outputs.shape, outputs.dtype) * (1 - 2 * odd).astype(outputs.dtype)


def _block_mean(block: int, squares: np.ndarray) -> tuple[float, float]:
    # The transform sorts the noise of a block by the exclusive or of the columns of the two outputs whose entry of the
    # kernel makes it. What has none is the mean, which holds the trace. Columns of one sample differ in their lower
    # bits alone, so that neither there nor where the highest bit differs are there entries within a sample, and both
    # hold as many between samples: the second part tells the error of the first.
    parts = scipy.linalg.hadamard(block) @ squares.reshape(-1, block).T / block
    return float(np.mean(parts[0])), float(np.sqrt(np.mean(parts[block // 2 :] ** 2) / parts.shape[1]))
