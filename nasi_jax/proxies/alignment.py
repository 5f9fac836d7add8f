"""How much of what inputs have in common is left in what a network makes of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.jit
def alignment(features: jax.Array, inputs: jax.Array) -> jax.Array:
    r"""Returns the centred kernel alignment of features and inputs of the same examples.

    .. math:: \frac{\langle K, L \rangle}{\lVert K \rVert \lVert L \rVert}, \qquad
        K = H F F^\top H, \quad L = H X X^\top H, \quad H = I - \tfrac{1}{n} 1 1^\top

    It is 1 where features are inputs up to rotation, scale and shift, and small where few examples stand out in one of
    the two, or where features tell others apart than inputs do.

    Args:
        features: (examples, ...).
        inputs: (examples, ...).

    Returns:
        A scalar from 0 to 1; zero where all examples are alike.

    References:
        Cortes, Mohri and Rostamizadeh, "Algorithms for learning kernels based on centered alignment", JMLR 2012;
        Kornblith et al., "Similarity of neural network representations revisited", ICML 2019.
    """
    first, second = _kernel(features), _kernel(inputs)
    norms = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    return jnp.sum(first * second) / jnp.where(norms > 0, norms, 1)


def _kernel(values: jax.Array) -> jax.Array:
    rows = values.reshape(len(values), -1)
    centred = rows - rows.mean(axis=0, keepdims=True)
    # by the largest entry, because fourth powers of large features overflow
    centred = centred / jnp.maximum(jnp.abs(centred).max(), jnp.finfo(values.dtype).tiny)
    return centred @ centred.T
