"""Proxies from the spectrum of the Fisher information."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.ntk._network import automatic, batch_length

_SMOOTHING = 0.05  # share of the uniform distribution in the network's own one, as in the authors' code
_LEAST = 1e-10


def vkdnw(scaled_fn: Any, scales: Any, x: Any) -> jax.Array:
    r"""Counts the layers of a network and adds how even the spectrum of its Fisher information is.

    .. math:: L - \sum_{k=1}^9 \tilde\lambda_k \log \tilde\lambda_k, \qquad
        F = \frac{1}{N} \sum_n J_n^\top (\mathrm{diag}(p_n) - p_n p_n^\top) J_n

    with the deciles of the eigenvalues of F, divided by their sum. The information is that of one parameter of each
    layer under the network's own predictions. The authors take the first entry of every parameter array; here it is the
    factor of the first channel of each layer's output, which among these is the first entry of the scale of batch
    normalisation, and whose gradients for all examples come out of one pass for each output.

    Args:
        scaled_fn: `scaled_fn(scales, x)`, the network with statistics of normalisation fixed at 0 and 1 and the outputs
            of its layers multiplied by `scales`.
        scales: pytree of ones, (batch, ..., channels) for each layer; the leading axis may have several rows for an
            example, one after the other.
        x: inputs, a pytree of arrays (batch, ...).

    Returns:
        A scalar; the entropy is at most log 9, so that the number of layers decides first.

    Raises:
        ValueError: examples share a layer's rows, such as the nodes of one graph.

    References:
        Týbl and Neumann, "Training-free neural architecture search through variance of knowledge of deep network
        weights", CVPR 2025, equations 9 to 11, and the authors' code for the smoothed predictions.
    """
    scales, x = automatic(scales, x)
    leaves, structure = jax.tree.flatten(scales)
    length = batch_length("x", x)
    for leaf in leaves:
        if len(leaf) % length:
            raise ValueError(
                f"scales: expected layers with as many rows for each of {length} examples, got shape {leaf.shape}"
            )
    firsts = [leaf.reshape(len(leaf), -1)[:, 0] for leaf in leaves]

    def outputs(firsts: list[jax.Array]) -> jax.Array:
        filled = [
            leaf.reshape(len(leaf), -1).at[:, 0].set(first).reshape(leaf.shape)
            for leaf, first in zip(leaves, firsts, strict=True)
        ]
        return scaled_fn(jax.tree.unflatten(structure, filled), x)

    logits, pullback = jax.vjp(outputs, firsts)
    rows = []
    for output in range(logits.shape[1]):
        (slopes,) = pullback(jnp.zeros_like(logits).at[:, output].set(1))
        # a layer may have the nodes or tokens of an example as rows
        rows.append(jnp.stack([slope.reshape(length, -1).sum(axis=1) for slope in slopes], axis=1))
    return len(leaves) + _evenness(logits, jnp.stack(rows, axis=1))


@jax.jit
def _evenness(logits: jax.Array, jacobian: jax.Array) -> jax.Array:
    """Returns the entropy of the deciles, of logits (batch, outputs) and their slopes (batch, outputs, layers)."""
    p = (1 - _SMOOTHING) * jax.nn.softmax(logits) + _SMOOTHING / logits.shape[1]
    expected = jnp.einsum("nc,ncl->nl", p, jacobian)
    fisher = (jnp.einsum("nc,ncl,ncm->lm", p, jacobian, jacobian) - expected.T @ expected) / len(logits)
    deciles = jnp.quantile(jnp.clip(jnp.linalg.eigvalsh(fisher), 0), jnp.arange(1, 10) / 10)
    total = jnp.sum(deciles)
    shares = deciles / jnp.where(total > 0, total, 1)
    return -jnp.sum(shares * jnp.log(shares + _LEAST))
