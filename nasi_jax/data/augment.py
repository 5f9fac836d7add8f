"""Random changes to images, on the device."""

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


def jitter(key: jax.Array, x: jax.Array, strength: float) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of every image, in this order.

    Brightness, contrast and saturation are factors between 1 - `strength` and 1 + `strength`; the hue turns by up to
    `strength` / 2 of the circle.

    Args:
        key: typed random key.
        x: images in red, green and blue between 0 and 1, (batch, height, width, 3).
        strength: 0 to 1; 0.4 is that of the DARTS protocol for ImageNet.

    Returns:
        An array like `x`.
    """
    factor_key, hue_key = jax.random.split(key)
    brightness, contrast, saturation = jax.random.uniform(
        factor_key, (3, len(x), 1, 1, 1), x.dtype, minval=1 - strength, maxval=1 + strength
    )
    x = jnp.clip(brightness * x, 0, 1)
    mean = jnp.mean(_grey(x), axis=(1, 2), keepdims=True)
    x = jnp.clip(mean + contrast * (x - mean), 0, 1)
    grey = _grey(x)
    x = jnp.clip(grey + saturation * (x - grey), 0, 1)
    turn = jax.random.uniform(hue_key, (len(x), 1, 1), x.dtype, minval=-strength / 2, maxval=strength / 2)
    return turn_hue(x, turn)


def turn_hue(x: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue and leaves the largest and the smallest of the three colours as they are.

    Args:
        x: red, green and blue between 0 and 1, (..., 3).
        turn: in circles, (...).

    Returns:
        An array like `x`.
    """
    red, green, blue = jnp.moveaxis(x, -1, 0)
    largest, spread = jnp.max(x, axis=-1), jnp.max(x, axis=-1) - jnp.min(x, axis=-1)
    width = jnp.where(spread > 0, spread, 1)
    sixths = jnp.where(
        largest == red,
        (green - blue) / width,
        jnp.where(largest == green, (blue - red) / width + 2, (red - green) / width + 4),
    )
    sixths = sixths + 6 * turn
    places = [(offset + sixths) % 6 for offset in (5, 3, 1)]
    return jnp.stack([largest - spread * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in places], axis=-1)


def _grey(x: jax.Array) -> jax.Array:
    """Returns the luma of ITU-R BT.601, (..., 1)."""
    return (x @ jnp.array([0.299, 0.587, 0.114], x.dtype))[..., None]


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
