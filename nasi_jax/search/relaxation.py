"""How architectures are relaxed: samples of p_alpha, continuous or discrete, of which searches take gradients."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from nasi_jax.spaces import Alphas, Weights

Relaxation = Literal["soft", "hard"]
"""Samples through which a gradient goes to the logits.

``"soft"``: the Gumbel-Softmax (concrete) distribution. ``"hard"``: the same made one-hot, with the soft sample's
gradient (straight-through).
"""


def gumbel_softmax(key: jax.Array, alphas: Alphas, temperature: float, relaxation: Relaxation) -> Weights:
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
    keys = _keys_like(key, alphas)

    def relax(name: str, logits: jax.Array) -> jax.Array:
        noise = jax.random.gumbel(keys[name], logits.shape, logits.dtype)
        soft = jax.nn.softmax((logits + noise) / temperature)
        if relaxation == "soft":
            return soft
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), logits.shape[-1], dtype=logits.dtype)
        return soft + jax.lax.stop_gradient(hard - soft)

    return {name: relax(name, logits) for name, logits in alphas.items()}


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


def _keys_like(key: jax.Array, tree: Alphas) -> dict[str, jax.Array]:
    return dict(zip(sorted(tree), jax.random.split(key, len(tree)), strict=True))
