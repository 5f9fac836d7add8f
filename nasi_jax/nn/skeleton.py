"""What networks have around their cells: stems, and blocks that halve an image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.nn.blocks import BatchNorm, ReLUConvNorm
from nasi_jax.nn.linear import LINEAR_GAIN, RELU_GAIN, Conv
from nasi_jax.nn.style import Style, observe
from nasi_jax.programs.execution import Execution
from nasi_jax.programs.pool import average_pool


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


class FactorizedReduction(nn.Module):
    """ReLU, two 1x1 convolutions with stride 2 whose grids are a pixel apart, batch normalisation (DARTS).

    Attributes:
        features: output channels, even.
        style: see `Style`.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, uses: jax.Array | float = 1.0) -> jax.Array:
        """Halves images.

        Args:
            x: (batch, height, width, channels); sides that are odd get a row or column of zeros.
            uses: see `observe`.

        Returns:
            (batch, ceil(height / 2), ceil(width / 2), features).
        """
        observe(self, "relu", x, uses)
        x = nn.relu(x)
        if x.shape[1] % 2 or x.shape[2] % 2:
            x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        halves = [
            Conv(self.features // 2, 1, RELU_GAIN, self.style, 2, name=f"conv_{i}")(x[:, i:, i:]) for i in range(2)
        ]
        return BatchNorm(self.style, name="norm")(jnp.concatenate(halves, axis=-1))


class ResidualReduction(nn.Module):
    """A residual block that halves the image, as between the stages of NAS-Bench-201.

    ReLU-Conv-BN with stride 2, ReLU-Conv-BN with stride 1; the shortcut is a 2x2 average and a 1x1 convolution.

    Attributes:
        features: output channels.
        style: see `Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / 2, width / 2, features), even sizes."""
        y = ReLUConvNorm(self.features, strides=2, style=self.style, execution=self.execution, name="conv_a")(x)
        y = ReLUConvNorm(self.features, style=self.style, execution=self.execution, name="conv_b")(y)
        shortcut = Conv(self.features, 1, LINEAR_GAIN, self.style, name="shortcut")
        return y + shortcut(average_pool(x, window=2, strides=2))
