"""Depthwise convolution as shifted multiply-adds, with derivatives of the same form.

XLA's depthwise convolution on a CPU takes 10 to 40 times as long as the same sum of shifted images, and what automatic
differentiation makes of that sum writes every shifted image to memory. Hence two primitives, each linear in both of its
arguments, the convolution and its gradient by the kernel. Every derivative of either, of any order, is one of the two.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_IMAGES = 8


def depthwise_conv(x: jax.Array, kernel: jax.Array, strides: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves every channel with a window of its own, padded as `nasi_jax.nn.conv` does.

    Args:
        x: images, (batch, height, width, channels).
        kernel: (window, window, channels), the window odd.
        strides: step of the window along height and width.
        dilation: distance of neighbouring weights of the kernel, in pixels.

    Returns:
        (batch, ceil(height / strides), ceil(width / strides), channels).
    """
    return _conv.bind(x, kernel, strides=strides, dilation=dilation)


def _shifted(x: jax.Array, window: int, strides: int, dilation: int) -> list[list[jax.Array]]:
    """Returns for each place in the window the pixels that it meets, one for each place of the window."""
    pad = dilation * (window - 1) // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    down, across = (-(-size // strides) for size in x.shape[1:3])

    def place(i: int, size: int) -> slice:
        return slice(dilation * i, dilation * i + strides * (size - 1) + 1, strides)

    return [[padded[:, place(i, down), place(j, across)] for j in range(window)] for i in range(window)]


def _convolve(x: jax.Array, kernel: jax.Array, *, strides: int, dilation: int) -> jax.Array:
    pixels = _shifted(x, len(kernel), strides, dilation)
    terms = [pixels[i][j] * kernel[i, j].reshape(1, 1, 1, -1) for i in range(len(kernel)) for j in range(len(kernel))]
    return sum(terms[1:], terms[0])


def _correlate(x: jax.Array, y: jax.Array, *, window: int, strides: int, dilation: int) -> jax.Array:
    # products are summed over up to eight images before they are written to memory
    images = next(n for n in range(min(_IMAGES, len(x)), 0, -1) if len(x) % n == 0)
    products = [
        sum(p[start::images] * y[start::images] for start in range(images))
        for row in _shifted(x, window, strides, dilation)
        for p in row
    ]
    return jnp.sum(jnp.stack(products), axis=(1, 2, 3)).reshape(window, window, -1)


def _spread(y: jax.Array, kernel: jax.Array, shape: tuple[int, ...], strides: int, dilation: int) -> jax.Array:
    """Transposes the convolution: images (batch, height / strides, width / strides, channels) to those of `shape`."""
    if strides > 1:
        ends = [size - (strides * (small - 1) + 1) for size, small in zip(shape[1:3], y.shape[1:3], strict=True)]
        sides = [(0, end, strides - 1) for end in ends]
        y = jax.lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return _conv.bind(y, kernel[::-1, ::-1], strides=1, dilation=dilation)


def _primitive(name: str, options: tuple[str, ...], function: Any, by_first: Any, by_second: Any) -> Primitive:
    """Makes a primitive of a function that is linear in both arguments, from the function and its two transposes."""
    primitive = Primitive(name)
    compiled = jax.jit(function, static_argnames=options)

    def shape(*arguments: Any, **options: Any) -> ShapedArray:
        found = jax.eval_shape(functools.partial(function, **options), *arguments)
        return ShapedArray(found.shape, found.dtype)

    primitive.def_impl(compiled)
    primitive.def_abstract_eval(shape)
    ad.defbilinear(primitive, by_first, by_second)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))

    def batched(arguments: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
        return jax.vmap(functools.partial(function, **options), in_axes=axes)(*arguments), 0

    batching.primitive_batchers[primitive] = batched
    return primitive


_conv = _primitive(
    "depthwise_conv",
    ("strides", "dilation"),
    _convolve,
    lambda y, x, kernel, strides, dilation: _spread(y, kernel, x.aval.shape, strides, dilation),
    lambda y, x, kernel, strides, dilation: _kernel_gradient.bind(
        x, y, window=kernel.aval.shape[0], strides=strides, dilation=dilation
    ),
)
_kernel_gradient = _primitive(
    "depthwise_kernel_gradient",
    ("window", "strides", "dilation"),
    _correlate,
    lambda k, x, y, window, strides, dilation: _spread(y, k, x.aval.shape, strides, dilation),
    lambda k, x, y, window, strides, dilation: _conv.bind(x, k, strides=strides, dilation=dilation),
)
