"""Convolutions with derivatives of their own, of which a CPU computes each in the form that is fast there.

Equals: `jax.lax.conv_general_dilated` with padding that keeps the sides (`conv`), and the same with as many groups as
channels (`depthwise_conv`), with all their derivatives.

Why: on a CPU, what automatic differentiation makes of a convolution is slow in two ways. The gradient by the kernel
takes twice as long over a large batch as over small parts of it, and in a loop or a branch of a program XLA computes
it 30 to 160 times more slowly, unless it has the layout of a plain convolution. A depthwise convolution takes XLA 10
to 40 times as long as the same sum of shifted images, whose own derivatives would write every shifted image to memory.
Hence two pairs of primitives, each linear in both of its arguments: a convolution and its gradient by the kernel.
Every derivative of either, of any order, is one of the two.

Figure: inside a loop, a gradient by the kernel of four convolutions of 64 images with 16 channels takes 39 ms for 1707
ms (benchmarks/README.md).

Delete when: XLA's CPU backend computes the gradient of a convolution in a loop or a branch, and a depthwise one, as
fast as a plain one; `benchmarks/training_step.py` and `score_throughput.py` tell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_IMAGES_IN_CACHE = 8


@functools.partial(jax.jit, static_argnames=("strides", "dilation"))
def conv(x: jax.Array, kernel: jax.Array, strides: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves, padding each side by half of what the window covers, as PyTorch's `padding=1` does for a 3x3 window.

    Args:
        x: images, (batch, height, width, channels).
        kernel: (height, width, channels, features) of the window, both odd.
        strides: step of the window along height and width.
        dilation: distance of neighbouring weights of the kernel, in pixels.

    Returns:
        (batch, ceil(height / strides), ceil(width / strides), features).
    """
    if kernel.shape[:2] == (1, 1):
        return _dense.bind(x[:, ::strides, ::strides], kernel, strides=1, dilation=1)
    return _dense.bind(x, kernel, strides=strides, dilation=dilation)


