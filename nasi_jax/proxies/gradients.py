"""Proxies from gradients of a loss with respect to the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.ntk import ApplyFn, cross_entropy, squared_norm


def _loss(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(cross_entropy(apply_fn(params, x), y))


def weights_of(tree: Any) -> list[jax.Array]:
    """Returns the weights of the layers of a parameter tree: all leaves but biases and scales, which are vectors."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def grad_norm(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    r"""Sums, over layers, the norms of the gradients of a batch's mean loss.

    .. math:: \sum_l \| \nabla_{\theta_l} L \|_2

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).

    Returns:
        A scalar.

    References:
        Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-cost proxies for lightweight NAS", ICLR 2021.
    """
    gradients = weights_of(jax.grad(lambda p: _loss(apply_fn, p, x, y))(params))
    return sum((_norm(g) for g in gradients), jnp.zeros(()))


# One program for a layer, because outside of jit every step of one would be dispatched for itself.
@jax.jit
def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2))


def _sum_of_products(a: Any, b: Any) -> jax.Array:
    pairs = zip(weights_of(a), weights_of(b), strict=True)
    return sum((jnp.vdot(x, y) for x, y in pairs), jnp.zeros(()))


def snip(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    r"""Sums the sensitivities of a batch's mean loss to the removal of each weight.

    .. math:: \sum_l \sum_i | \theta_{li} \, \partial L / \partial \theta_{li} |

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).

    Returns:
        A scalar.

    References:
        Lee, Ajanthan and Torr, "SNIP: single-shot network pruning based on connection sensitivity", ICLR 2019.
    """
    gradient = jax.grad(lambda p: _loss(apply_fn, p, x, y))(params)
    sizes = jax.tree.map(jnp.abs, (params, gradient))
    return _sum_of_products(*sizes)


def grasp(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    r"""Sums the effects of the removal of each weight on the norm of the gradient.

    .. math:: - \sum_i \theta_i \, (H g)_i

    with the Hessian H and the gradient g of a batch's mean loss; by forward over reverse.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).

    Returns:
        A scalar.

    References:
        Wang, Zhang and Grosse, "Picking winning tickets before training by preserving gradient flow", ICLR 2020.
    """
    gradient_of = jax.grad(lambda p: _loss(apply_fn, p, x, y))
    gradient = gradient_of(params)
    # the Hessian is taken among weights alone, as in the zero-cost proxies
    direction = jax.tree.map(lambda g: g if g.ndim > 1 else jnp.zeros_like(g), gradient)
    _, product = jax.jvp(gradient_of, (params,), (direction,))
    return -_sum_of_products(params, product)


def synflow(apply_fn: ApplyFn, params: Any, x: jax.Array) -> jax.Array:
    r"""Sums the synaptic flow through each weight, without data.

    .. math:: \log \sum_i | \theta_i \, \partial R / \partial \theta_i |, \qquad R = 1^\top f(1; |\theta|)

    The logarithm, which keeps the order, is there because R itself overflows in deep networks.

    Args:
        apply_fn: the network without normalisation, `normalisation="fixed"`.
        params: pytree of parameters.
        x: inputs, of which only the shape counts, (batch, ...).

    Returns:
        A scalar; minus infinity where nothing flows.

    References:
        Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
        flow", NeurIPS 2020.
    """
    positive, ones = jax.tree.map(jnp.abs, params), jnp.ones_like(x[:1])
    total, gradient = jax.value_and_grad(lambda p: jnp.sum(apply_fn(p, ones)))(positive)
    # as shares of R, whose square would overflow first
    shares = jax.tree.map(lambda g: g / total, gradient)
    flow = _sum_of_products(positive, shares)
    return jnp.where(total > 0, jnp.log(flow) + jnp.log(total), -jnp.inf)


def zico(apply_fn: ApplyFn, params: Any, x: jax.Array, y: jax.Array, batches: int = 2) -> jax.Array:
    r"""Sums, over layers, the logarithm of the ratios of mean to spread of the gradients over batches.

    .. math:: \sum_l \log \sum_i \frac{E |g_{li}|}{\sqrt{\mathrm{Var} |g_{li}|}}

    Layers without a gradient, which are not in use, are left out, and so are weights whose gradients do not vary.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...); split into `batches` equal parts.
        y: integer labels, (batch,).
        batches: number of parts.

    Returns:
        A scalar.

    Raises:
        ValueError: the batch cannot be split.

    References:
        Li, Yang, Bhardwaj and Marculescu, "ZiCo: zero-shot NAS via inverse coefficient of variation on gradients",
        ICLR 2023.
    """
    if len(x) % batches:
        raise ValueError(f"x: expected a batch that splits into {batches} parts, got {len(x)} samples")
    gradient_of = jax.grad(lambda p, x, y: _loss(apply_fn, p, x, y))
    parts = zip(jnp.split(x, batches), jnp.split(y, batches), strict=True)
    layers = zip(*(weights_of(gradient_of(params, *part)) for part in parts), strict=True)
    return sum((_log_ratio(layer) for layer in layers), jnp.zeros(()))


@jax.jit
def _log_ratio(gradients: tuple[jax.Array, ...]) -> jax.Array:
    sizes = jnp.abs(jnp.stack(gradients))
    deviation = jnp.std(sizes, axis=0)
    ratios = jnp.where(deviation > 0, jnp.mean(sizes, axis=0) / jnp.where(deviation > 0, deviation, 1), 0)
    ratio = jnp.sum(ratios)
    return jnp.where(ratio > 0, jnp.log(jnp.where(ratio > 0, ratio, 1)), 0)


def fisher(scaled_fn: Any, scales: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    r"""Sums the effects of the removal of each channel, by the diagonal of the Fisher information of the activations.

    .. math:: \sum_l \sum_c \frac{1}{2 N} \sum_n \Big( \sum_{hw} a_{nhwc} \, \partial L / \partial a_{nhwc} \Big)^2

    Args:
        scaled_fn: `scaled_fn(scales, x)`, the network with the outputs of its layers multiplied by `scales`.
        scales: pytree of ones, (batch, ..., channels) for each layer.
        x: inputs, (batch, ...).
        y: integer labels, (batch,).

    Returns:
        A scalar.

    References:
        Theis, Korshunova, Tejani and Huszár, "Faster gaze prediction with dense networks and Fisher pruning", 2018;
        Turner et al., "BlockSwap: Fisher-guided block substitution for network compression on a budget", ICLR 2020.
    """
    slopes = jax.grad(lambda s: jnp.mean(cross_entropy(scaled_fn(s, x), y)))(scales)
    return squared_norm(slopes) / (2 * len(x))
