"""Proxies from how a network tells inputs apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data.source import example_arrays, is_shared
from nasi_jax.ntk import ApplyFn
from nasi_jax.ntk._network import automatic, batch_length, check_floating, is_inexact

_OFFSET = 1e-5
_FEW_CLASSES = 100


def naswot(preactivations: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
    r"""Log determinant of how many ReLU of a network agree, for each pair of inputs.

    .. math:: \log | \det K |, \qquad K_{ij} = \#\{ \text{units with one state for } i \text{ and } j \}

    Args:
        preactivations: inputs of each ReLU layer, (batch, ...), and how often it counts.

    Returns:
        A scalar; minus infinity where two inputs cannot be told apart, NaN where an input of a ReLU is NaN.

    References:
        Mellor, Turner, Storkey and Crowley, "Neural architecture search without training", ICML 2021.
    """
    total: Any = 0
    for values, uses in preactivations:
        values = values.reshape(len(values), -1)
        active = jnp.where(jnp.isnan(values), values, values > 0)
        total = total + uses * (active @ active.T + (1 - active) @ (1 - active).T)
    return jnp.linalg.slogdet(total)[1]


def meco(preactivations: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
    r"""Sums, over layers, the least eigenvalue of the correlation of the channels for one example.

    .. math:: \sum_l \lambda_{\min} \big( P(f_l(x)) \big)

    Layers are what ReLU read here. Channels that are constant correlate with nothing, themselves included.

    Args:
        preactivations: inputs of each ReLU layer, (batch, ..., channels), and how often it counts. The first example of
            the batch is the one.

    Returns:
        A scalar.

    References:
        Jiang, Wang and Bie, "MeCo: zero-shot NAS with one data and single forward pass via minimum eigenvalue of
        correlation", NeurIPS 2023, equation 5.
    """
    return sum((uses * _least_eigenvalue(values[0]) for values, uses in preactivations), jnp.zeros(()))


@jax.jit
def _least_eigenvalue(features: jax.Array) -> jax.Array:
    channels = features.reshape(-1, features.shape[-1]).T
    centred = channels - channels.mean(axis=1, keepdims=True)
    norms = jnp.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / jnp.where(norms == 0, 1, norms)
    return jnp.min(jnp.linalg.eigvalsh(unit @ unit.T))


def swap(preactivations: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Counts the different patterns in which the units of a network are active over the examples of a batch.

    Args:
        preactivations: inputs of each ReLU layer, (batch, ...), and how often it counts: not at all where that is 0.

    Returns:
        A scalar, at most the number of units; NaN where an input of a ReLU is NaN.

    References:
        Peng, Song, Fayek, Ciesielski and Chang, "SWAP-NAS: sample-wise activation patterns for ultra-fast NAS", ICLR
        2024, definition 3.2.
    """
    layers = list(preactivations)
    flat = [values.reshape(len(values), -1) for values, _ in layers]
    used = [jnp.full(x.shape[1], uses > 0) for x, (_, uses) in zip(flat, layers, strict=True)]
    return _patterns(jnp.concatenate(flat, axis=1), jnp.concatenate(used))


@jax.jit
def _patterns(values: jax.Array, used: jax.Array) -> jax.Array:
    bits = jnp.pad(values > 0, ((0, -len(values) % 32), (0, 0))).reshape(-1, 32, values.shape[1])
    places = jnp.left_shift(jnp.uint32(1), jnp.arange(32, dtype=jnp.uint32)).reshape(1, 32, 1)
    words = jnp.sum(bits * places, axis=1, dtype=jnp.uint32)
    order = jnp.lexsort((*words, ~used))  # those in use first
    words, used = words[:, order], used[order]
    new = jnp.concatenate([jnp.ones(1, bool), jnp.any(words[:, 1:] != words[:, :-1], axis=0)])
    return jnp.where(jnp.isnan(values).any(), jnp.nan, jnp.sum(new & used))


def zen(clean: jax.Array, noisy: jax.Array, variances: Iterable[jax.Array]) -> jax.Array:
    r"""Measures how much a network's output changes with its input, without what normalisation takes away.

    .. math:: \log E | f(x) - f(x + \alpha \epsilon) | + \sum_l \tfrac{1}{2} \log \overline{\mathrm{Var}_l}

    Args:
        clean: output of the last block for Gaussian inputs x, (batch, ..., channels).
        noisy: the same for x plus a little noise, Gaussian as well.
        variances: of each normalised layer, the variance of each channel in the batch x, (channels,).

    Returns:
        A scalar; minus infinity where nothing changes.

    References:
        Lin et al., "Zen-NAS: a zero-shot NAS for high-performance image recognition", ICCV 2021, algorithm 1.
    """
    scales = sum((0.5 * jnp.log(jnp.mean(variance)) for variance in variances), jnp.zeros(()))
    return jnp.log(jnp.mean(jnp.abs(clean - noisy))) + scales


