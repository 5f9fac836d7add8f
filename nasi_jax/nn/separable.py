"""Separable convolution over the tokens of a sequence."""

from __future__ import annotations

import jax
from flax import linen as nn

from nasi_jax.nn.linear import LINEAR_GAIN, Dense, parameter, weight
from nasi_jax.nn.style import Style
from nasi_jax.nn.transformer import gelu, observe_tokens
from nasi_jax.programs.convolution import depthwise_conv


class SeparableConv(nn.Module):
    """A convolution of every channel by itself, a linear layer of every token, and GELU.

    Attributes:
        window: number of tokens that are read, odd.
        style: see `Style`.
    """

    window: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps (batch, length, channels) to the same shape; padding, where `mask` (batch, length) is false, is 0."""
        shape = (self.window, x.shape[-1])
        kind = self.style.parameterisation
        kernel = weight(self, shape, x.dtype, gain=LINEAR_GAIN, parameterisation=kind, name="depthwise")
        there = x * mask[..., None].astype(x.dtype)
        y = depthwise_conv(there[:, None], kernel[None])[:, 0]
        bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], x.dtype)
        y = Dense(x.shape[-1], self.style, name="pointwise")(y + bias.reshape(1, 1, -1))
        observe_tokens(self, "activation", y, mask)
        return gelu(y)
