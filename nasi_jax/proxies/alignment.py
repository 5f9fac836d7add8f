"""How much of what inputs have in common is left in what a network makes of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.jit
def alignment(features: jax.Array, inputs: jax.Array) -> jax.Array:
    r"""Returns the centred kernel alignment of the directions of features with the inputs of the same examples.

    .. math:: \frac{\langle K, L \rangle}{\lVert K \rVert \lVert L \rVert}, \qquad
        K = H U U^\top H, \quad L = H X X^\top H, \quad H = I - \tfrac{1}{n} 1 1^\top

    with rows u_i = f_i / |f_i|, so that a few examples with large features do not decide. It is small where features
    tell other examples apart than inputs do, and where they have few directions.

    Args:
        features: (examples, ...).
        inputs: (examples, ...).

    Returns:
        A scalar from 0 to 1; zero where all examples are alike.

    References:
        Cortes, Mohri and Rostamizadeh, "Algorithms for learning kernels based on centered alignment", JMLR 2012;
        Kornblith et al., "Similarity of neural network representations revisited", ICML 2019.
    """
    first, second = _kernel(_directions(features)), _kernel(_scaled(inputs))
    norms = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    return jnp.sum(first * second) / jnp.where(norms > 0, norms, 1)


def _directions(features: jax.Array) -> jax.Array:
    rows = _scaled(features)
    lengths = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(lengths > 0, lengths, 1)


def _scaled(values: jax.Array) -> jax.Array:
    """Divides by the largest entry, because fourth powers of large values overflow."""
    rows = values.reshape(len(values), -1)
    return rows / jnp.maximum(jnp.abs(rows).max(), jnp.finfo(rows.dtype).tiny)


def _kernel(rows: jax.Array) -> jax.Array:
    centred = rows - rows.mean(axis=0, keepdims=True)
    return centred @ centred.T
