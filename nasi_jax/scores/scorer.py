"""Scores many architectures of a space without compiling for each."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, PartitionSpec

from nasi_jax import data
from nasi_jax.data import Batch, Source
from nasi_jax.nn import RUNNING_STATISTICS, STAGES, USED_PARAMETERS, Style, as_pytorch
from nasi_jax.programs import choose_execution, compiler_options
from nasi_jax.scores.catalogue import Candidate, score
from nasi_jax.scores.costs import Counter
from nasi_jax.spaces import SearchSpace, Weights, no_one_shot, restrict
from nasi_jax.spaces.text import named

SizeT = TypeVar("SizeT")


@dataclasses.dataclass(frozen=True)
class ScoreConfig(Generic[SizeT]):
    """The networks that are scored, and on how many examples.

    Attributes:
        size: size of the networks, a `Size` of the space; the published one when None.
        batch: examples in the batch, the same for all architectures of a seed.
        style: what all layers share.

    Raises:
        ValueError: the batch is too small.
    """

    size: SizeT | None = None
    batch: int = 64
    style: Style = Style()

    def __post_init__(self) -> None:
        """Checks the batch."""
        if self.batch < 2:
            raise ValueError(f"batch: expected at least 2, got {self.batch}")


Compilation = Literal["space", "blocks"]
"""What one compiled program computes.

``"space"``: all scores of any architecture, whose genotype is its input. Every operation is computed, and the genotype
says which ones count; there is little to dispatch, and several architectures and devices work at once. On a CPU, where
a call of the program takes one architecture, NAS-Bench-201's program branches to the operations that the genotype
names, so that none is computed in vain, and several calls run side by side: one alone leaves cores idle.

``"blocks"``: one block of the network, such as a convolution with its ReLU and normalisation. The derived network of an
architecture is a sequence of these, none of which is computed in vain, and architectures share the programs. On a CPU
this is the faster one for spaces whose program does not branch, and the only one for spaces without a one-shot network.
"""


T = TypeVar("T")
R = TypeVar("R")

_TRAINED = "trained-"
"""Before the names of counts at the space's evaluation size."""
_MOST_CALLS = 16  # side by side, each with the memory of a network's gradient


class Draw(NamedTuple):
    """What all architectures of one seed share.

    Attributes:
        params: the one-shot network's parameters; where the space has none, the key of those of every architecture.
        batch: the batch.
        key: for what a score draws itself.
        untrained: the parameters with kernels as PyTorch's layers draw them; None where no score trains.
    """

    params: Any
    batch: Batch
    key: jax.Array
    untrained: Any = None


