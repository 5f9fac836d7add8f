"""How a training starts: kernels as PyTorch draws them, and running statistics."""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp


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
    return jax.tree_util.tree_map_with_path(functools.partial(_drawn, key), params)


def _drawn(key: jax.Array, path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    if leaf.ndim < 2:
        return leaf
    own = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
    bound = math.prod(leaf.shape[:-1]) ** -0.5
    return jax.random.uniform(own, leaf.shape, leaf.dtype, -bound, bound)


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
