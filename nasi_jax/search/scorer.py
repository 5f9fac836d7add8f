"""Scores many architectures of a space with one compiled program: the genotype is an input."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from nasi_jax.data import Source
from nasi_jax.nn import Normalisation, Parameterisation
from nasi_jax.search.costs import count
from nasi_jax.search.scores import SCORES, Candidate
from nasi_jax.spaces import SearchSpace, Weights


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Size of the scored networks.

    Attributes:
        channels: channels of the first stage.
        cells: cells in each stage.
        batch: images in the batch, the same for all architectures of a seed.
        affine: whether batch normalisation has a scale and a shift.
        parameterisation: see `nasi_jax.nn.Parameterisation`.
        normalisation: see `nasi_jax.nn.Normalisation`.
    """

    channels: int = 16
    cells: int = 5
    batch: int = 64
    affine: bool = True
    parameterisation: Parameterisation = "standard"
    normalisation: Normalisation = "batch"


class Draw(NamedTuple):
    """What all architectures of one seed share: the one-shot network's parameters, a batch, and a key for probes."""

    params: Any
    x: jax.Array
    y: jax.Array
    key: jax.Array


class Scorer:
    """Scores architectures of one space at one size.

    Each architecture uses its own part of the one-shot network's parameters, which is what its derived network would
    draw from the same key. The first call compiles, for all architectures.

    Attributes:
        names: the scores that are computed.
        together: how many architectures one call takes at most.
    """

    def __init__(
        self,
        space: SearchSpace,
        source: Source,
        names: Sequence[str],
        config: ScoreConfig,
        *,
        per_device: int = 1,
        mesh: Mesh | None = None,
    ):
        """Checks the arguments; nothing is compiled yet.

        Args:
            space: the search space.
            source: gives images and labels.
            names: the scores wanted, of `SCORES`; they share what they can, as the gradient of the loss.
            config: size of the networks.
            per_device: architectures that a device takes at once, by `vmap`. That pays on accelerators; on a CPU it
                makes grouped convolutions, which are slow there.
            mesh: devices over which the architectures of one call are spread, along all axes.

        Raises:
            ValueError: a score is unknown or named twice, or a size is out of range.
        """
        for name in names:
            if name not in SCORES:
                raise ValueError(f"scores: expected some of {tuple(SCORES)}, got {name!r}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"scores: expected at least one, and each once, got {tuple(names)}")
        if config.batch < 2:
            raise ValueError(f"batch: expected at least 2, got {config.batch}")
        if per_device < 1:
            raise ValueError(f"per_device: expected a positive integer, got {per_device}")
        source.check_batch(config.batch)
        self.names, self.together = tuple(names), per_device * (1 if mesh is None else mesh.size)
        self._space, self._source, self._config, self._mesh = space, source, config, mesh
        options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "batch"}
        options["classes"] = source.classes
        self._module = space.one_shot(discrete=True, **options)
        self._unnormalised = space.one_shot(discrete=True, **(options | {"normalisation": "fixed"}))
        counted = any(SCORES[name].counted for name in names)
        self._costs = count(space, source.image_shape, **options) if counted else {}
        self._draw = jax.jit(self._drawn)
        self._compute = {double: jax.jit(self._computed(double)) for double in (False, True)}

    def draw(self, seed: int) -> Draw:
        """Draws parameters, batch and key of a seed."""
        return self._draw(jax.random.key(seed))

    def score(self, draw: Draw, genotypes: Sequence[Any]) -> list[dict[str, float]]:
        """Scores some architectures.

        Args:
            draw: what they share, from `draw`.
            genotypes: the architectures, at most `together`.

        Returns:
            For each, the value of every score by its name; NaN and infinities as they come.
        """
        padded = [*genotypes, *[genotypes[-1]] * (self.together - len(genotypes))]
        encoded = [self._space.encode(genotype) for genotype in padded]
        weights = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *encoded)
        values = {}
        for double in sorted({SCORES[name].double for name in self.names}):
            with jax.enable_x64(True) if double else contextlib.nullcontext():
                widen = _widened if double else lambda leaf: leaf
                values |= jax.device_get(self._compute[double](*jax.tree.map(widen, (weights, draw))))
        return [{name: float(values[name][i]) for name in self.names} for i in range(len(genotypes))]

    def _drawn(self, key: jax.Array) -> Draw:
        params_key, batch_key, probe_key = jax.random.split(key, 3)
        x, y = self._source.batch(batch_key, self._config.batch)
        # hundreds of draws by the default generator would take longer to compile than the scores
        params_key = jax.random.key(jax.random.bits(params_key), impl="unsafe_rbg")
        params = self._module.init(params_key, x[:2], self._space.alphas())["params"]
        return Draw(params, x, y, probe_key)

    def _computed(self, double: bool) -> Callable[[Weights, Draw], dict[str, jax.Array]]:
        names = [name for name in self.names if SCORES[name].double == double]

        def one(weights: Weights, draw: Draw) -> dict[str, jax.Array]:
            candidate = self._candidate(weights, draw)
            return {name: SCORES[name].compute(candidate) for name in names}

        def several(weights: Weights, draw: Draw) -> dict[str, jax.Array]:
            if len(jax.tree.leaves(weights)[0]) > 1:
                return jax.vmap(one, in_axes=(0, None))(weights, draw)
            # a batch of one would be a convolution of one group, which is slower
            single = one(jax.tree.map(lambda leaf: leaf[0], weights), draw)
            return jax.tree.map(lambda leaf: leaf[None], single)

        if self._mesh is None:
            return several
        # without the types of its axes, by which jax.make_mesh would ask for inputs that are spread already
        mesh = Mesh(self._mesh.devices, self._mesh.axis_names)
        spread = PartitionSpec(mesh.axis_names)
        return jax.shard_map(several, mesh=mesh, in_specs=(spread, PartitionSpec()), out_specs=spread, check_vma=False)

    def _candidate(self, weights: Weights, draw: Draw) -> Candidate:
        def apply(module: nn.Module, variables: Any, x: jax.Array, **options: Any) -> Any:
            return module.apply(variables, x, weights, **options)

        return Candidate(
            apply_fn=lambda p, x: apply(self._module, {"params": p}, x),
            params=draw.params,
            x=draw.x,
            y=draw.y,
            key=draw.key,
            unnormalised=lambda p, x: apply(self._unnormalised, {"params": p}, x),
            apply=functools.partial(apply, self._module),
            costs={name: costs.of(weights) for name, costs in self._costs.items()},
        )


def _widened(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
