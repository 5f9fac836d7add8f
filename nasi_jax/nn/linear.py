"""Convolution and dense layers in standard or NTK parameterisation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
from flax import linen as nn

from nasi_jax.nn.style import USED_PARAMETERS, Parameterisation, Style, channel_scale
from nasi_jax.programs.convolution import conv

NTK_BIAS_SCALE = 0.1
"""Factor of a bias in NTK parameterisation, beta of Jacot et al. (2018), section 2.1, with the value they use.

At 1, the bias of the head alone, whose gradient is the same for every input, outweighs all other layers of a network
of small gradients.
"""

RELU_GAIN = 2.0
LINEAR_GAIN = 1.0


def parameter(
    module: nn.Module,
    name: str,
    initializer: Callable[..., jax.Array],
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    """Declares a parameter as `module.param` does, and returns it.

    Where the collection `USED_PARAMETERS` is mutable, the parameter is put there too, so that a network tells which
    parts of a larger tree of parameters it reads. `module.param` traces the initialiser at every use, to compare
    shapes, which takes longer than a small convolution where a network is applied outside of `jit`.

    Args:
        module: the bound module, inside its compact method.
        name: name of the parameter.
        initializer: draws its first value, `initializer(key, shape, dtype)`.
        shape: its shape.
        dtype: its type.

    Returns:
        The parameter.
    """
    if not module.is_initializing() and module.has_variable("params", name):
        value = module.get_variable("params", name)
        if module.is_mutable_collection(USED_PARAMETERS):
            module.put_variable(USED_PARAMETERS, name, value)
        return value
    return module.param(name, initializer, shape, dtype)


def weight(
    module: nn.Module,
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike,
    *,
    gain: float = RELU_GAIN,
    parameterisation: Parameterisation = "standard",
    name: str = "kernel",
) -> jax.Array:
    """Declares a parameter in `module` and returns the weight that it stands for.

    Args:
        module: the bound module, inside its compact method.
        shape: shape of the weight; the last axis is the output axis and the others make the fan-in.
        dtype: type of the weight.
        gain: variance of the weight times its fan-in.
        parameterisation: see `Parameterisation`.
        name: name of the parameter.

    Returns:
        The weight, of `shape` and `dtype`.
    """
    deviation = math.sqrt(gain / math.prod(shape[:-1]))
    if parameterisation == "ntk":
        return deviation * parameter(module, name, functools.partial(_normal, 1.0), shape, dtype)
    return parameter(module, name, functools.partial(_normal, deviation), shape, dtype)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _normal(deviation: float, key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.Array:
    """Draws from N(0, deviation^2), the same numbers as `nn.initializers.normal`."""
    # drawn along one axis, which XLA compiles for a CPU in up to a ninth of the time
    return (deviation * jax.random.normal(key, (math.prod(shape),), dtype)).reshape(shape)


class Conv(nn.Module):
    """A convolution without bias, padded as `conv` says.

    Attributes:
        features: output channels.
        window: height and width of the kernel, odd.
        gain: variance of the weights times their fan-in.
        style: see `Style`.
        strides: step of the window.
    """

    features: int
    window: int = 3
    gain: float = RELU_GAIN
    style: Style = Style()
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        shape = (self.window, self.window, x.shape[-1], self.features)
        kernel = weight(self, shape, x.dtype, gain=self.gain, parameterisation=self.style.parameterisation)
        y = conv(x, kernel, self.strides)
        scale = channel_scale(self, "output", y.shape, y.dtype)
        return y if scale is None else scale * y


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
        """Maps (batch, ..., channels) to (batch, ..., features)."""
        shape = (x.shape[-1], self.features)
        kernel = weight(self, shape, x.dtype, gain=LINEAR_GAIN, parameterisation=self.style.parameterisation)
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,), x.dtype)
        bias_scale = NTK_BIAS_SCALE if self.style.parameterisation == "ntk" else 1.0
        y = x @ kernel + bias_scale * bias.reshape((1,) * (x.ndim - 1) + (-1,))
        scale = channel_scale(self, "output", y.shape, y.dtype)
        return y if scale is None else scale * y
