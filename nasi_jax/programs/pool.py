"""Pools with derivatives of their own: what a window sees is read from one padded image, and so is what saw a pixel.

Equals: `flax.linen.avg_pool` with ``count_include_pad=False`` (`average_pool`) and `flax.linen.max_pool` (`max_pool`),
with their derivatives.

Why: automatic differentiation pads every shifted cotangent by itself, and XLA computes what leads to the cotangent
once more for each of them. A pool and its derivative are linear maps that read the pixels of a window, all of them or
the one of an index; the transpose reads what the windows over a pixel give it.

Figure: the gradient of XLA's maximum over windows takes six times as long on a CPU; averages by rows and then columns
are one of four things that brought a score at full size from 1.5 of PyTorch's time to 0.82 (benchmarks/README.md).

Delete when: XLA's `reduce_window` and its gradient take no longer on a CPU than shifted images do.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


@functools.partial(jax.jit, static_argnames=("window", "strides"))
def average_pool(x: jax.Array, window: int = 3, strides: int = 1) -> jax.Array:
    """Averages over windows; an odd window is padded and the padding is not counted.

    Args:
        x: images, (batch, height, width, channels).
        window: height and width of the window; padding is (window - 1) // 2.
        strides: step of the window.

    Returns:
        (batch, height / strides, width / strides, channels).
    """
    rows, columns = (_window_counts(size, window, strides) for size in x.shape[1:3])
    # counted with NumPy: XLA would fold the same count of a constant image at compile time, for minutes
    counts = np.asarray(rows.reshape(1, -1, 1, 1) * columns.reshape(1, 1, -1, 1), x.dtype)
    return _linear.bind(x, window=window, strides=strides, size=x.shape[1:3], back=False) / counts


@functools.partial(jax.jit, static_argnames=("window", "strides"))
def max_pool(x: jax.Array, window: int = 3, strides: int = 1) -> jax.Array:
    """Takes the maximum over windows, the padding never.

    The first of several equal pixels has the gradient, row by row, as in PyTorch.

    Args:
        x: images, (batch, height, width, channels).
        window: height and width of the window; padding is (window - 1) // 2.
        strides: step of the window.

    Returns:
        (batch, height / strides, width / strides, channels).
    """
    return _max_pool(x, window, strides)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(x: jax.Array, window: int, strides: int) -> jax.Array:
    return _largest(x, window, strides)[0]


@_max_pool.defjvp
def _derivative(window: int, strides: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    ((x,), (tangent,)) = primals, tangents
    value, index = _largest(x, window, strides)
    return value, _linear.bind(tangent, index, window=window, strides=strides, size=x.shape[1:3], back=False)


def _largest(x: jax.Array, window: int, strides: int) -> tuple[jax.Array, jax.Array]:
    """Returns the largest pixel of every window, and which one of the window that is, as int8."""
    first, *others = _seen(x, window, strides, -jnp.inf)
    best, index = first, jnp.zeros(first.shape, jnp.int8)
    for i, pixel in enumerate(others, start=1):
        better = ~((best >= pixel) | jnp.isnan(best))
        best, index = jnp.where(better, pixel, best), jnp.where(better, jnp.int8(i), index)
    return best, index


def _seen(x: jax.Array, window: int, strides: int, outside: float) -> list[jax.Array]:
    """Returns for each place in the window the pixel that is there, for all windows."""
    pad = (window - 1) // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=outside)
    ends = [strides * (_windows(size, window, strides) - 1) + 1 for size in x.shape[1:3]]
    return [
        padded[:, i : i + ends[0] : strides, j : j + ends[1] : strides] for i in range(window) for j in range(window)
    ]


def _seeing(y: jax.Array, window: int, strides: int, size: tuple[int, int], outside: float) -> list[jax.Array]:
    """Returns for each place in the window what the window gives that has the pixel there, for all pixels."""
    before = window - 1 - (window - 1) // 2
    sides = [
        (before, large + window - 1 - before - strides * (small - 1) - 1, strides - 1)
        for large, small in zip(size, y.shape[1:3], strict=True)
    ]
    padded = jax.lax.pad(y, jnp.array(outside, y.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return [
        padded[:, window - 1 - i : window - 1 - i + size[0], window - 1 - j : window - 1 - j + size[1]]
        for i in range(window)
        for j in range(window)
    ]


def _windows(size: int, window: int, strides: int) -> int:
    return (size + 2 * ((window - 1) // 2) - window) // strides + 1


def _window_counts(size: int, window: int, strides: int) -> np.ndarray:
    starts = np.arange(_windows(size, window, strides)) * strides - (window - 1) // 2
    return np.minimum(starts + window, size) - np.maximum(starts, 0)


def _sum(
    images: jax.Array, *index: jax.Array, window: int, strides: int, size: tuple[int, int], back: bool
) -> jax.Array:
    """Adds what a window sees, or where there is an index takes that one; or back from windows to pixels.

    Args:
        images: (batch, height, width, channels), of what the windows give where it goes back.
        *index: for each window and channel which pixel counts, or nothing.
        window: height and width of the window.
        strides: step of the window.
        size: height and width of the images that the windows see.
        back: whether to compute the transpose.

    Returns:
        (batch, height, width, channels) of what the windows give, or where it goes back of the images.
    """
    shifted = functools.partial(_seeing, size=size) if back else _seen
    parts = shifted(images, window, strides, outside=0)
    if index:
        # an index is the window's own, and goes with what the window gives
        indices = _seeing(index[0], window, strides, size, -1) if back else [index[0]] * len(parts)
        parts = [jnp.where(i == place, part, 0) for place, (i, part) in enumerate(zip(indices, parts, strict=True))]
    return sum(parts[1:], parts[0])


def _shape(images: ShapedArray, *index: ShapedArray, **options: Any) -> ShapedArray:
    found = jax.eval_shape(functools.partial(_sum, **options), images, *index)
    return ShapedArray(found.shape, found.dtype)


def _differentiated(primals: Any, tangents: Any, **options: Any) -> tuple[Any, Any]:
    return _linear.bind(*primals, **options), _linear.bind(tangents[0], *primals[1:], **options)


def _transposed(cotangent: Any, images: Any, *index: Any, back: bool, **options: Any) -> list[Any]:
    return [_linear.bind(ad.instantiate_zeros(cotangent), *index, back=not back, **options), *[None] * len(index)]


def _batched(arguments: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
    return jax.vmap(functools.partial(_sum, **options), in_axes=axes)(*arguments), 0


_linear = Primitive("pool")
_linear.def_impl(jax.jit(_sum, static_argnames=("window", "strides", "size", "back")))
_linear.def_abstract_eval(_shape)
ad.primitive_jvps[_linear] = _differentiated
ad.primitive_transposes[_linear] = _transposed
batching.primitive_batchers[_linear] = _batched
mlir.register_lowering(_linear, mlir.lower_fun(_sum, multiple_results=False))
