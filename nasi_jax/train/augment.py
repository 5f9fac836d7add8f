"""Random changes to training images, on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def crop(key: jax.Array, x: jax.Array, pixels: int) -> jax.Array:
    """Shifts every image by up to `pixels` along height and width, with zeros (black) where it leaves space.

    Args:
        key: typed random key.
        x: images, (batch, height, width, colours).
        pixels: the largest shift.

    Returns:
        An array like `x`.
    """
    padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * pixels + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:]))(padded, corners)


def flip(key: jax.Array, x: jax.Array) -> jax.Array:
    """Mirrors each of the images (batch, height, width, colours) with probability 1/2."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def cutout(key: jax.Array, x: jax.Array, side: int) -> jax.Array:
    """Sets a square with its centre anywhere in the image to zero, which is the mean of normalised images.

    Args:
        key: typed random key.
        x: images, (batch, height, width, colours).
        side: side of the square, which may reach beyond the image.

    Returns:
        An array like `x`.

    References:
        DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    inside = []
    for axis, axis_key in enumerate(jax.random.split(key)):
        size = x.shape[1 + axis]
        first = jax.random.randint(axis_key, (len(x), 1), 0, size) - side // 2
        place = jnp.arange(size).reshape(1, -1)
        inside.append((place >= first) & (place < first + side))
    return jnp.where(inside[0][:, :, None, None] & inside[1][:, None, :, None], 0, x)
