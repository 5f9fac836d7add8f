"""How architectures are relaxed: samples of p_alpha, continuous or discrete, of which searches take gradients."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from nasi_jax.spaces import IMPOSSIBLE, Alphas, Weights

Relaxation = Literal["soft", "hard"]
"""Samples through which a gradient goes to the logits.

``"soft"``: the Gumbel-Softmax (concrete) distribution. ``"hard"``: the same made one-hot, with the soft sample's
gradient (straight-through).
"""


def gumbel_softmax(
    key: jax.Array, alphas: Alphas, temperature: jax.typing.ArrayLike, relaxation: Relaxation
) -> Weights:
    """Draws weights of the operations that are differentiable by the logits.

    Args:
        key: typed random key.
        alphas: logits.
        temperature: tau.
        relaxation: which samples.

    Returns:
        Weights, a tree like `alphas`, whose rows sum to one.

    References:
        Jang, Gu and Poole, ICLR 2017; Maddison, Mnih and Teh, ICLR 2017; NASI, equation 15.
    """

    def relax(logits: jax.Array) -> jax.Array:
        soft = jax.nn.softmax(logits / temperature)
        if relaxation == "soft":
            return soft
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), logits.shape[-1], dtype=logits.dtype)
        return soft + jax.lax.stop_gradient(hard - soft)

    return jax.tree.map(relax, perturbed(key, alphas))


def perturbed(key: jax.Array, alphas: Alphas) -> Alphas:
    """Returns logits with Gumbel noise, whose largest entry of each row follows p_alpha."""
    keys = _keys_like(key, alphas)
    return {name: logits + jax.random.gumbel(keys[name], logits.shape, logits.dtype) for name, logits in alphas.items()}


def concrete_score(alphas: Alphas, noisy: Alphas, temperature: jax.typing.ArrayLike) -> Alphas:
    """Differentiates the log-density of a concrete sample by the logits, row by row.

    Args:
        alphas: logits.
        noisy: those with the noise of the sample, see `perturbed`.
        temperature: lambda.

    Returns:
        A tree like `alphas`; its expectation is zero.

    References:
        Maddison, Mnih and Teh, ICLR 2017, equation 10.
    """

    def score(logits: jax.Array, with_noise: jax.Array) -> jax.Array:
        there = logits > IMPOSSIBLE / 2
        # by logarithms, since samples themselves underflow at low temperatures
        log_sample = jax.nn.log_softmax(with_noise / temperature)
        shares = jax.nn.softmax(jnp.where(there, logits - temperature * log_sample, -jnp.inf))
        return there - jnp.sum(there, axis=-1, keepdims=True) * shares

    return jax.tree.map(score, alphas, noisy)


def sample_discrete(key: jax.Array, alphas: Alphas) -> tuple[Weights, Alphas]:
    """Draws one-hot weights from p_alpha, each row by itself.

    Args:
        key: typed random key.
        alphas: logits.

    Returns:
        The weights, and the gradient of their log-probability by the logits (Williams, 1992).
    """
    keys = _keys_like(key, alphas)
    weights = {
        name: jax.nn.one_hot(jax.random.categorical(keys[name], logits), logits.shape[-1], dtype=logits.dtype)
        for name, logits in alphas.items()
    }
    return weights, {name: weights[name] - jax.nn.softmax(logits) for name, logits in alphas.items()}


def largest_probability(alphas: Alphas) -> jax.Array:
    """Returns the probability of the most likely architecture, a scalar."""
    largest = [jnp.sum(jnp.max(jax.nn.log_softmax(logits), axis=-1)) for logits in alphas.values()]
    return jnp.exp(sum(largest, jnp.zeros((), jnp.result_type(float))))


def _keys_like(key: jax.Array, tree: Alphas) -> dict[str, jax.Array]:
    return dict(zip(sorted(tree), jax.random.split(key, len(tree)), strict=True))
