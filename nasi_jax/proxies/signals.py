"""Synthetic signals that a network is asked to fit, and the published tasks that are made of them.

Sources: Li, Hao, Zhang and Chen, "Generic neural architecture search via regression", NeurIPS 2021, and the authors'
code, of which the tasks `TASKS` are the configurations.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

STAGES = 3
_BASE_CHANNELS = 64
_PHASES = 32
_SIDE = 8
"""Side of the published targets."""
_COLOURS_DRAWN = 1000

Noise = Literal["none", "uniform", "gaussian"]
"""What is added to the images anew in each step: uniform on [-level, level], or Gaussian of deviation `level`."""


@dataclasses.dataclass(frozen=True)
class Base:
    """One summand of a target.

    Attributes:
        level: its factor.
        local: whether each image has a draw of its own, instead of all the same.

    Raises:
        ValueError: a value is out of range.
    """

    level: float = 1.0
    local: bool = False

    def __post_init__(self) -> None:
        """Checks the level."""
        if not math.isfinite(self.level) or self.level <= 0:
            raise ValueError(f"level: expected a positive number, got {self.level!r}")

    def maps(self, key: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws maps (side, side, channels) of level 1."""
        raise NotImplementedError

    def draw(self, key: jax.Array, x: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws the summand for a batch.

        Args:
            key: typed random key.
            x: images, (batch, height, width, colours).
            side: height and width of the maps.
            channels: how many there are.

        Returns:
            (batch, side, side, channels), or (1, side, side, channels) where all images share it.
        """
        keys = jax.random.split(key, len(x) if self.local else 1)
        return self.level * jax.vmap(lambda own: self.maps(own, side, channels))(keys)


@dataclasses.dataclass(frozen=True)
class _Waves(Base):
    frequencies: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frequencies or not all(0 <= f <= 0.5 for f in self.frequencies):
            raise ValueError(
                f"frequencies: expected at least one, from 0 to 0.5 waves a pixel, got {self.frequencies!r}"
            )

    def _chosen(self, key: jax.Array, channels: int) -> tuple[jax.Array, ...]:
        """Draws distinct maps.

        Args:
            key: typed random key.
            channels: how many.

        Returns:
            For each its frequency or pair of them, which of two ways it takes, the place of its phase, and its phase.

        Raises:
            ValueError: there are not as many.
        """
        key, phase_key = jax.random.split(key)
        shape = self._shape
        if channels > math.prod(shape):
            raise ValueError(f"frequencies: expected enough for {channels} channels, got {math.prod(shape)} maps")
        order = jax.random.permutation(key, math.prod(shape))[:channels]
        frequency, way, phase = jnp.unravel_index(order, shape)
        phases = jax.random.uniform(phase_key, (shape[0], _PHASES), maxval=2 * jnp.pi)
        return frequency, way, phase, phases[frequency, phase]

    @property
    def _shape(self) -> tuple[int, int, int]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Sin1D(_Waves):
    """Plane waves along the height or along the width: sines and cosines of 32 random phases for each frequency.

    Attributes:
        frequencies: waves a pixel, 0 to 0.5.
    """

    @property
    def _shape(self) -> tuple[int, int, int]:
        return len(self.frequencies), 2, _PHASES

    def maps(self, key: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws distinct ones of the 64 maps for each frequency."""
        frequency, way, phase, shift = self._chosen(key, channels)
        pixels = jnp.arange(1.0, side + 1).reshape(-1, 1)
        angles = 2 * jnp.pi * jnp.array(self.frequencies)[frequency].reshape(1, -1) * pixels + shift.reshape(1, -1)
        waves = _sine_or_cosine(angles, phase)
        down, across = (jnp.broadcast_to(w, (side, side, channels)) for w in (waves[:, None], waves[None]))
        return jnp.where(way == 0, down, across)


@dataclasses.dataclass(frozen=True)
class Sin2D(_Waves):
    """Plane waves in the directions of all pairs of frequencies, and their mirror images.

    Attributes:
        frequencies: waves a pixel, 0 to 0.5, of which every ordered pair is one for the height and one for the width.
    """

    @property
    def _shape(self) -> tuple[int, int, int]:
        return len(self.frequencies) ** 2, 2, _PHASES

    def maps(self, key: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws distinct ones of the 64 maps for each pair."""
        pair, way, phase, shift = self._chosen(key, channels)
        down, across = jnp.array(self.frequencies)[jnp.stack(jnp.divmod(pair, len(self.frequencies)))]
        y = jnp.arange(1.0, side + 1).reshape(-1, 1, 1)
        x = jnp.arange(1.0, side + 1).reshape(1, -1, 1)
        down, across, shift = (values.reshape(1, 1, -1) for values in (down, across, shift))
        # as in the authors' code, where a phase is added twice
        angles = 2 * jnp.pi * (down * y + across * x) + 2 * shift
        waves = _sine_or_cosine(angles, phase)
        return jnp.where(way == 0, waves, waves[::-1])


def _sine_or_cosine(angles: jax.Array, phase: jax.Array) -> jax.Array:
    """Returns sines of the channels, the last axis, whose phase has an even place, and cosines of the others."""
    quarter = jnp.pi / 2 * (phase % 2)
    return jnp.sin(angles + quarter.reshape((1,) * (angles.ndim - 1) + (-1,)))


@dataclasses.dataclass(frozen=True)
class Dot(Base):
    """Pixels at random places, +1 or -1, among zeros.

    Attributes:
        partial: share of the pixels, of which the whole number below is drawn.
    """

    partial: float = 1.0

    def __post_init__(self) -> None:
        """Checks the share."""
        super().__post_init__()
        if not 0 < self.partial <= 1:
            raise ValueError(f"partial: expected a share above 0 and up to 1, got {self.partial!r}")

    def maps(self, key: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws places and signs for each channel."""
        count = int(self.partial * side**2)
        if count == 0:
            raise ValueError(f"partial: expected at least one of {side}x{side} pixels, got a share of {self.partial}")
        place_key, sign_key = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(place_key, (side**2, channels)), axis=0)
        signs = jax.random.rademacher(sign_key, (side**2, channels), jnp.result_type(float))
        return jnp.where(order < count, signs, 0).reshape(side, side, channels)


@dataclasses.dataclass(frozen=True)
class GDot(Dot):
    """`Dot` under a Gaussian filter of deviation 1, scaled so that the largest pixel of a map is 1 or -1."""

    def maps(self, key: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws as `Dot`, and filters."""
        blur = scipy.ndimage.gaussian_filter1d(np.eye(side), 1.0, axis=0, mode="reflect", truncate=4.0)
        soft = jnp.einsum("ij,kl,jlc->ikc", blur, blur, super().maps(key, side, channels))
        return soft / jnp.max(jnp.abs(soft), axis=(0, 1), keepdims=True)


@dataclasses.dataclass(frozen=True)
class Resize(Base):
    """The images themselves, without noise, brought to the side of the maps and to values from -1 to 1."""

    def draw(self, key: jax.Array, x: jax.Array, side: int, channels: int) -> jax.Array:
        """Draws which colour each channel shows; see `Base.draw`."""
        small = resized(x, side)
        low, high = jnp.min(small), jnp.max(small)
        # as in the authors' code, the colours repeated and shuffled
        colours = jax.random.permutation(key, _COLOURS_DRAWN)[:channels] % x.shape[-1]
        return self.level * (2 * (small - low) / (high - low) - 1)[..., colours]


def resized(x: jax.Array, side: int) -> jax.Array:
    """Takes the nearest pixel at or before each place, (batch, side, side, channels), as PyTorch's `interpolate`."""
    rows, columns = (np.arange(side) * size // side for size in x.shape[1:3])
    return x[:, rows][:, :, columns]


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the feature maps of one stage are to fit.

    Attributes:
        width: number of channels of the target, in units of 64.
        bases: its summands.

    Raises:
        ValueError: there is no summand, or no channel.
    """

    width: float
    bases: tuple[Base, ...]

    def __post_init__(self) -> None:
        """Checks both."""
        if not self.bases:
            raise ValueError("bases: expected at least one in each stage, got none")
        if self.channels < 1:
            raise ValueError(f"width: expected at least one channel of {_BASE_CHANNELS}, got {self.width!r}")

    @property
    def channels(self) -> int:
        """Number of channels of the target."""
        return int(self.width * _BASE_CHANNELS)


@dataclasses.dataclass(frozen=True)
class Task:
    """A regression without labels: noise on the images, and a target for each of three stages.

    Attributes:
        stages: the targets.
        noise: see `Noise`.
        noise_level: its size, in units of the images.

    Raises:
        ValueError: there are not three stages, the noise is unknown, or its level is out of range.
    """

    stages: tuple[Stage, Stage, Stage]
    noise: Noise = "none"
    noise_level: float = 0.0

    def __post_init__(self) -> None:
        """Checks all of them."""
        if len(self.stages) != STAGES:
            raise ValueError(f"stages: expected {STAGES}, got {len(self.stages)}")
        if self.noise not in get_args(Noise):
            raise ValueError(f"noise: expected one of {get_args(Noise)}, got {self.noise!r}")
        if not math.isfinite(self.noise_level) or self.noise_level < 0:
            raise ValueError(f"noise_level: expected a number of at least 0, got {self.noise_level!r}")

    def targets(self, key: jax.Array, x: jax.Array, side: int = _SIDE) -> tuple[jax.Array, ...]:
        """Draws the targets, for all architectures; works under `jit` and `vmap`.

        Args:
            key: typed random key.
            x: images, (batch, height, width, colours).
            side: height and width of the targets.

        Returns:
            For each stage (batch, side, side, channels), in the type of `x`.
        """
        found = []
        for number, stage in enumerate(self.stages):
            total = jnp.zeros((len(x), side, side, stage.channels), x.dtype)
            for i, base in enumerate(stage.bases):
                own = jax.random.fold_in(jax.random.fold_in(key, number), i)
                total = total + base.draw(own, x, side, stage.channels)
            found.append(total.astype(x.dtype))
        return tuple(found)

    def noisy(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Adds fresh noise to images."""
        return with_noise(self.noise, self.noise_level, key, x)


@functools.partial(jax.jit, static_argnums=0)
def with_noise(noise: Noise, level: jax.typing.ArrayLike, key: jax.Array, x: jax.Array) -> jax.Array:
    """Adds noise to images.

    Args:
        noise: see `Noise`.
        level: its size.
        key: typed random key.
        x: images.

    Returns:
        The images.
    """
    if noise == "uniform":
        return x + level * jax.random.uniform(key, x.shape, x.dtype, -1)
    return x + level * jax.random.normal(key, x.shape, x.dtype) if noise == "gaussian" else x


def _spread(low: float, high: float) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, 10).tolist())


_HIGH, _LOW = _spread(0.375, 0.4875), _spread(0.125, 0.35)

TASKS: dict[str, Task] = {
    "combo": Task(
        (
            Stage(1.0, (Sin1D(frequencies=_HIGH), Sin2D(frequencies=_HIGH), Dot())),
            Stage(1.0, (Sin1D(frequencies=_HIGH), Sin2D(frequencies=_LOW), Resize())),
            Stage(1.0, (Sin1D(frequencies=_HIGH), Dot(), Resize())),
        )
    ),
    "nb101": Task(
        (
            Stage(
                1.0,
                (
                    Sin2D(1.1, True, (0.014257, 0.016867, 0.01493, 0.020401, 0.022936, 0.017223, 0.015645, 0.019184,
                                      0.0155, 0.014574)),
                ),
            ),
            Stage(
                0.75,
                (
                    Sin1D(1.8, True, (0.299108, 0.306036, 0.303757, 0.288022, 0.293448, 0.296083, 0.305855, 0.292883,
                                      0.305624, 0.295861)),
                    Sin2D(2.9, True, (0.379844, 0.381836, 0.358343, 0.327626, 0.264875, 0.28077, 0.420505, 0.341421,
                                      0.303624, 0.420302)),
                    GDot(1.1, True, 0.578),
                    Resize(2.4),
                ),
            ),
            Stage(
                0.25,
                (
                    Sin1D(1.5, False, (0.153934, 0.105726, 0.106632, 0.157566, 0.133736, 0.1051, 0.131915, 0.131757,
                                       0.102817, 0.109369)),
                    Sin2D(0.9, False, (0.197937, 0.20309, 0.10339, 0.204843, 0.135664, 0.209057, 0.245402, 0.086357,
                                       0.135184, 0.14526)),
                    GDot(2.1, False, 0.4375),
                    Resize(2.2),
                ),
            ),
        ),
        "uniform",
        0.1,
    ),
    "darts": Task(
        (
            Stage(1.25, (GDot(1.6, True, 0.5), Resize(1.3))),
            Stage(0.5, (Dot(2.2, True, 0.719), GDot(1.0, False, 0.609), Resize(2.1))),
            Stage(1.25, (GDot(1.7, True, 0.5625), Resize(0.5))),
        ),
        "gaussian",
        0.2,
    ),
}  # fmt: skip
"""The published tasks by name: "combo" mixes bases by hand, the others were found by evolution on the spaces of their
names; the authors use "nb101" for NAS-Bench-201 too."""
