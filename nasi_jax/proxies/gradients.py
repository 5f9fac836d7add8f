"""Proxies from gradients of a loss with respect to the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data.losses import Loss, cross_entropy, losses_of
from nasi_jax.ntk import ApplyFn, squared_norm
from nasi_jax.ntk._network import automatic, batch_length, check_count, check_floating, is_inexact, over_reals, samples


def _mean_loss(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss) -> jax.Array:
    return jnp.mean(losses_of(loss, apply_fn(params, x), y))


def weights_of(tree: Any) -> list[jax.Array]:
    """Returns the weights of the layers of a parameter tree: all leaves but biases and scales, which are vectors."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.ndim(leaf) > 1]


def grad_norm(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums, over layers, the norms of the gradients of a batch's mean loss.

    .. math:: \sum_l \| \nabla_{\theta_l} L \|_2

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-cost proxies for lightweight NAS", ICLR 2021.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    gradients = weights_of(jax.grad(lambda p: _mean_loss(network, p, x, y, loss))(reals))
    return sum((_norm(g) for g in gradients), jnp.zeros(()))


# One program for a layer, because outside of jit every step of one would be dispatched for itself.
@jax.jit
def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2))


def _sum_of_products(a: Any, b: Any) -> jax.Array:
    pairs = zip(weights_of(a), weights_of(b), strict=True)
    return sum((jnp.vdot(x, y) for x, y in pairs), jnp.zeros(()))


