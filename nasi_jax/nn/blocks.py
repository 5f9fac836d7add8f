"""Blocks that the cells of several search spaces share."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.nn.linear import LINEAR_GAIN, Conv, parameter, weight
from nasi_jax.nn.style import (
    CHANNEL_SCALES,
    PREACTIVATIONS,
    RUNNING_STATISTICS,
    USED_PARAMETERS,
    Style,
    channel_scale,
    is_tracking,
    observe,
    running_statistics,
    track,
)
from nasi_jax.programs.convolution import conv, depthwise_conv, saves_products
from nasi_jax.programs.execution import Execution

BATCH_NORM_EPSILON = 1e-5

# Keeps for the gradient only what convolutions and products give: on a CPU all else costs more to store than to repeat.
_keeping_products = functools.partial(jax.checkpoint, policy=saves_products, prevent_cse=False)


def as_block(parent: nn.Module, kind: type[nn.Module], name: str, attributes: dict[str, Any], *inputs: Any) -> Any:
    """Calls a submodule, as one program where the execution says "blocks".

    Submodules of equal attributes share the program. Outside of `jit` one dispatch for a submodule takes the place of
    one for each of its layers.

    Args:
        parent: the bound module, inside its compact method.
        kind: class of the submodule.
        name: name of the submodule.
        attributes: its attributes, `style` and `execution` among them.
        *inputs: what it is called with.

    Returns:
        What it returns.
    """
    if attributes["execution"].blocks and is_plain(parent, attributes["style"], name):
        return as_program(kind(**attributes, parent=None), parent.get_variable("params", name, {}), *inputs)
    return kind(**attributes, name=name)(*inputs)


def is_plain(module: nn.Module, style: Style, name: str | None = None) -> bool:
    """Whether what a bound module calls, or its submodule of a name, reads parameters alone and leaves only outputs.

    Args:
        module: the bound module.
        style: of what it calls.
        name: name of the submodule, or None.

    Returns:
        Whether that is so.
    """
    statistics = (RUNNING_STATISTICS,) if style.tracked else ()
    observed = (PREACTIVATIONS, CHANNEL_SCALES, USED_PARAMETERS, *statistics, "params")
    if any(module.is_mutable_collection(collection) for collection in observed):
        return False
    read = (module.variables.get(collection, {}) for collection in (CHANNEL_SCALES, *statistics))
    return not any(values if name is None else name in values for values in read)


@functools.partial(jax.jit, static_argnums=0)
def as_program(module: nn.Module, params: Any, *inputs: Any) -> Any:
    """Calls an unbound module, which is plain, as one program; modules of equal attributes share it.

    Args:
        module: the module.
        params: its parameters.
        *inputs: what it is called with.

    Returns:
        What it returns.
    """

    def apply(params: Any, *inputs: Any) -> Any:
        return module.apply({"params": params}, *inputs)

    return _keeping_products(apply)(params, *inputs)


def in_turn(module: nn.Module, params: Sequence[Any], x: jax.Array, *inputs: Any) -> jax.Array:
    """Applies an unbound module, which is plain, to what it gave before, as a loop in the program.

    A loop compiles faster than what it unrolls to, and on a CPU works in the same memory again and again.

    Args:
        module: the module, called as `module(x, *inputs)`.
        params: its parameters in each turn.
        x: what it is called with first.
        *inputs: what it is called with each time.

    Returns:
        What it returns last, like `x`.
    """

    def turn(x: jax.Array, own: Any) -> tuple[Any, None]:
        return module.apply({"params": own}, x, *inputs), None

    return jax.lax.scan(turn, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))[0]


def dropped(key: jax.Array, x: jax.Array, probability: jax.typing.ArrayLike) -> jax.Array:
    """Sets images (batch, height, width, channels) of some examples to zero, and scales the others up to make up."""
    keep = jax.random.bernoulli(key, 1 - probability, (len(x), 1, 1, 1))
    return jnp.where(keep, x / (1 - probability), 0)


class BatchNorm(nn.Module):
    """Normalises every channel by a mean and a variance (Ioffe and Szegedy, 2015).

    Attributes:
        style: see `Style`.
    """

    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the same shape."""
        scale = bias = None
        if self.style.affine:
            scale = parameter(self, "scale", nn.initializers.ones, x.shape[-1:], x.dtype)
            bias = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], x.dtype)
        return batch_norm(self, "statistics", x, scale, bias, self.style)


def batch_norm(
    module: nn.Module, name: str, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, style: Style
) -> jax.Array:
    """Normalises as `normalise`, by running statistics where the module has them; see `RUNNING_STATISTICS`.

    Args:
        module: the bound module.
        name: name of the layer in it.
        x: images, (batch, height, width, channels).
        scale: see `normalise`.
        bias: see `normalise`.
        style: see `Style`.

    Returns:
        An array like `x`.
    """
    if is_tracking(module, style):
        track(module, name, _unbiased(x))
    return normalise(x, scale, bias, style, running_statistics(module, name, style))


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance of each channel, in single precision at least."""
    x = x.astype(_wide(x))
    mean = jnp.mean(x, axis=(0, 1, 2))
    # The variance is the same for any centre, which needs no derivative then; around zero it would lose digits.
    centre = jax.lax.stop_gradient(mean)
    return mean, jnp.mean((x - centre.reshape(1, 1, 1, -1)) ** 2, axis=(0, 1, 2)) - (mean - centre) ** 2


def _wide(x: jax.Array) -> jax.typing.DTypeLike:
    """Returns the type in which means and variances of `x` are taken."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _unbiased(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and unbiased variance of each channel."""
    mean, variance = _moments(x)
    count = math.prod(x.shape[:-1])
    return mean, variance * count / max(1, count - 1)


