"""What the layers of one network have in common, and what can be observed of them from outside."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

Parameterisation = Literal["standard", "ntk"]
"""How a weight of gain g and fan-in k is stored.

``"standard"``: the parameter is the weight, drawn from N(0, g / k). ``"ntk"``: the parameter is drawn from N(0, 1)
and multiplied by sqrt(g / k) at every use, so that a layer's share of the NTK does not grow with its fan-in
(Jacot et al., 2018). Both give the same function at initialisation; only the gradients differ.
"""

Normalisation = Literal["batch", "current", "fixed"]
"""By which mean and variance batch normalisation acts.

``"batch"``: those of the batch, which couples its samples, or `RUNNING_STATISTICS` where there are some. ``"current"``:
those of the batch at hand in any case. ``"fixed"``: those at which running statistics start, 0 and 1, so that samples
are independent and hardly anything is normalised.
"""

PARAMETERISATIONS: tuple[str, ...] = get_args(Parameterisation)
NORMALISATIONS: tuple[str, ...] = get_args(Normalisation)

PREACTIVATIONS = "preactivations"
CHANNEL_SCALES = "channel_scales"
USED_PARAMETERS = "used_parameters"
RUNNING_STATISTICS = "batch_stats"
"""Collection of the running means and variances of batch normalisation, by Flax's name for it.

Where it is mutable, a network normalises by the batch and moves them by `RUNNING_SHARE` towards the batch's: training.
Where it is given and not mutable, the network normalises by them, and samples are independent: evaluation. Where there
is none, the network normalises by the batch.
"""
RUNNING_SHARE = 0.1
FEATURES = "features"
"""Collection of what the stem and each block of a network hand on, in turn, where it is mutable."""
PERTURBATIONS = "perturbations"
"""Collection of arrays like `FEATURES`. Where it is given, a block reads what the one before handed on, without its
derivative, plus the array of its name, so that the derivative by an array is that of one block alone."""
STAGES = "stages"
"""Collection of the feature maps at the ends of the three stages of a network, ``"stage_0"`` to ``"stage_2"``."""


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of a network share: which function of its parameters it is.

    Attributes:
        affine: whether batch normalisation has a learnable scale and shift; they start at one and zero.
        parameterisation: whether a weight is stored as it is, or drawn from N(0, 1) and scaled at every use.
        normalisation: whether batch normalisation takes the batch's mean and variance, or fixed 0 and 1.
        bare_cells: whether batch normalisation in cells is the batch's alone, without scale and shift, as in networks
            that are searched.

    Raises:
        ValueError: a value is unknown.
    """

    affine: bool = True
    parameterisation: Parameterisation = "standard"
    normalisation: Normalisation = "batch"
    bare_cells: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, allowed in (("parameterisation", PARAMETERISATIONS), ("normalisation", NORMALISATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")

    @property
    def in_cells(self) -> Style:
        """What the layers of cells share."""
        if not self.bare_cells:
            return self
        normalisation: Normalisation = "current" if self.normalisation == "batch" else self.normalisation
        return dataclasses.replace(self, affine=False, normalisation=normalisation)

    @property
    def tracked(self) -> bool:
        """Whether batch normalisation keeps running statistics where it may."""
        return self.normalisation == "batch"


def observe(module: nn.Module, name: str, x: jax.Array, uses: jax.Array | float = 1.0) -> None:
    """Sows the input of a ReLU where the collection `PREACTIVATIONS` is mutable.

    Args:
        module: the bound module.
        name: name of the layer in it.
        x: input of the ReLU.
        uses: how many layers read the result, which is how often the benchmark's own code has this ReLU.
    """
    if module.is_mutable_collection(PREACTIVATIONS) and not module.is_initializing():
        module.sow(PREACTIVATIONS, name, (x, jnp.asarray(uses, x.dtype)))


def observe_stage(module: nn.Module, number: int, x: jax.Array) -> None:
    """Leaves the feature maps at the end of a stage where the collection `STAGES` is mutable.

    Args:
        module: the bound module.
        number: 0, 1 or 2.
        x: feature maps, (batch, height, width, channels).
    """
    if module.is_mutable_collection(STAGES) and not module.is_initializing():
        module.put_variable(STAGES, f"stage_{number}", x)


def channel_scale(
    module: nn.Module, name: str, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array | None:
    """Returns the factors in the collection `CHANNEL_SCALES` for a layer's output, or None where there are none.

    Where the collection is mutable, factors of one are put there, (batch, ..., channels) with ones between. Their
    gradient at one is the sum, over height and width, of activation times gradient, for each sample and channel.

    Args:
        module: the bound module.
        name: name of the layer in it.
        shape: of the output, (batch, ..., channels); only its ends count.
        dtype: type of the factors.

    Returns:
        None or an array that broadcasts to `shape`.
    """
    if module.is_mutable_collection(CHANNEL_SCALES) and not module.is_initializing():
        ones = jnp.ones((shape[0], *(1,) * (len(shape) - 2), shape[-1]), dtype)
        module.put_variable(CHANNEL_SCALES, name, ones)
        return ones
    return module.get_variable(CHANNEL_SCALES, name) if module.has_variable(CHANNEL_SCALES, name) else None


def handed_on(module: nn.Module, number: int, x: jax.Array) -> jax.Array:
    """Shows what a block hands on, see `FEATURES`, and returns what the next one reads, see `PERTURBATIONS`.

    Args:
        module: the bound network.
        number: that of the block, 0 for the stem.
        x: the output of the block, (batch, ..., channels).

    Returns:
        An array like `x`.
    """
    name = f"{number:03d}"
    if module.is_mutable_collection(FEATURES) and not module.is_initializing():
        module.put_variable(FEATURES, name, x)
    if module.has_variable(PERTURBATIONS, name):
        return jax.lax.stop_gradient(x) + module.get_variable(PERTURBATIONS, name)
    return x


def detached(module: nn.Module, x: jax.Array) -> jax.Array:
    """Returns what a block reads of those before the last one: without a derivative where there are `PERTURBATIONS`."""
    return jax.lax.stop_gradient(x) if PERTURBATIONS in module.variables else x


def running_statistics(module: nn.Module, name: str, style: Style) -> tuple[jax.Array, jax.Array] | None:
    """Returns the running mean and variance by which a layer normalises, or None where it does by the batch.

    Args:
        module: the bound module.
        name: name of the layer in it.
        style: of the layer.

    Returns:
        None or two arrays (channels,).
    """
    mutable = module.is_mutable_collection(RUNNING_STATISTICS)
    if not style.tracked or mutable or not module.has_variable(RUNNING_STATISTICS, name):
        return None
    return module.get_variable(RUNNING_STATISTICS, name)


def is_tracking(module: nn.Module, style: Style) -> bool:
    """Whether a layer of a style updates its running statistics."""
    return style.tracked and module.is_mutable_collection(RUNNING_STATISTICS) and not module.is_initializing()


def track(module: nn.Module, name: str, moments: tuple[jax.Array, jax.Array]) -> None:
    """Moves the running statistics of a layer towards those of the batch; they start at mean 0 and variance 1.

    Args:
        module: the bound module, of a network that is tracking.
        name: name of the layer in it.
        moments: mean and unbiased variance of the batch, (channels,).
    """
    start = (jnp.zeros_like(moments[0]), jnp.ones_like(moments[1]))
    before = module.get_variable(RUNNING_STATISTICS, name, start)
    after = jax.tree.map(lambda old, new: (1 - RUNNING_SHARE) * old + RUNNING_SHARE * new, before, moments)
    module.put_variable(RUNNING_STATISTICS, name, jax.lax.stop_gradient(after))