def snip(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums the sensitivities of a batch's mean loss to the removal of each weight.

    .. math:: \sum_l \sum_i | \theta_{li} \, \partial L / \partial \theta_{li} |

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        Lee, Ajanthan and Torr, "SNIP: single-shot network pruning based on connection sensitivity", ICLR 2019.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    gradient = jax.grad(lambda p: _mean_loss(network, p, x, y, loss))(reals)
    sizes = jax.tree.map(jnp.abs, (reals, gradient))
    return _sum_of_products(*sizes)


def plain(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums weights times gradients of a batch's mean loss.

    .. math:: \sum_l \sum_i \theta_{li} \, \partial L / \partial \theta_{li}

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        Mozer and Smolensky, "Skeletonization: a technique for trimming the fat from a network via relevance
        assessment", NeurIPS 1988; Abdelfattah et al., ICLR 2021, for the use.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    gradient = jax.grad(lambda p: _mean_loss(network, p, x, y, loss))(reals)
    return _sum_of_products(reals, gradient)


def l2_norm(params: Any) -> jax.Array:
    r"""Sums the norms of the weights of all layers.

    .. math:: \sum_l \| \theta_l \|_2

    Args:
        params: pytree of the parameters that the network has, without those of any other.

    Returns:
        A scalar.

    References:
        Abdelfattah et al., "Zero-cost proxies for lightweight NAS", ICLR 2021.
    """
    return sum((_norm(leaf) for leaf in weights_of(params)), jnp.zeros(()))


def grasp(apply_fn: ApplyFn, params: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums the effects of the removal of each weight on the norm of the gradient.

    .. math:: - \sum_i \theta_i \, (H g)_i

    with the Hessian H and the gradient g of a batch's mean loss; by forward over reverse.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        Wang, Zhang and Grosse, "Picking winning tickets before training by preserving gradient flow", ICLR 2020.
    """
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    gradient_of = jax.grad(lambda p: _mean_loss(network, p, x, y, loss))
    gradient = gradient_of(reals)
    # the Hessian is taken among weights alone, as in the zero-cost proxies
    direction = jax.tree.map(lambda g: g if g.ndim > 1 else jnp.zeros_like(g), gradient)
    _, product = jax.jvp(gradient_of, (reals,), (direction,))
    return -_sum_of_products(reals, product)


def synflow(apply_fn: ApplyFn, params: Any, x: Any) -> jax.Array:
    r"""Sums the synaptic flow through each weight, without data.

    .. math:: \log \sum_i | \theta_i \, \partial R / \partial \theta_i |, \qquad R = 1^\top f(1; |\theta|)

    The logarithm, which keeps the order, is there because R itself overflows in deep networks.

    Args:
        apply_fn: the network without normalisation, `normalisation="fixed"`.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...). Of floating ones only the shape counts: they become ones; of others,
            such as token ids and masks, the first sample is taken.

    Returns:
        A scalar; minus infinity where nothing flows.

    Raises:
        TypeError: `x` has no floating array.

    References:
        Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
        flow", NeurIPS 2020.
    """
    check_floating("x", x, "because the network is evaluated at ones")
    network, reals, x = over_reals(apply_fn, params, x)
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf) if is_inexact(leaf) else leaf, samples(x, 0, 1))
    positive = jax.tree.map(jnp.abs, reals)
    total, gradient = jax.value_and_grad(lambda p: jnp.sum(network(p, ones)))(positive)
    # as shares of R, whose square would overflow first
    shares = jax.tree.map(lambda g: g / total, gradient)
    flow = _sum_of_products(positive, shares)
    return jnp.where(total <= 0, -jnp.inf, jnp.log(flow) + jnp.log(total))


def zico(apply_fn: ApplyFn, params: Any, x: Any, y: Any, batches: int = 2, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums, over layers, the logarithm of the ratios of mean to spread of the gradients over batches.

    .. math:: \sum_l \log \sum_i \frac{E |g_{li}|}{\sqrt{\mathrm{Var} |g_{li}|}}

    Layers without a gradient, which are not in use, are left out, and so are weights whose gradients do not vary.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...); split into `batches` equal parts.
        y: integer labels (batch,), or what the loss takes.
        batches: number of parts.
        loss: per-sample loss.

    Returns:
        A scalar.

    Raises:
        ValueError: the batch cannot be split.
        TypeError: `batches` is no integer.

    References:
        Li, Yang, Bhardwaj and Marculescu, "ZiCo: zero-shot NAS via inverse coefficient of variation on gradients",
        ICLR 2023.
    """
    length, batches = batch_length("x", x), check_count("batches", batches)
    if length % batches:
        raise ValueError(f"x: expected a batch that splits into {batches} parts, got {length} samples")
    network, reals, x, y = over_reals(apply_fn, params, x, y)
    gradient_of = jax.grad(lambda p, x, y: _mean_loss(network, p, x, y, loss))
    size = length // batches
    parts = (samples((x, y), start, size) for start in range(0, length, size))
    layers = zip(*(weights_of(gradient_of(reals, *part)) for part in parts), strict=True)
    return sum((_log_ratio(layer) for layer in layers), jnp.zeros(()))


@jax.jit
def _log_ratio(gradients: tuple[jax.Array, ...]) -> jax.Array:
    sizes = jnp.abs(jnp.stack(gradients))
    deviation = jnp.std(sizes, axis=0)
    # compared with zero, which a deviation that is NaN is not
    ratios = jnp.where(deviation == 0, 0, jnp.mean(sizes, axis=0) / jnp.where(deviation == 0, 1, deviation))
    ratio = jnp.sum(ratios)
    return jnp.where(ratio == 0, 0, jnp.log(jnp.where(ratio == 0, 1, ratio)))


def fisher(scaled_fn: Any, scales: Any, x: Any, y: Any, loss: Loss = cross_entropy) -> jax.Array:
    r"""Sums the effects of the removal of each channel, by the diagonal of the Fisher information of the activations.

    .. math:: \sum_l \sum_c \frac{1}{2 N} \sum_n \Big( \sum_{hw} a_{nhwc} \, \partial L / \partial a_{nhwc} \Big)^2

    Args:
        scaled_fn: `scaled_fn(scales, x)`, the network with the outputs of its layers multiplied by `scales`.
        scales: pytree of ones, (batch, ..., channels) for each layer.
        x: inputs, a pytree of arrays (batch, ...).
        y: integer labels (batch,), or what the loss takes.
        loss: per-sample loss.

    Returns:
        A scalar.

    References:
        Theis, Korshunova, Tejani and Huszár, "Faster gaze prediction with dense networks and Fisher pruning", 2018;
        Turner et al., "BlockSwap: Fisher-guided block substitution for network compression on a budget", ICLR 2020.
    """
    scales, x, y = automatic(scales, x, y)
    slopes = jax.grad(lambda s: _mean_loss(scaled_fn, s, x, y, loss))(scales)
    return squared_norm(slopes) / (2 * batch_length("x", x))
