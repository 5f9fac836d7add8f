"""Scores many architectures of a space without compiling for each."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, PartitionSpec

from nasi_jax.data import Source
from nasi_jax.nn import USED_PARAMETERS, Normalisation, Parameterisation, compiler_options
from nasi_jax.search.costs import Counter
from nasi_jax.search.scores import SCORES, Candidate
from nasi_jax.spaces import Discrete, SearchSpace, Weights, restrict


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


Compilation = Literal["space", "blocks"]
"""What one compiled program computes.

``"space"``: all scores of any architecture, whose genotype is its input. Every operation is computed, and the genotype
says which ones count; there is little to dispatch, and several architectures and devices work at once. On a CPU, where
a device takes one architecture at a time, NAS-Bench-201's program branches to the operations that the genotype names,
so that none is computed in vain.

``"blocks"``: one block of the network, such as a convolution with its ReLU and normalisation. The derived network of an
architecture is a sequence of these, none of which is computed in vain, and architectures share the programs. On a CPU
this is the faster one for spaces whose program does not branch.
"""


class Draw(NamedTuple):
    """What all architectures of one seed share: the one-shot network's parameters, a batch, and a key for probes."""

    params: Any
    x: jax.Array
    y: jax.Array
    key: jax.Array


class Scorer:
    """Scores architectures of one space at one size.

    Each architecture uses its own part of the one-shot network's parameters, which is what its derived network would
    draw from the same key.

    Attributes:
        names: the scores that are computed.
        compilation: see `Compilation`.
        together: how many architectures one call takes at most.
    """

    def __init__(
        self,
        space: SearchSpace,
        source: Source,
        names: Sequence[str],
        config: ScoreConfig,
        *,
        compilation: Compilation | None = None,
        per_device: int = 1,
        mesh: Mesh | None = None,
    ):
        """Checks the arguments; nothing is compiled yet.

        Args:
            space: the search space.
            source: gives images and labels.
            names: the scores wanted, of `SCORES`; they share what they can, as the gradient of the loss.
            config: size of the networks.
            compilation: what is compiled; by default "blocks" on a CPU, where the space's program does not branch and
                neither `per_device` nor `mesh` asks for "space", which both need.
            per_device: architectures that a device takes at once, by `vmap`. That pays on accelerators; on a CPU it
                makes grouped convolutions, which are slow there.
            mesh: devices over which the architectures of one call are spread, along all axes.

        Raises:
            ValueError: a score is unknown or named twice, a size is out of range, or the compilation does not go with
                `per_device` or `mesh`.
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
        several = per_device > 1 or mesh is not None
        if compilation is None:
            blocks = jax.default_backend() == "cpu" and not several and not space.branches
            compilation = "blocks" if blocks else "space"
        if compilation not in get_args(Compilation):
            raise ValueError(f"compilation: expected one of {get_args(Compilation)}, got {compilation!r}")
        if compilation == "blocks" and several:
            raise ValueError("compilation: expected 'space' for several architectures at once, got 'blocks'")
        source.check_batch(config.batch)
        self.compilation: Compilation = compilation
        self.names, self.together = tuple(names), per_device * (1 if mesh is None else mesh.size)
        self._space, self._source, self._config, self._mesh = space, source, config, mesh
        options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "batch"}
        options["classes"] = source.classes
        self._options = options
        alone = compilation == "space" and jax.default_backend() == "cpu" and per_device == 1
        self._discrete: Discrete = "branches" if alone else "one-hot"
        self._one_shot = space.one_shot(discrete=self._discrete, **options)
        self._counter = Counter(space, source.image_shape, **options)
        self._counted = [name for name in names if SCORES[name].compute is None]
        precisions = {SCORES[name].double for name in names if name not in self._counted}
        self._compute: dict[bool, Any] = {double: self._computed(double) for double in sorted(precisions)}
        if compilation == "space":
            jit = functools.partial(jax.jit, compiler_options=compiler_options())
            self._compute = {double: jit(compute) for double, compute in self._compute.items()}
        self._compiling: Future[None] | None = None

    def draw(self, seed: int) -> Draw:
        """Draws parameters, batch and key of a seed; the first time, the space's program is compiled meanwhile."""
        params_key, batch_key, probe_key = jax.random.split(jax.random.key(seed), 3)
        x, y = self._source.batch(batch_key, self._config.batch)
        # hundreds of draws by the default generator take longer
        params_key = jax.random.key(jax.random.bits(params_key), impl="unsafe_rbg")
        inputs = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), jax.eval_shape(self._space.alphas)

        def initial(key: jax.Array) -> Any:
            return self._one_shot.lazy_init(key, *inputs)["params"]

        draws, shapes = jax.make_jaxpr(initial, return_shape=True)(params_key)
        if self._compiling is None and self.compilation == "space":
            threads = ThreadPoolExecutor(1)
            self._compiling = threads.submit(self._compile, Draw(shapes, x, y, probe_key))
            threads.shutdown(wait=False)
        params = jax.tree.unflatten(jax.tree.structure(shapes), jaxpr_as_fun(draws)(params_key))
        return Draw(params, x, y, probe_key)

    def score(self, draw: Draw, genotypes: Sequence[Any]) -> list[dict[str, float]]:
        """Scores some architectures.

        Args:
            draw: what they share, from `draw`.
            genotypes: the architectures, at most `together`.

        Returns:
            For each, the value of every score by its name; NaN and infinities as they come.
        """
        values: dict[str, Any] = {}
        if self._counted:
            counts = [self._counter(genotype) for genotype in genotypes]
            values = {name: [count[name] for count in counts] for name in self._counted}
        if self._compute:
            architectures = genotypes[0] if self.compilation == "blocks" else self._stacked(genotypes)
        if self._compiling is not None:
            self._compiling.result()
        for double, compute in self._compute.items():
            with jax.enable_x64(True) if double else contextlib.nullcontext():
                arguments = architectures, draw
                values |= jax.device_get(compute(*(_widened(arguments) if double else arguments)))
        return [{name: float(values[name][i]) for name in self.names} for i in range(len(genotypes))]

    def _compile(self, draw: Draw) -> None:
        """Compiles the space's programs for draws of these shapes, so that `score` finds them compiled."""
        weights = self._stacked([self._space.decode(self._space.alphas())])
        for double, compute in self._compute.items():
            with jax.enable_x64(True) if double else contextlib.nullcontext():
                arguments = weights, draw
                compute.lower(*(jax.eval_shape(_widened, arguments) if double else arguments)).compile()

    def _stacked(self, genotypes: Sequence[Any]) -> Weights:
        """Returns the weights of `together` architectures, the last one's repeated."""
        padded = [*genotypes, *[genotypes[-1]] * (self.together - len(genotypes))]
        encoded = [self._space.encode(genotype) for genotype in padded]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *encoded)

    def _computed(self, double: bool) -> Callable[[Any, Draw], dict[str, jax.Array]]:
        """Returns a function of one genotype, or of the weights of several where the compilation is "space"."""
        scores = {name: SCORES[name].compute for name in self.names if SCORES[name].double == double}

        def one(architecture: Any, draw: Draw) -> dict[str, jax.Array]:
            candidate = self._candidate(architecture, draw)
            return {name: compute(candidate) for name, compute in scores.items() if compute is not None}

        def alone(architecture: Any, draw: Draw) -> dict[str, jax.Array]:
            return jax.tree.map(lambda leaf: leaf[None], one(architecture, draw))

        def several(weights: Weights, draw: Draw) -> dict[str, jax.Array]:
            if len(jax.tree.leaves(weights)[0]) > 1:
                return jax.vmap(one, in_axes=(0, None))(weights, draw)
            # a batch of one would be a convolution of one group, which is slower
            return alone(jax.tree.map(lambda leaf: leaf[0], weights), draw)

        if self.compilation == "blocks":
            return alone
        if self._mesh is None:
            return several
        # without the types of its axes, by which jax.make_mesh would ask for inputs that are spread already
        mesh = Mesh(self._mesh.devices, self._mesh.axis_names)
        spread = PartitionSpec(mesh.axis_names)
        return jax.shard_map(several, mesh=mesh, in_specs=(spread, PartitionSpec()), out_specs=spread, check_vma=False)

    def _candidate(self, architecture: Any, draw: Draw) -> Candidate:
        if self.compilation == "blocks":
            build, inputs = functools.partial(self._space.network, architecture, blocks=True), ()
        else:
            build, inputs = functools.partial(self._space.one_shot, discrete=self._discrete), (architecture,)

        def apply(variables: Any, x: jax.Array, **options: Any) -> Any:
            return build(**self._options).apply(variables, x, *inputs, **options)

        def unnormalised(params: Any, x: jax.Array) -> Any:
            return build(**(self._options | {"normalisation": "fixed"})).apply({"params": params}, x, *inputs)

        params = draw.params
        if self.compilation == "blocks":
            # outside of jit the gradients of parameters that an architecture lacks would be computed, as zeros
            used = jax.eval_shape(lambda: apply({"params": params}, draw.x, mutable=[USED_PARAMETERS])[1])
            params = restrict(params, used[USED_PARAMETERS])
        return Candidate(
            apply_fn=lambda p, x: apply({"params": p}, x),
            params=params,
            x=draw.x,
            y=draw.y,
            key=draw.key,
            unnormalised=unnormalised,
            apply=apply,
        )


def _widened(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
