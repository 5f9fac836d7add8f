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
from nasi_jax.nn.linear import PARAMETERISATIONS, Conv, Dense, Parameterisation, conv, weight

__all__ = [
    "PARAMETERISATIONS",
    "BatchNorm",
    "Conv",
    "ConvNormWeights",
    "Dense",
    "Parameterisation",
    "ReLUConvNorm",
    "ResidualReduction",
    "Stem",
    "average_pool",
    "conv",
    "normalise",
    "relu_conv_norm",
    "weight",
]
