"""Runs searches: a host loop on a CPU, a scan on an accelerator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import Source
from nasi_jax.programs import jit_network, run_by_programs
from nasi_jax.scores.scorer import Compilation
from nasi_jax.search import nasi
from nasi_jax.search.nasi import NASIConfig, NASIInfo, NASIState
from nasi_jax.spaces import Alphas, SearchSpace

_LONGEST_CHUNK = 50
_LARGEST_PROGRAM = 400  # arrays of parameters; NAS-Bench-201 at full size has 190, the DARTS space with 8 cells 1,000


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
        genotype: argmax p_alpha*(A).
        alphas: alpha*, the final logits.
        history: figures of every step, arrays (steps,).
    """

    genotype: Any
    alphas: Alphas
    history: NASIInfo


class NonFiniteTraceError(FloatingPointError):
    """The trace or the objective of a search stopped being finite.

    Attributes:
        search: index of the search among those run together.
        step: first step whose figures are not finite.
    """

    def __init__(self, search: int, step: int, trace: float, objective: float):
        self.search, self.step = search, step
        super().__init__(
            f"the trace stopped being finite at step {step} of search {search}: trace {trace}, objective {objective}. "
            "Look for NaN or very large values in the data."
        )


def search(key: jax.Array, space: SearchSpace, source: Source, config: NASIConfig | None = None) -> SearchResult:
    """Selects an architecture at initialisation (NASI, Algorithm 1).

    Args:
        key: typed random key; the same key gives the same result on the same backend.
        space: the search space.
        source: where batches come from, for example `nasi_jax.data.Gaussian()`.
        config: settings; `NASIConfig()` when None.

    Returns:
        Genotype, logits and history.

    Raises:
        ValueError: the batch is larger than the data, or the images do not fit the network.
        NonFiniteTraceError: a trace is NaN or infinite.

    Examples:
        >>> import jax
        >>> from nasi_jax import data, search, spaces
        >>> space = spaces.get("nasbench201")
        >>> config = search.NASIConfig(steps=2, batch=4, channels=2, cells=1)
        >>> found = search.search(jax.random.key(0), space, data.Gaussian((8, 8, 3)), config)
        >>> found.history.trace.shape
        (2,)
    """
    config = NASIConfig() if config is None else config
    chunks = list(iterate(key[None], space, source, config))
    alphas = jax.tree.map(lambda leaf: leaf[0], chunks[-1][0].alphas)
    history = [jax.tree.map(lambda leaf: leaf[0], infos) for _, infos in chunks]
    return SearchResult(space.decode(alphas), alphas, jax.tree.map(lambda *parts: np.concatenate(parts), *history))


def check(space: SearchSpace, source: Source, config: NASIConfig) -> None:
    """Checks that a search can start, before anything is compiled.

    Args:
        space: the search space.
        source: where batches come from.
        config: settings.

    Raises:
        ValueError: the batch is larger than the data, or the images do not fit the network.
    """
    _checked(space, source, config)


def _checked(space: SearchSpace, source: Source, config: NASIConfig) -> Any:
    """Checks that a search can start, and returns the shapes of its parameters."""
    source.check_batch(config.batch)
    return jax.eval_shape(lambda key: nasi.init_params(space, config, source, key), jax.random.key(0))


def init_states(count: int, space: SearchSpace, config: NASIConfig) -> NASIState:
    """Returns the states of `count` searches before their first step, along a leading axis."""
    state = nasi.init(space, config)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], count, axis=0), state)


