"""What the layers of one network have in common, and what can be observed of them from outside."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

Parameterisation = Literal["standard", "ntk"]
"""How a weight of gain g and fan-in k is stored.

``"standard"``: the parameter is the weight, drawn from N(0, g / k). ``"ntk"``: the parameter is drawn from N(0, 1)
and multiplied by sqrt(g / k) at every use, so that a layer's share of the NTK does not grow with its fan-in
(Jacot et al., 2018). Both give the same function at initialisation; only the gradients differ.
"""

Normalisation = Literal["batch", "fixed"]
"""By which mean and variance batch normalisation acts.

``"batch"``: those of the batch, which couples its samples. ``"fixed"``: those at which running statistics start, 0 and
1, so that samples are independent and hardly anything is normalised.
"""

PARAMETERISATIONS: tuple[str, ...] = get_args(Parameterisation)
NORMALISATIONS: tuple[str, ...] = get_args(Normalisation)

PREACTIVATIONS = "preactivations"
CHANNEL_SCALES = "channel_scales"


class Style(NamedTuple):
    """What all layers of a network share.

    Attributes:
        affine: whether batch normalisation has a learnable scale and shift; they start at one and zero.
        parameterisation: see `Parameterisation`.
        normalisation: see `Normalisation`.
    """

    affine: bool = True
    parameterisation: Parameterisation = "standard"
    normalisation: Normalisation = "batch"


def rectify(module: nn.Module, name: str, x: jax.Array, uses: jax.Array | float = 1.0) -> jax.Array:
    """Applies ReLU; where the collection `PREACTIVATIONS` is mutable, its input is sown there.

    Args:
        module: the bound module.
        name: name of the layer in it.
        x: input.
        uses: how many layers read the result, which is how often the benchmark's own code has this ReLU.

    Returns:
        An array like `x`.
    """
    if module.is_mutable_collection(PREACTIVATIONS) and not module.is_initializing():
        module.sow(PREACTIVATIONS, name, (x, jnp.asarray(uses, x.dtype)))
    return nn.relu(x)


def scaled(module: nn.Module, name: str, y: jax.Array) -> jax.Array:
    """Multiplies a layer's output by the factors in the collection `CHANNEL_SCALES`, where there is one.

    Where the collection is mutable, factors of one are put there, (batch, ..., channels) with ones between. Their
    gradient at one is the sum, over height and width, of activation times gradient, for each sample and channel.

    Args:
        module: the bound module.
        name: name of the layer in it.
        y: output, (batch, ..., channels).

    Returns:
        An array like `y`.
    """
    if module.is_mutable_collection(CHANNEL_SCALES) and not module.is_initializing():
        module.put_variable(CHANNEL_SCALES, name, jnp.ones((len(y), *(1,) * (y.ndim - 2), y.shape[-1]), y.dtype))
    elif module.has_variable(CHANNEL_SCALES, name):
        y = y * module.get_variable(CHANNEL_SCALES, name)
    return y
