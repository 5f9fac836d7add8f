"""Runs searches over relaxed architectures side by side: a host loop on a CPU, a scan on an accelerator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nasi_jax.data import Source
from nasi_jax.programs import Execution, Population, member, peak_memory, stack
from nasi_jax.scores.costs import Costs
from nasi_jax.search.nasi import NASI
from nasi_jax.search.relaxed import Limited, Relaxed
from nasi_jax.spaces import Alphas, SearchSpace

_LONGEST_CHUNK = 50


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
        genotype: the selected architecture, for NASI argmax p_alpha*(A).
        alphas: alpha*, the final logits.
        history: figures of every step, arrays (steps,).
    """

    genotype: Any
    alphas: Alphas
    history: Any


class NonFiniteError(FloatingPointError):
    """A figure of a search stopped being finite.

    Attributes:
        search: index of the search among those run together.
        step: first step whose figures are not finite.
        figures: the figures of that step by name.
    """

    def __init__(self, search: int, step: int, figures: dict[str, float]):
        self.search, self.step, self.figures = search, step, figures
        listed = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
        super().__init__(
            f"the search stopped being finite at step {step} of search {search}: {listed}. "
            "Look for NaN or very large values in the data, and for settings out of proportion."
        )


def search(key: jax.Array, space: SearchSpace, source: Source, strategy: Relaxed | None = None) -> SearchResult:
    """Selects an architecture.

    Args:
        key: typed random key; the same key gives the same result on the same backend.
        space: the search space.
        source: where batches come from, for example `space.noise()`.
        strategy: how; `NASI()` when None (NASI, Algorithm 1).

    Returns:
        Genotype, logits and history.

    Raises:
        ValueError: the batch is larger than the data, or the inputs do not fit the network.
        NonFiniteError: a figure is NaN or infinite.

    Examples:
        >>> import jax
        >>> from nasi_jax import data, search, spaces
        >>> space = spaces.get("nasbench201")
        >>> strategy = search.NASI(steps=2, batch=4, size=space.Size(channels=2, cells=1))
        >>> found = search.search(jax.random.key(0), space, data.Gaussian((8, 8, 3)), strategy)
        >>> found.history.trace.shape
        (2,)
    """
    strategy = NASI() if strategy is None else strategy
    chunks = list(iterate(key[None], space, source, strategy))
    state = member(chunks[-1][0], 0)
    history = jax.tree.map(lambda *parts: np.concatenate(parts), *(member(infos, 0) for _, infos in chunks))
    return SearchResult(strategy.genotype(space, state), state.alphas, history)


def check(space: SearchSpace, source: Source, strategy: Relaxed) -> None:
    """Checks that a search can start, before anything is compiled.

    Args:
        space: the search space.
        source: where batches come from.
        strategy: how it searches.

    Raises:
        ValueError: the batch is larger than the data, or the inputs do not fit the network.
    """
    strategy.prepared(source)
    strategy.execution(space, source)


def init_states(
    keys: jax.Array,
    space: SearchSpace,
    source: Source,
    strategy: Relaxed,
    limits: Limited = (),
    costs: Costs | None = None,
) -> Any:
    """Returns the states of searches before their first step, along a leading axis.

    Args:
        keys: typed random keys, (searches,).
        space: the search space.
        source: where batches come from.
        strategy: how they search.
        limits: costs and their bounds; see `Relaxed.begin`.
        costs: see `Relaxed.begin`.

    Returns:
        The states.
    """
    begun = (strategy.begin(space, source, _first_key(strategy, key), limits, costs) for key in keys)
    return stack([state for state, _ in begun])