@functools.partial(jax.jit, static_argnames="style")
def normalise(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    style: Style,
    statistics: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Subtracts each channel's mean over batch, height and width and divides by its standard deviation.

    Computed as one product and one sum for every pixel, whose gradient reads the image and the cotangent alone.

    Args:
        x: images, (batch, height, width, channels).
        scale: factor of each channel, (channels,), or None.
        bias: what is added to each channel then, (channels,), or None.
        style: see `Style`.
        statistics: mean and variance of each channel, (channels,), in the place of the batch's own, or None.

    Returns:
        An array like `x`.
    """
    if style.normalisation == "fixed":
        mean, variance = (jnp.full(x.shape[-1], value, _wide(x)) for value in (0, 1))
    else:
        mean, variance = _moments(x) if statistics is None else statistics
    factor = jax.lax.rsqrt(variance + BATCH_NORM_EPSILON) * (1 if scale is None else scale)
    shift = (0 if bias is None else bias) - mean * factor
    return (x * factor.reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)).astype(x.dtype)


class ConvNormWeights(NamedTuple):
    """What one ReLU-Conv-BN needs.

    Attributes:
        kernel: (window, window, channels, features).
        depthwise: (window, window, 1, channels) of a separable convolution, whose kernel is then 1x1; else None.
        scale: (features,) of batch normalisation, or None.
        bias: likewise.
    """

    kernel: jax.Array
    depthwise: jax.Array | None
    scale: jax.Array | None
    bias: jax.Array | None

    @property
    def window(self) -> int:
        """Height and width of the window, without dilation."""
        return (self.kernel if self.depthwise is None else self.depthwise).shape[0]

    def times(self, factor: jax.Array) -> ConvNormWeights:
        """Returns weights with which the normalised output is `factor`, (), times as large.

        Normalisation multiplies by the factor with all else that it multiplies by, and the factor's gradient is a sum
        over channels of what the gradient of normalisation needs anyway, not another one over pixels.
        """
        scale = jnp.ones(self.kernel.shape[-1:], self.kernel.dtype) if self.scale is None else self.scale
        return self._replace(scale=factor * scale, bias=None if self.bias is None else factor * self.bias)

    @property
    def dense(self) -> jax.Array:
        """The kernel (window, window, channels, features) that stands for a separable convolution too."""
        if self.depthwise is None:
            return self.kernel
        # between a depthwise convolution and a 1x1 one stands nothing, so that both together are linear and dense
        return jnp.einsum("ijc,cd->ijcd", self.depthwise[:, :, 0], self.kernel[0, 0])


class ReLUConvNorm(nn.Module):
    """ReLU, a convolution without bias, batch normalisation.

    Attributes:
        features: output channels.
        window: height and width of the kernel.
        strides: step of the window.
        style: see `Style`.
        dilation: distance of neighbouring weights, in pixels.
        separable: whether the convolution is a depthwise one and a 1x1 one.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    window: int = 3
    strides: int = 1
    style: Style = Style()
    dilation: int = 1
    separable: bool = False
    execution: Execution = Execution()

    @nn.compact
    def weights(self, channels: int, dtype: jax.typing.DTypeLike) -> ConvNormWeights:
        """Declares the parameters for an input of `channels`, for `relu_conv_norm` to use."""
        drawn = functools.partial(weight, self, dtype=dtype, parameterisation=self.style.parameterisation)
        if self.separable:
            depthwise = drawn((self.window, self.window, 1, channels), name="depthwise")
            kernel = drawn((1, 1, channels, self.features), gain=LINEAR_GAIN)
        else:
            depthwise, kernel = None, drawn((self.window, self.window, channels, self.features))
        if not self.style.affine:
            return ConvNormWeights(kernel, depthwise, None, None)
        scale = parameter(self, "scale", nn.initializers.ones, (self.features,), dtype)
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,), dtype)
        return ConvNormWeights(kernel, depthwise, scale, bias)

    def __call__(self, x: jax.Array, factor: jax.Array | None = None) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features).

        Args:
            x: images.
            factor: what multiplies the result, (), or None.

        Returns:
            The result.
        """
        weights = self.weights(x.shape[-1], x.dtype)
        branches = [weights if factor is None else weights.times(factor)]
        return relu_conv_norm(self, "relu", x, branches, self.style, self.execution, self.strides, self.dilation)[0]


def relu_conv_norm(
    module: nn.Module,
    name: str,
    x: jax.Array,
    branches: Sequence[ConvNormWeights],
    style: Style,
    execution: Execution = Execution(),
    strides: int = 1,
    dilation: int = 1,
    uses: jax.Array | float = 1.0,
) -> list[jax.Array]:
    """Applies several ReLU-Conv-BN to one input.

    Kernels that read the same input concatenate along their output channels, and batch normalisation acts on every
    channel alone, so the joint result is exactly that of the branches one by one. That makes a smaller program, which
    compiles faster; on a CPU it is slower, and left out where the execution says "blocks".

    Args:
        module: the bound module that they are part of.
        name: name, in the module, under which their shared ReLU and their convolutions are observed.
        x: images, (batch, height, width, channels).
        branches: weights of each branch.
        style: see `Style`.
        execution: see `nasi_jax.programs.Execution`.
        strides: step of all windows.
        dilation: dilation of all windows.
        uses: number of branches that are in use, see `observe`.

    Returns:
        One (batch, height / strides, width / strides, features) array for each branch, in the order given.
    """
    if branches:
        observe(module, name, x, uses)
    groups: dict[int, list[int]] = {}
    for i, branch in enumerate(branches):
        groups.setdefault(i if execution.blocks else branch.window, []).append(i)
    outputs: dict[int, jax.Array] = {}
    for number, group in enumerate(groups.values()):
        channels = sum(branches[i].kernel.shape[-1] for i in group)
        factors = channel_scale(module, f"{name}_conv_{number}", (*x.shape[:-1], channels), x.dtype)
        statistics = running_statistics(module, f"{name}_norm_{number}", style)
        tracking = is_tracking(module, style)
        chosen = [branches[i] for i in group]
        parts, moments = _relu_conv_norm(x, chosen, factors, statistics, style, execution, strides, dilation, tracking)
        if moments is not None:
            track(module, f"{name}_norm_{number}", moments)
        outputs |= zip(group, parts, strict=True)
    return [outputs[i] for i in range(len(branches))]


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7, 8))
def _relu_conv_norm(
    x: jax.Array,
    branches: list[ConvNormWeights],
    factors: jax.Array | None,
    statistics: tuple[jax.Array, jax.Array] | None,
    style: Style,
    execution: Execution,
    strides: int,
    dilation: int,
    tracking: bool,
) -> tuple[list[jax.Array], tuple[jax.Array, jax.Array] | None]:
    """Does so for branches of one window size at once; `factors` multiply the outputs of their convolution.

    Returns:
        The outputs, and where the network is tracking what `_unbiased` finds of them before they are normalised.
    """
    joint = _relu_conv(x, branches, execution, strides, dilation)
    scale, bias = (
        None if leaves[0] is None else _concatenated(leaves)
        for leaves in ([branch.scale for branch in branches], [branch.bias for branch in branches])
    )
    joint = joint if factors is None else factors * joint
    normal = normalise(joint, scale, bias, style, statistics)
    ends = np.cumsum([branch.kernel.shape[-1] for branch in branches])
    return jnp.split(normal, ends[:-1], axis=-1), _unbiased(joint) if tracking else None


def scaled_relu_conv_norm(x: jax.Array, weights: ConvNormWeights, factors: jax.Array | None, style: Style) -> jax.Array:
    """Applies one ReLU-Conv-BN as a plain function, for one branch of a program.

    Args:
        x: images, (batch, height, width, channels).
        weights: its weights.
        factors: what multiplies the convolution's output, as from `channel_scale`, or None.
        style: see `Style`.

    Returns:
        (batch, height, width, features).
    """
    return _relu_conv_norm(x, [weights], factors, None, style, Execution(), 1, 1, False)[0][0]


@functools.partial(_keeping_products, static_argnums=(2, 3, 4))
def _relu_conv(
    x: jax.Array, branches: list[ConvNormWeights], execution: Execution, strides: int, dilation: int
) -> jax.Array:
    """Returns the outputs of all convolutions, concatenated."""
    active = nn.relu(x)
    depthwise = [branch.depthwise for branch in branches if branch.depthwise is not None]
    if not depthwise or (execution.fused and not execution.blocks):
        return conv(active, _concatenated([branch.dense for branch in branches]), strides, dilation)
    spread = [depthwise_conv(active, kernel[:, :, 0], strides, dilation) for kernel in depthwise]
    return _concatenated([conv(part, b.kernel) for part, b in zip(spread, branches, strict=True)])


def _concatenated(arrays: Sequence[Any]) -> jax.Array:
    return jnp.concatenate(arrays, axis=-1)


class ConvNormReLU(nn.Module):
    """A convolution, batch normalisation, ReLU: the order of NAS-Bench-101.

    Attributes:
        features: output channels.
        window: height and width of the kernel.
        style: see `nasi_jax.nn.Style`.
    """

    features: int
    window: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, uses: jax.Array | float = 1.0) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, features); for `uses` see `observe`."""
        y = BatchNorm(self.style, name="norm")(Conv(self.features, self.window, style=self.style, name="conv")(x))
        observe(self, "relu", y, uses)
        return nn.relu(y)
