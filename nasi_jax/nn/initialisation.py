"""How a training starts: kernels as PyTorch or BERT draws them, and running statistics."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_BERT_DEVIATION = 0.02


def as_pytorch(key: jax.Array, params: Any) -> Any:
    """Draws kernels anew as PyTorch's layers do by default: uniform up to 1 / sqrt(inputs).

    A kernel depends on the key and its name alone, so that networks which share a part of their tree share its kernels.

    Args:
        key: typed random key.
        params: pytree of parameters. The last axis of a kernel is that of its outputs; biases and scales, which are
            vectors, stay as they are.

    Returns:
        The parameters.
    """
    return jax.tree_util.tree_map_with_path(functools.partial(_drawn, _uniform, key), params)


def as_bert(key: jax.Array, params: Any) -> Any:
    """Draws kernels and embeddings anew as BERT: normal, of deviation 0.02, without what is beyond two deviations.

    Args:
        key: see `as_pytorch`.
        params: see `as_pytorch`.

    Returns:
        The parameters.

    References:
        Devlin, Chang, Lee and Toutanova, NAACL 2019, the authors' code.
    """
    return jax.tree_util.tree_map_with_path(functools.partial(_drawn, _small, key), params)


def _drawn(draw: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array, path: Any, leaf: jax.Array) -> jax.Array:
    if leaf.ndim < 2:
        return leaf
    return draw(jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode())), leaf)


def _uniform(key: jax.Array, like: jax.Array) -> jax.Array:
    bound = math.prod(like.shape[:-1]) ** -0.5
    return jax.random.uniform(key, like.shape, like.dtype, -bound, bound)


def _small(key: jax.Array, like: jax.Array) -> jax.Array:
    return _BERT_DEVIATION * jax.random.truncated_normal(key, -2, 2, like.shape, like.dtype)


def initial_statistics(like: Any) -> Any:
    """Returns running statistics before the first batch, means 0 and variances 1.

    Args:
        like: the collection `RUNNING_STATISTICS` of a network, pairs of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
        A tree like it.
    """
    return jax.tree.map(
        lambda moments: (jnp.zeros(moments[0].shape, moments[0].dtype), jnp.ones(moments[1].shape, moments[1].dtype)),
        like,
        is_leaf=lambda node: isinstance(node, tuple),
    )