def iterate(
    keys: jax.Array,
    space: SearchSpace,
    source: Source,
    config: NASIConfig,
    states: NASIState | None = None,
    scan: bool | None = None,
    compilation: Compilation | None = None,
) -> Iterator[tuple[NASIState, NASIInfo]]:
    """Runs several independent searches side by side, and hands out their states as they advance.

    On an accelerator all searches are one program, vmapped over the keys and scanned over up to 50 steps at a time.
    On a CPU the host loops over steps and searches, because XLA runs the grouped convolutions that vmap makes many
    times slower there. All ways give the same results up to rounding.

    Args:
        keys: typed random keys, (searches,).
        space: the search space.
        source: where batches come from.
        config: settings.
        states: states to continue from, with a leading axis (searches,); the initial ones when None.
        scan: whether to scan; by default where the backend is not a CPU.
        compilation: without a scan, whether a step is one program ("space") or calls one for each block of the
            network ("blocks"), which compiles in a fraction of the time and takes longer a step; by default "blocks" on
            a CPU for networks whose one program would take many minutes to compile.

    Yields:
        The states after some more steps, and the figures of those steps as NumPy arrays (searches, steps done).

    Raises:
        ValueError: the batch is larger than the data, the images do not fit the network, or the compilation is unknown
            or does not go with a scan.
        NonFiniteTraceError: a trace is NaN or infinite; what was handed out before stands.
    """
    shapes = _checked(space, source, config)
    if states is None:
        states = init_states(len(keys), space, config)
    on_cpu = jax.default_backend() == "cpu"
    scan = not on_cpu if scan is None else scan
    if compilation not in (None, *get_args(Compilation)):
        raise ValueError(f"compilation: expected one of {get_args(Compilation)}, got {compilation!r}")
    if compilation == "blocks" and scan:
        raise ValueError("compilation: expected 'space' for a scan, got 'blocks'")
    if compilation is None:
        large = len(jax.tree.leaves(shapes)) > _LARGEST_PROGRAM
        compilation = "blocks" if on_cpu and not scan and large else "space"

    params = [nasi.init_params(space, config, source, jax.random.fold_in(key, config.steps)) for key in keys]
    if scan:
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    done = int(states.step[0])
    chunk = next(n for n in range(_LONGEST_CHUNK, 0, -1) if config.steps % n == 0) if scan else 1
    if scan:
        advance = functools.partial(_advance_scan, space, config, length=chunk)
    else:
        blocks = compilation == "blocks"
        step = _step_by_programs(space, config) if blocks else functools.partial(_compiled_step, space, config)
        advance = functools.partial(_advance_host, step)
    while done < config.steps:
        states, infos = advance(source, states, params, keys)
        infos = jax.tree.map(np.asarray, infos)
        _check_finite(infos, done)
        done += chunk
        yield states, infos


def _advance_host(
    step: Callable[..., tuple[NASIState, NASIInfo]], source: Source, states: NASIState, params: Any, keys: jax.Array
) -> tuple[NASIState, NASIInfo]:
    results = [
        step(source, jax.tree.map(lambda leaf, i=i: leaf[i], states), params[i], keys[i]) for i in range(len(keys))
    ]
    states, infos = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    return states, jax.tree.map(lambda leaf: leaf[:, None], infos)


def _step(
    space: SearchSpace,
    config: NASIConfig,
    source: Source,
    state: NASIState,
    params: Any,
    key: jax.Array,
    blocks: bool = False,
) -> tuple[NASIState, NASIInfo]:
    return nasi.step(space, config, source, state, params, jax.random.fold_in(key, state.step), blocks)


_compiled_step = jit_network(_step, static_argnums=(0, 1))


@functools.lru_cache
def _step_by_programs(space: SearchSpace, config: NASIConfig) -> Callable[..., tuple[NASIState, NASIInfo]]:
    return run_by_programs(functools.partial(_step, space, config, blocks=True))


@functools.partial(jit_network, static_argnums=(0, 1), static_argnames=("length",))
def _advance_scan(
    space: SearchSpace,
    config: NASIConfig,
    source: Source,
    states: NASIState,
    params: Any,
    keys: jax.Array,
    *,
    length: int,
) -> tuple[NASIState, NASIInfo]:
    def one_search(state: NASIState, params: Any, key: jax.Array) -> tuple[NASIState, NASIInfo]:
        def body(state: NASIState, _: None) -> tuple[NASIState, NASIInfo]:
            return _step(space, config, source, state, params, key)

        return jax.lax.scan(body, state, length=length)

    return jax.vmap(one_search)(states, params, keys)


def _check_finite(infos: NASIInfo, done: int) -> None:
    bad = np.argwhere(~(np.isfinite(infos.trace) & np.isfinite(infos.objective)).T)
    if len(bad):
        offset, search = bad[0]
        trace, objective = float(infos.trace[search, offset]), float(infos.objective[search, offset])
        raise NonFiniteTraceError(int(search), done + int(offset), trace, objective)