class Scorer:
    """Scores architectures of one space at one size.

    Each architecture uses its own part of the one-shot network's parameters, which is what its derived network would
    draw from the same key, and does draw where there is no one-shot network.

    Attributes:
        names: the scores that are computed.
        compilation: see `Compilation`.
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
            source: gives batches and the loss.
            names: the scores wanted, as `nasi_jax.scores.score` reads them; they share what they can, as the gradient
                of the loss.
            config: size and style of the networks, and the batch.
            compilation: what is compiled; by default "blocks" on a CPU, where the space's program does not branch and
                neither `per_device` nor `mesh` asks for "space", which both need.
            per_device: architectures that a call of the program takes on each device, by `vmap`. That pays on
                accelerators; on a CPU it makes grouped convolutions, which are slow there.
            mesh: devices over which the architectures of one call are spread, along all axes.

        Raises:
            ValueError: a score is unknown or named twice or does not go with the space or the batch, or the compilation
                does not go with `per_device` or `mesh`.
        """
        self._scores = {name: score(name) for name in names}
        if not names or len(set(names)) < len(names):
            raise ValueError(f"scores: expected at least one, and each once, got {tuple(names)}")
        source.check_batch(config.batch)
        x, y = data.shapes(source, 2)
        floating = any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x))
        own = any(jnp.issubdtype(leaf.dtype, jnp.floating) for _, leaf in data.example_arrays(x))
        for name, found in self._scores.items():
            if found.floating and not floating:
                raise ValueError(f"score: {name} needs inputs that are numbers, {space.name} reads others here")
            if found.own and floating and not own:
                raise ValueError(f"score: {name} needs inputs of each example's own, here all are parts of one graph")
            if found.maps and isinstance(x, data.GraphInput):
                raise ValueError(
                    f"score: {name} needs layers of channels at several places, networks of graphs show none"
                )
            if found.classes and not (isinstance(y, jax.ShapeDtypeStruct) and jnp.issubdtype(y.dtype, jnp.integer)):
                raise ValueError(f"score: {name} needs labels that are classes, the data have others")
            if named(name)[1].get("batch", 0) > config.batch:
                raise ValueError(f"score: expected at most the batch of {config.batch} examples, got {name}")
        if per_device < 1:
            raise ValueError(f"per_device: expected a positive integer, got {per_device}")
        size = space.Size() if config.size is None else config.size
        some = None if space.one_shot else space.at(0)
        capabilities = space.network(some, size, source.outputs).capabilities
        for name, found in self._scores.items():
            if found.features and "features" not in capabilities:
                raise ValueError(f"score: {name} needs networks that show their blocks, those of {space.name} do not")
            if found.embedding and not {"features", "embedding"} & set(capabilities):
                raise ValueError(f"score: {name} needs networks that show their last block, {space.name} has others")
            if is_derived(space, name) and (compilation == "space" or per_device > 1 or mesh is not None):
                raise ValueError(f"compilation: expected 'blocks' and one architecture at once for {name}")
            if found.trains and "stages" not in capabilities:
                raise ValueError(f"score: {name} needs networks of three stages, {space.name} has others")
        if any(is_derived(space, name) for name in names):
            compilation = "blocks"
        self._trains = any(found.trains for found in self._scores.values())
        if compilation not in (None, *get_args(Compilation)):
            raise ValueError(f"compilation: expected one of {get_args(Compilation)}, got {compilation!r}")
        if compilation == "blocks" and (per_device > 1 or mesh is not None):
            raise ValueError("compilation: expected 'space' for several architectures at once, got 'blocks'")
        if not space.one_shot and (compilation == "space" or per_device > 1 or mesh is not None):
            raise ValueError(f"compilation: expected 'blocks' and one architecture at once; {no_one_shot(space)}")
        blocks = compilation == "blocks" if compilation is not None or mesh is not None else None
        blocks = True if not space.one_shot else blocks
        execution = choose_execution("score", capabilities, together=per_device > 1, blocks=blocks)
        self.compilation: Compilation = "blocks" if execution.blocks else "space"
        self.names, self._at_once = tuple(names), per_device * (1 if mesh is None else mesh.size)
        self._space, self._source, self._config, self._mesh = space, source, config, mesh
        self._network = functools.partial(space.network, size=size, outputs=source.outputs, execution=execution)
        # one more than there are cores, for what a call does outside of its program
        side_by_side = execution.discrete == "branches" and mesh is None
        self._threads = min(_MOST_CALLS, (os.cpu_count() or 1) + 1) if side_by_side else 0
        self._counters = {
            "": Counter(space, x, size, source.outputs, config.style),
            _TRAINED: Counter(space, x, space.evaluation_size, source.outputs),
        }
        self._counted = [name for name in names if self._scores[name].compute is None]
        precisions = {self._scores[name].double for name in names if name not in self._counted}
        self._compute: dict[bool, Any] = {double: self._computed(double) for double in sorted(precisions)}
        if not execution.blocks:
            jit = functools.partial(jax.jit, compiler_options=compiler_options())
            self._compute = {double: jit(compute) for double, compute in self._compute.items()}
        self._compiling: Future[None] | None = None

    def draw(self, seed: int) -> Draw:
        """Draws parameters, batch and key of a seed; the first time, the space's program is compiled meanwhile."""
        params_key, batch_key, probe_key = jax.random.split(jax.random.key(seed), 3)
        batch = self._source.batch(batch_key, self._config.batch)
        # hundreds of draws by the default generator take longer
        params_key = jax.random.key(jax.random.bits(params_key), impl="unsafe_rbg")
        if not self._space.one_shot:
            return Draw(params_key, batch, probe_key)

        def compile_meanwhile(shapes: Any) -> None:
            if self._compiling is None and self.compilation == "space":
                threads = ThreadPoolExecutor(1)
                shared = Draw(shapes, batch, probe_key, shapes if self._trains else None)
                self._compiling = threads.submit(self._compile, shared, _is_wide())
                threads.shutdown(wait=False)

        params = self._initial(None, params_key, compile_meanwhile)
        return Draw(params, batch, probe_key, self._untrained(params_key, params))

    def _untrained(self, key: jax.Array, params: Any) -> Any:
        return as_pytorch(jax.random.fold_in(key, 1), params) if self._trains else None

    def _initial(self, genotype: Any, key: jax.Array, meanwhile: Callable[[Any], None] = lambda _: None) -> Any:
        """Draws the parameters of a genotype or of the one-shot network; calls `meanwhile` with their shapes."""
        network = self._network(genotype, style=self._config.style)
        inputs = (data.shapes(self._source, 2).x,)
        inputs += (jax.eval_shape(self._space.alphas),) if genotype is None else ()

        def initial(key: jax.Array) -> Any:
            return network.lazy_init(key, *inputs)["params"]

        draws, shapes = jax.make_jaxpr(initial, return_shape=True)(key)
        meanwhile(shapes)
        return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr_as_fun(draws)(key))

    def score(self, draw: Draw, genotypes: Iterable[Any]) -> list[dict[str, float]]:
        """Scores some architectures; see `stream`."""
        return list(self.stream(draw, genotypes))

    def stream(self, draw: Draw, genotypes: Iterable[Any]) -> Iterator[dict[str, float]]:
        """Scores architectures one after the other, a few of them ahead of what is asked for.

        Args:
            draw: what they share, from `draw`.
            genotypes: the architectures, any number.

        Yields:
            For each, in turn, the value of every score by its name; NaN and infinities as they come.
        """
        if self._compiling is not None:
            self._compiling.result()
        wide = _is_wide()  # which other threads do not see
        draws = {double: _widened(draw) if double else draw for double in self._compute}
        remaining = iter(genotypes)
        parts = iter(lambda: list(itertools.islice(remaining, self._at_once)), [])

        def start(part: list[Any]) -> tuple[list[Any], list[Future[Any]]]:
            if not self._compute:
                return part, []
            architectures = part[0] if self.compilation == "blocks" else self._stacked(part)
            return part, [submit(double, wide, architectures, drawn) for double, drawn in draws.items()]

        with ThreadPoolExecutor(max(1, self._threads)) as threads:
            submit = functools.partial(threads.submit, self._waited) if self._threads else self._submitted
            for part, futures in ahead(start, parts, max(1, self._threads)):
                values: dict[str, Any] = {name: self._counts(name, part) for name in self._counted}
                for future in futures:
                    values |= jax.device_get(future.result())
                for i in range(len(part)):
                    yield {name: float(values[name][i]) for name in self.names}

    def _counts(self, name: str, genotypes: Sequence[Any]) -> list[float]:
        prefix = _TRAINED if name.startswith(_TRAINED) else ""
        return [self._counters[prefix](genotype)[name.removeprefix(prefix)] for genotype in genotypes]

    def _submitted(self, *arguments: Any) -> Future[dict[str, jax.Array]]:
        future: Future[dict[str, jax.Array]] = Future()
        future.set_result(self._call(*arguments))
        return future

    def _waited(self, *arguments: Any) -> dict[str, jax.Array]:
        return jax.block_until_ready(self._call(*arguments))

    def _call(self, double: bool, wide: bool, architectures: Any, draw: Draw) -> dict[str, jax.Array]:
        if not self._space.one_shot:
            with jax.enable_x64(wide):
                params = self._initial(architectures, draw.params)
                drawn = params, self._untrained(draw.params, params)
            params, untrained = _widened(drawn) if double else drawn
            draw = draw._replace(params=params, untrained=untrained)
        with jax.enable_x64(wide or double):
            return self._compute[double](_widened(architectures) if double else architectures, draw)

    def _compile(self, draw: Draw, wide: bool) -> None:
        """Compiles the space's programs for draws of these shapes, so that `stream` finds them compiled."""
        with jax.enable_x64(wide):
            weights = self._stacked([self._space.decode(self._space.alphas())])
        for double, compute in self._compute.items():
            with jax.enable_x64(wide or double):
                arguments = weights, draw
                compute.lower(*(jax.eval_shape(_widened, arguments) if double else arguments)).compile()

    def _stacked(self, genotypes: Sequence[Any]) -> Weights:
        """Returns the weights of as many architectures as a call takes, the last one's repeated."""
        padded = [*genotypes, *[genotypes[-1]] * (self._at_once - len(genotypes))]
        encoded = [self._space.encode(genotype) for genotype in padded]
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *encoded)

    def _computed(self, double: bool) -> Callable[[Any, Draw], dict[str, jax.Array]]:
        """Returns a function of one genotype, or of the weights of several where the compilation is "space"."""
        scores = {name: found.compute for name, found in self._scores.items() if found.double == double}

        def one(architecture: Any, draw: Draw) -> dict[str, jax.Array]:
            candidate = self._candidate(architecture, draw)
            found = {name: compute(candidate) for name, compute in scores.items() if compute is not None}
            for name, value in found.items():
                if value is None or jnp.shape(value) != ():
                    got = "None" if value is None else f"shape {jnp.shape(value)}"
                    raise TypeError(f"score {name!r}: expected its function to return a scalar, got {got}")
            return found

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
        blocks, style = self.compilation == "blocks", self._config.style
        genotype, inputs = (architecture, ()) if blocks else (None, (architecture,))

        def apply(variables: Any, x: Any, *, fixed: bool = False, bare: bool = False, **options: Any) -> Any:
            own = dataclasses.replace(style, normalisation="fixed") if fixed else style
            own = dataclasses.replace(own, bare_cells=True) if bare else own
            return self._network(genotype, style=own).apply(variables, x, *inputs, **options)

        def stages(params: Any, statistics: Any, x: Any, training: bool) -> tuple[list[jax.Array], Any]:
            left = [STAGES, RUNNING_STATISTICS] if training else [STAGES]
            variables = {"params": params, RUNNING_STATISTICS: statistics}
            _, found = apply(variables, x, bare=True, mutable=left)
            return [found[STAGES][name] for name in sorted(found[STAGES])], found.get(RUNNING_STATISTICS, statistics)

        params, untrained, (x, y) = draw.params, draw.untrained, draw.batch
        if blocks and self._space.one_shot:
            # outside of jit the gradients of parameters that an architecture lacks would be computed, as zeros
            used = jax.eval_shape(lambda: apply({"params": params}, x, mutable=[USED_PARAMETERS])[1])[USED_PARAMETERS]
            params, untrained = restrict(params, used), untrained and restrict(untrained, used)
        return Candidate(
            apply_fn=lambda p, x: apply({"params": p}, x),
            params=params,
            x=x,
            y=y,
            loss=self._source.loss,
            outputs=self._source.outputs,
            key=draw.key,
            apply=apply,
            known={},
            untrained=untrained,
            stages=stages,
        )


def is_derived(space: SearchSpace, name: str) -> bool:
    """Whether a score needs derived networks in a space: by itself, or because the blocks are not equally many."""
    found, capabilities = score(name), space.network(space.at(0), space.Size(), 1).capabilities
    return found.derived or ((found.features or found.embedding) and "depth" in capabilities)


def ahead(start: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """Starts something for each item, up to `count` of them before the first is taken, and yields them in turn."""
    started: deque[R] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > count:
            yield started.popleft()
    yield from started


def _is_wide() -> bool:
    return jnp.result_type(float) == jnp.float64


def _widened(tree: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
        )
