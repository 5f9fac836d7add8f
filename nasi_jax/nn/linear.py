"""Convolution and dense layers in standard or NTK parameterisation."""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from nasi_jax.nn.style import Parameterisation, Style, scaled

NTK_BIAS_SCALE = 0.1
"""Factor of a bias in NTK parameterisation, beta of Jacot et al. (2018), section 2.1, with the value they use.

At 1, the bias of the head alone, whose gradient is the same for every input, outweighs all other layers of a network
of small gradients.
"""

RELU_GAIN = 2.0
LINEAR_GAIN = 1.0


def weight(
    module: nn.Module,
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike,
    *,
    gain: float = RELU_GAIN,
    parameterisation: Parameterisation = "standard",
) -> jax.Array:
    """Declares the parameter `kernel` in `module` and returns the weight that it stands for.

    Args:
        module: the bound module, inside its compact method.
        shape: shape of the weight; the last axis is the output axis and the others make the fan-in.
        dtype: type of the weight.
        gain: variance of the weight times its fan-in.
        parameterisation: see `Parameterisation`.

    Returns:
        The weight, of `shape` and `dtype`.
    """
    deviation = math.sqrt(gain / math.prod(shape[:-1]))
    if parameterisation == "ntk":
        return deviation * module.param("kernel", nn.initializers.normal(1.0), shape, dtype)
    return module.param("kernel", nn.initializers.normal(deviation), shape, dtype)


def conv(x: jax.Array, kernel: jax.Array, strides: int = 1) -> jax.Array:
    """Convolves, padding each side by (window - 1) / 2 as PyTorch's `padding=1` does for a 3x3 window.

    Args:
        x: images, (batch, height, width, channels).
        kernel: (window, window, channels, features), the window odd.
        strides: step of the window along height and width.

    Returns:
        (batch, ceil(height / strides), ceil(width / strides), features).
    """
    if kernel.shape[0] == 1 and strides == 1:
        return x @ kernel[0, 0]
    pad = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Conv(nn.Module):
    """A convolution without bias, padded as `conv` says.

    Attributes:
        features: output channels.
        window: height and width of the kernel, odd.
        gain: variance of the weights times their fan-in.
        style: see `Style`.
    """

    features: int
    window: int = 3
    gain: float = RELU_GAIN
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, features)."""
        shape = (self.window, self.window, x.shape[-1], self.features)
        kernel = weight(self, shape, x.dtype, gain=self.gain, parameterisation=self.style.parameterisation)
        return scaled(self, "output", conv(x, kernel))


class Dense(nn.Module):
    """A fully connected layer whose bias starts at zero.

    Attributes:
        features: number of outputs.
        style: see `Style`; in NTK parameterisation the bias is used times `NTK_BIAS_SCALE`.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, channels) to (batch, features)."""
        shape = (x.shape[-1], self.features)
        kernel = weight(self, shape, x.dtype, gain=LINEAR_GAIN, parameterisation=self.style.parameterisation)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        scale = NTK_BIAS_SCALE if self.style.parameterisation == "ntk" else 1.0
        return scaled(self, "output", x @ kernel + scale * bias.reshape(1, -1))