def iterate(
    keys: jax.Array,
    space: SearchSpace,
    source: Source,
    strategy: Relaxed,
    states: Any = None,
    execution: Execution | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Runs several independent searches side by side, and hands out their states as they advance.

    On an accelerator all searches are one program, vmapped over the keys and scanned over up to 50 steps at a time. On
    a CPU the host loops; see `nasi_jax.programs.Population`. All ways give the same results up to rounding.

    Args:
        keys: typed random keys, (searches,).
        space: the search space.
        source: where batches come from.
        strategy: how they search.
        states: states to continue from, with a leading axis (searches,); the initial ones when None.
        execution: how the steps run; by default as `nasi_jax.programs.choose_execution` says for the device at hand.

    Yields:
        The states after some more steps, and the figures of those steps as NumPy arrays (searches, steps done).

    Raises:
        ValueError: the batch is larger than the data, or the inputs do not fit the network.
        NonFiniteError: a figure is NaN or infinite; what was handed out before stands.
    """
    source = strategy.prepared(source)
    chosen = strategy.execution(space, source)
    execution = chosen if execution is None else execution
    begun = [strategy.begin(space, source, _first_key(strategy, key)) for key in keys]
    current: Any = stack([state for state, _ in begun]) if states is None else states
    own = [(constants, key) for (_, constants), key in zip(begun, keys, strict=True)]
    pauses, done = strategy.pauses(space), int(current.step[0])
    ends = sorted({*pauses, strategy.warmup_steps, strategy.steps} - {0})
    while done < strategy.steps:
        start, end = max((e for e in ends if e <= done), default=0), min(e for e in ends if e > done)
        longest = _LONGEST_CHUNK if execution.scan else 1
        chunk = next(n for n in range(longest, 0, -1) if (end - start) % n == 0 and (done - start) % n == 0)
        statics = (space, strategy, execution, done < strategy.warmup_steps)
        current, infos = _searches.advance(statics, source, current, own, execution=execution, length=chunk)
        infos = jax.tree.map(np.asarray, infos)
        _check_finite(infos, done)
        done += chunk
        if done in pauses:
            members = (member(current, i) for i in range(len(keys)))
            current = stack([
                strategy.look(space, source, state, jax.random.fold_in(key, strategy.steps + done), execution)
                for state, key in zip(members, keys, strict=True)
            ])
        yield current, infos
        if all(strategy.ended(member(current, i)) for i in range(len(keys))):
            return


class Trial(NamedTuple):
    """What a search will take.

    Attributes:
        compilation: seconds in which its steps were compiled.
        warm_step: seconds of a step in which the logits stay.
        step: seconds of any other step.
        memory: bytes, most of what the process or the device has held so far.
    """

    compilation: float
    warm_step: float
    step: float
    memory: float


def trial(key: jax.Array, space: SearchSpace, source: Source, strategy: Relaxed, state: Any) -> Trial:
    """Compiles a search and times a step on a copy of its state.

    Args:
        key: typed random key.
        space: the search space.
        source: where batches come from.
        strategy: how it searches.
        state: state of one search, before its first step.

    Returns:
        What it will take.
    """
    source, execution = strategy.prepared(source), strategy.execution(space, source)
    constants = strategy.begin(space, source, key).constants
    compilation, steps = 0.0, []
    for warm in (True, False) if strategy.warmup_steps else (False,):
        seconds = []
        for _ in range(2):
            start = time.monotonic()
            statics = (space, strategy, execution, warm)
            taken = _searches.advance(statics, source, stack([state]), [(constants, key)], execution=execution)
            jax.block_until_ready(taken)
            seconds.append(time.monotonic() - start)
        compilation += max(0.0, seconds[0] - seconds[1])
        steps.append(seconds[1])
    return Trial(compilation, steps[0], steps[-1], peak_memory())


def _first_key(strategy: Relaxed, key: jax.Array) -> jax.Array:
    """Returns the key by which a search begins, which is none of those of its steps."""
    return jax.random.fold_in(key, strategy.steps)


def _step(
    space: SearchSpace,
    strategy: Relaxed,
    execution: Execution,
    warm: bool,
    source: Source,
    state: Any,
    params: Any,
    key: jax.Array,
) -> tuple[Any, Any]:
    take = strategy.warm_step if warm else strategy.step
    return take(space, source, state, params, jax.random.fold_in(key, state.step), execution)


_searches = Population(_step, statics=4)


def _check_finite(infos: Any, done: int) -> None:
    finite = np.all([np.isfinite(leaf) for leaf in jax.tree.leaves(infos)], axis=0)
    bad = np.argwhere(~finite.T)
    if len(bad):
        offset, search = (int(i) for i in bad[0])
        figures = {name: float(values[search, offset]) for name, values in infos._asdict().items()}
        raise NonFiniteError(search, done + offset, figures)
