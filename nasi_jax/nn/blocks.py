"""Blocks that the cells of several search spaces share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.nn.linear import LINEAR_GAIN, RELU_GAIN, Conv, conv, weight
from nasi_jax.nn.style import Style, rectify, scaled

BATCH_NORM_EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalises every channel by a mean and a variance (Ioffe and Szegedy, 2015).

    Attributes:
        style: see `Style`.
    """

    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the same shape."""
        x = normalise(x, self.style)
        if not self.style.affine:
            return x
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], x.dtype)
        return shift_scale(x, scale, self.param("bias", nn.initializers.zeros, x.shape[-1:], x.dtype))


def shift_scale(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Multiplies each channel by its scale, then adds its bias; `x` is (batch, height, width, channels)."""
    return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


def normalise(x: jax.Array, style: Style) -> jax.Array:
    """Subtracts each channel's mean over batch, height and width and divides by its standard deviation."""
    if style.normalisation == "fixed":
        return x / math.sqrt(1 + BATCH_NORM_EPSILON)
    return jax.nn.standardize(x, axis=(0, 1, 2), epsilon=BATCH_NORM_EPSILON)


class ConvNormWeights(NamedTuple):
    """What one ReLU-Conv-BN needs: kernel (window, window, channels, features), scale and bias (features,) or None."""

    kernel: jax.Array
    scale: jax.Array | None
    bias: jax.Array | None


class ReLUConvNorm(nn.Module):
    """ReLU, a convolution without bias, batch normalisation.

    Attributes:
        features: output channels.
        window: height and width of the kernel.
        strides: step of the window.
        style: see `Style`.
    """

    features: int
    window: int = 3
    strides: int = 1
    style: Style = Style()

    @nn.compact
    def weights(self, channels: int, dtype: jax.typing.DTypeLike) -> ConvNormWeights:
        """Declares the parameters for an input of `channels`, for `relu_conv_norm` to use."""
        shape = (self.window, self.window, channels, self.features)
        kernel = weight(self, shape, dtype, parameterisation=self.style.parameterisation)
        if not self.style.affine:
            return ConvNormWeights(kernel, None, None)
        scale = self.param("scale", nn.initializers.ones, (self.features,), dtype)
        return ConvNormWeights(kernel, scale, self.param("bias", nn.initializers.zeros, (self.features,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        branches = [self.weights(x.shape[-1], x.dtype)]
        return relu_conv_norm(self, "relu", x, branches, self.style, self.strides)[0]


def relu_conv_norm(
    module: nn.Module,
    name: str,
    x: jax.Array,
    branches: Sequence[ConvNormWeights],
    style: Style,
    strides: int = 1,
    uses: jax.Array | float = 1.0,
) -> list[jax.Array]:
    """Applies several ReLU-Conv-BN to one input, as one convolution for each window size.

    Kernels that read the same input concatenate along their output channels, and batch normalisation acts on every
    channel alone, so the joint result is exactly that of the branches one by one.

    Args:
        module: the bound module that they are part of.
        name: name, in the module, under which their shared ReLU and their convolutions are observed.
        x: images, (batch, height, width, channels).
        branches: weights of each branch.
        style: see `Style`.
        strides: step of all windows.
        uses: number of branches that are in use, see `rectify`.

    Returns:
        One (batch, height / strides, width / strides, features) array for each branch, in the order given.
    """
    outputs: dict[int, jax.Array] = {}
    rectified = rectify(module, name, x, uses) if branches else x
    for window in {branch.kernel.shape[0]: None for branch in branches}:
        group = [i for i, branch in enumerate(branches) if branch.kernel.shape[0] == window]
        kernels = [branches[i].kernel for i in group]
        joint = scaled(module, f"{name}_conv_{window}", conv(rectified, jnp.concatenate(kernels, axis=-1), strides))
        joint = normalise(joint, style)
        ends = list(itertools.accumulate(kernel.shape[-1] for kernel in kernels))
        for i, part in zip(group, jnp.split(joint, ends[:-1], axis=-1), strict=True):
            scale, bias = branches[i].scale, branches[i].bias
            outputs[i] = part if scale is None or bias is None else shift_scale(part, scale, bias)
    return [outputs[i] for i in range(len(branches))]


def average_pool(x: jax.Array, window: int = 3, strides: int = 1) -> jax.Array:
    """Averages over windows; an odd window is padded and the padding is not counted.

    Args:
        x: images, (batch, height, width, channels).
        window: height and width of the window; padding is (window - 1) // 2.
        strides: step of the window.

    Returns:
        (batch, height / strides, width / strides, channels).
    """
    pad = (window - 1) // 2
    padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, window, window, 1), (1, strides, strides, 1), padding)
    rows, columns = (_window_counts(size, window, strides, pad) for size in x.shape[1:3])
    # counted with NumPy: XLA would fold the same count of a constant image at compile time, for minutes
    return total / np.asarray(rows.reshape(1, -1, 1, 1) * columns.reshape(1, 1, -1, 1), x.dtype)


def _window_counts(size: int, window: int, strides: int, pad: int) -> np.ndarray:
    starts = np.arange((size + 2 * pad - window) // strides + 1) * strides - pad
    return np.minimum(starts + window, size) - np.maximum(starts, 0)


class ResidualReduction(nn.Module):
    """A residual block that halves the image, as between the stages of NAS-Bench-201.

    ReLU-Conv-BN with stride 2, ReLU-Conv-BN with stride 1; the shortcut is a 2x2 average and a 1x1 convolution.

    Attributes:
        features: output channels.
        style: see `Style`.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / 2, width / 2, features), even sizes."""
        y = ReLUConvNorm(self.features, strides=2, style=self.style, name="conv_a")(x)
        y = ReLUConvNorm(self.features, style=self.style, name="conv_b")(y)
        shortcut = Conv(self.features, 1, LINEAR_GAIN, self.style, name="shortcut")
        return y + shortcut(average_pool(x, window=2, strides=2))


class Stem(nn.Module):
    """A 3x3 convolution and batch normalisation.

    Attributes:
        features: output channels.
        style: see `Style`.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, features)."""
        x = Conv(self.features, 3, RELU_GAIN, self.style, name="conv")(x)
        return BatchNorm(self.style, name="norm")(x)
