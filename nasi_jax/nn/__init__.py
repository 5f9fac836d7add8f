"""The Flax parts that the search spaces are built from."""

from nasi_jax.nn.blocks import (
    BatchNorm,
    ConvNormWeights,
    ReLUConvNorm,
    ResidualReduction,
    Stem,
    average_pool,
    normalise,
    relu_conv_norm,
)
from nasi_jax.nn.linear import Conv, Dense, conv, weight
from nasi_jax.nn.style import (
    CHANNEL_SCALES,
    NORMALISATIONS,
    PARAMETERISATIONS,
    PREACTIVATIONS,
    Normalisation,
    Parameterisation,
    Style,
    rectify,
    scaled,
)

__all__ = [
    "CHANNEL_SCALES",
    "NORMALISATIONS",
    "PARAMETERISATIONS",
    "PREACTIVATIONS",
    "BatchNorm",
    "Conv",
    "ConvNormWeights",
    "Dense",
    "Normalisation",
    "Parameterisation",
    "ReLUConvNorm",
    "ResidualReduction",
    "Stem",
    "Style",
    "average_pool",
    "conv",
    "normalise",
    "rectify",
    "relu_conv_norm",
    "scaled",
    "weight",
]