def _input_gradients(apply_fn: ApplyFn, params: Any, x: Any) -> jax.Array:
    """Returns the gradients of the summed outputs with respect to the inputs, (batch, entries)."""
    own = [leaf for _, leaf in example_arrays(x)]
    check_floating("x", own, "because the outputs are differentiated by each sample's inputs")
    params, x = automatic(params, x)
    length, (leaves, structure) = batch_length("x", x), jax.tree.flatten(x, is_leaf=is_shared)
    places = [i for i, leaf in enumerate(leaves) if not is_shared(leaf) and is_inexact(leaf)]

    def total(parts: list[jax.Array]) -> jax.Array:
        filled = list(leaves)
        for i, part in zip(places, parts, strict=True):
            filled[i] = part
        return jnp.sum(apply_fn(params, jax.tree.unflatten(structure, filled)))

    slopes = jax.grad(total)([leaves[i] for i in places])
    return jnp.concatenate([slope.reshape(length, -1) for slope in slopes], axis=1)


def jacob_cov(apply_fn: ApplyFn, params: Any, x: Any) -> jax.Array:
    r"""How little the gradients with respect to the inputs are correlated.

    .. math:: - \sum_i \big( \log(\lambda_i + k) + (\lambda_i + k)^{-1} \big), \qquad k = 10^{-5}

    with the eigenvalues of the correlation matrix of the gradients of the summed outputs.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...), differentiated by the floating ones.

    Returns:
        A scalar.

    Raises:
        TypeError: `x` has no floating array of each sample's own.

    References:
        Mellor, Turner, Storkey and Crowley, "Neural architecture search without training", first version, 2020;
        Abdelfattah et al., "Zero-cost proxies for lightweight NAS", ICLR 2021.
    """
    return _separation(_input_gradients(apply_fn, params, x))


@jax.jit
def _separation(gradients: jax.Array) -> jax.Array:
    centred = gradients - gradients.mean(axis=1, keepdims=True)
    unit = centred / jnp.linalg.norm(centred, axis=1, keepdims=True)
    # The least eigenvalues decide. Those of the matrix are rounding errors in float32, some of them negative; as
    # squares of singular values of the gradients they are exact to many digits more than the offset asks for.
    singular = jnp.linalg.svd(jnp.linalg.qr(unit.T, mode="r"), compute_uv=False)
    eigenvalues = jnp.pad(singular**2, (0, len(unit) - len(singular))) + _OFFSET
    return -jnp.sum(jnp.log(eigenvalues) + 1 / eigenvalues)


def epe_nas(apply_fn: ApplyFn, params: Any, x: Any, y: jax.Array, classes: int) -> jax.Array:
    r"""How little the gradients with respect to the inputs are correlated within classes.

    .. math:: \sum_c | s_c |, \qquad s_c = \sum_{i, j \in c} \log ( | \rho_{ij} | + k ), \qquad k = 10^{-5}

    and for more than 100 classes the mean over classes that are there of the sum of differences
    :math:`| s_c / n_c - s_{c'} / n_{c'} |`.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...), differentiated by the floating ones.
        y: class of each example, (batch,) integers.
        classes: number of classes.

    Returns:
        A scalar.

    Raises:
        TypeError: `x` has no floating array of each sample's own.

    References:
        Lopes, Alirezazadeh and Alexandre, "EPE-NAS: efficient performance estimation without training for neural
        architecture search", ICANN 2021.
    """
    gradients = _input_gradients(apply_fn, params, x)
    member = jax.nn.one_hot(y, classes, dtype=gradients.dtype)
    correlations = jnp.log(jnp.abs(jnp.corrcoef(gradients)) + _OFFSET)
    sums = jnp.einsum("ic,ij,jc->c", member, correlations, member)
    if classes <= _FEW_CLASSES:
        return jnp.sum(jnp.abs(sums))
    counts = jnp.sum(member, axis=0)
    there = (counts > 0).astype(gradients.dtype)
    means = sums / jnp.maximum(counts, 1)
    apart = jnp.abs(means.reshape(-1, 1) - means.reshape(1, -1))
    return (there @ apart @ there) / jnp.sum(there)