def depthwise_conv(x: jax.Array, kernel: jax.Array, strides: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves every channel with a window of its own, padded as `conv` does.

    Args:
        x: images, (batch, height, width, channels).
        kernel: (height, width, channels) of the window, both odd.
        strides: step of the window along height and width.
        dilation: distance of neighbouring weights of the kernel, in pixels.

    Returns:
        (batch, ceil(height / strides), ceil(width / strides), channels).
    """
    return _depthwise.bind(x, kernel, strides=strides, dilation=dilation)


def saves_products(primitive: Primitive, *arguments: Any, **options: Any) -> bool:
    """Tells `jax.checkpoint` to keep what convolutions and matrix products give, for the gradient, and nothing else."""
    return primitive is _dense or jax.checkpoint_policies.dots_saveable(primitive, *arguments, **options)


def _padding(window: tuple[int, ...], dilation: int) -> list[int]:
    """Returns the pixels that are added on each side, for height and width."""
    return [dilation * (side - 1) // 2 for side in window]


def _convolve(x: jax.Array, kernel: jax.Array, *, strides: int, dilation: int) -> jax.Array:
    if kernel.shape[:3] == (1, 1, x.shape[-1]):
        return x @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(pad, pad) for pad in _padding(kernel.shape[:2], dilation)],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _correlate_on_cpu(x: jax.Array, y: jax.Array, *, window: tuple[int, int], strides: int, dilation: int) -> jax.Array:
    """Adds over parts of the batch, each a plain convolution of images whose channels are the batch."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    pads = _padding(window, dilation)
    ends = [
        dilation * (side - 1) + strides * (small - 1) + 1 - pad - size
        for side, pad, size, small in zip(window, pads, x.shape[1:3], y.shape[1:3], strict=True)
    ]

    def of_part(x: jax.Array, y: jax.Array) -> jax.Array:
        if window == (1, 1):
            return jnp.einsum("nhwc,nhwf->cf", x, y, preferred_element_type=wide)[None, None]
        gradient = jax.lax.conv_general_dilated(
            jnp.transpose(x, (3, 1, 2, 0)),
            jnp.transpose(y, (1, 2, 0, 3)),
            (dilation, dilation),
            list(zip(pads, ends, strict=True)),
            rhs_dilation=(strides, strides),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=wide,
        )
        return jnp.transpose(gradient, (1, 2, 0, 3))

    images = _images(len(x))
    if images == len(x):
        return of_part(x, y).astype(x.dtype)

    def add_part(i: jax.Array, total: jax.Array) -> jax.Array:
        # sliced and not reshaped before: XLA would compute what leads to x and y once more for that shape
        return total + of_part(*(jax.lax.dynamic_slice_in_dim(leaf, i * images, images) for leaf in (x, y)))

    start = jnp.zeros((*window, x.shape[-1], y.shape[-1]), wide)
    return jax.lax.fori_loop(0, len(x) // images, add_part, start).astype(x.dtype)


def _images(batch: int) -> int:
    """Returns how many images to take at once."""
    return next(n for n in range(min(_IMAGES_IN_CACHE, batch), 0, -1) if batch % n == 0)


def _shifted(x: jax.Array, window: tuple[int, ...], strides: int, dilation: int) -> list[list[jax.Array]]:
    """Returns for each place in the window the pixels that it meets, one for each place of the window."""
    padded = jnp.pad(x, ((0, 0), *((pad, pad) for pad in _padding(window, dilation)), (0, 0)))
    down, across = (-(-size // strides) for size in x.shape[1:3])

    def place(i: int, size: int) -> slice:
        return slice(dilation * i, dilation * i + strides * (size - 1) + 1, strides)

    return [[padded[:, place(i, down), place(j, across)] for j in range(window[1])] for i in range(window[0])]


def _convolve_each(x: jax.Array, kernel: jax.Array, *, strides: int, dilation: int) -> jax.Array:
    return _convolve(x, kernel[:, :, None], strides=strides, dilation=dilation)


def _convolve_each_on_cpu(x: jax.Array, kernel: jax.Array, *, strides: int, dilation: int) -> jax.Array:
    pixels = _shifted(x, kernel.shape[:2], strides, dilation)
    terms = [p * kernel[i, j].reshape(1, 1, 1, -1) for i, row in enumerate(pixels) for j, p in enumerate(row)]
    return sum(terms[1:], terms[0])


def _correlate_each_on_cpu(
    x: jax.Array, y: jax.Array, *, window: tuple[int, int], strides: int, dilation: int
) -> jax.Array:
    # products are summed over up to eight images before they are written to memory
    images = _images(len(x))
    products = [
        sum(p[start::images] * y[start::images] for start in range(images))
        for row in _shifted(x, window, strides, dilation)
        for p in row
    ]
    return jnp.sum(jnp.stack(products), axis=(1, 2, 3)).reshape(*window, -1)


def _primitives(
    name: str,
    convolve: Callable[..., Any],
    on_cpu: Callable[..., Any],
    gradient_on_cpu: Callable[..., Any],
    channels: Callable[..., tuple[int, ...]],
) -> Primitive:
    """Makes a convolution and its gradient by the kernel two primitives, and returns the former.

    Args:
        name: name of the former.
        convolve: the convolution.
        on_cpu: the same in the form for a CPU.
        gradient_on_cpu: its gradient by the kernel in the form for a CPU, from images and cotangents.
        channels: the last axes of a kernel's shape, from images and cotangents.

    Returns:
        The primitive.
    """
    forward, gradient = Primitive(name), Primitive(f"{name}_kernel_gradient")

    def correlate(x: jax.Array, y: jax.Array, *, window: tuple[int, int], strides: int, dilation: int) -> jax.Array:
        kernel = jax.ShapeDtypeStruct((*window, *channels(x, y)), x.dtype)
        return jax.linear_transpose(lambda k: convolve(x, k, strides=strides, dilation=dilation), kernel)(y)[0]

    def back(y: jax.Array, kernel: jax.Array, shape: tuple[int, ...], strides: int, dilation: int) -> jax.Array:
        if strides > 1:
            ends = [size - (strides * (small - 1) + 1) for size, small in zip(shape[1:3], y.shape[1:3], strict=True)]
            sides = [(0, end, strides - 1) for end in ends]
            y = jax.lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
        turned = kernel[::-1, ::-1]
        return forward.bind(y, jnp.swapaxes(turned, 2, 3) if kernel.ndim == 4 else turned, strides=1, dilation=dilation)

    def by_images(y: Any, x: Any, kernel: Any, **options: Any) -> jax.Array:
        return back(y, kernel, x.aval.shape, **options)

    def by_kernel(y: Any, x: Any, kernel: Any, **options: Any) -> jax.Array:
        return gradient.bind(x, y, window=kernel.aval.shape[:2], **options)

    def gradient_by_images(k: Any, x: Any, y: Any, window: tuple[int, int], **options: Any) -> jax.Array:
        return back(y, k, x.aval.shape, **options)

    def gradient_by_cotangents(k: Any, x: Any, y: Any, window: tuple[int, int], **options: Any) -> jax.Array:
        return forward.bind(x, k, **options)

    _define(forward, convolve, on_cpu, by_images, by_kernel)
    _define(gradient, correlate, gradient_on_cpu, gradient_by_images, gradient_by_cotangents)
    return forward


def _define(
    primitive: Primitive,
    function: Callable[..., Any],
    on_cpu: Callable[..., Any],
    by_first: Callable[..., Any],
    by_second: Callable[..., Any],
) -> None:
    """Gives a primitive its function, which is linear in both arguments, and the function's two transposes."""

    def anywhere(*arguments: Any, **options: Any) -> jax.Array:
        if on_cpu is function:
            return function(*arguments, **options)
        forms = {"cpu": on_cpu, "default": function}
        return jax.lax.platform_dependent(*arguments, **{k: functools.partial(f, **options) for k, f in forms.items()})

    def shape(*arguments: Any, **options: Any) -> ShapedArray:
        found = jax.eval_shape(functools.partial(function, **options), *arguments)
        return ShapedArray(found.shape, found.dtype)

    def batched(arguments: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
        return jax.vmap(functools.partial(anywhere, **options), in_axes=axes)(*arguments), 0

    primitive.def_impl(jax.jit(anywhere, static_argnames=("window", "strides", "dilation")))
    primitive.def_abstract_eval(shape)
    ad.defbilinear(primitive, by_first, by_second)
    mlir.register_lowering(primitive, mlir.lower_fun(anywhere, multiple_results=False))
    batching.primitive_batchers[primitive] = batched


_dense = _primitives("dense_conv", _convolve, _convolve, _correlate_on_cpu, lambda x, y: (x.shape[-1], y.shape[-1]))
_depthwise = _primitives(
    "depthwise_conv", _convolve_each, _convolve_each_on_cpu, _correlate_each_on_cpu, lambda x, y: y.shape[-1:]
)
