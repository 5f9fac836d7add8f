"""Proxies from how a network tells inputs apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data.source import example_arrays, is_shared
from nasi_jax.ntk import ApplyFn
from nasi_jax.ntk._network import automatic, batch_length, check_floating, is_inexact

_JACOB_COV_OFFSET = 1e-5


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
    gradients = jnp.concatenate([slope.reshape(length, -1) for slope in slopes], axis=1)
    eigenvalues = jnp.linalg.eigvalsh(jnp.corrcoef(gradients)) + _JACOB_COV_OFFSET
    return -jnp.sum(jnp.log(eigenvalues) + 1 / eigenvalues)
