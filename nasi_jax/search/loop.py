"""Runs searches over relaxed architectures side by side: a host loop on a CPU, a scan on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nasi_jax.data import Source
from nasi_jax.programs import Execution, Population, member, stack
from nasi_jax.search.nasi import NASI
from nasi_jax.spaces import Alphas, SearchSpace

_LONGEST_CHUNK = 50


class Relaxed(Protocol):
    """A strategy that moves the logits of a one-shot network: a frozen dataclass of its settings.

    Its state is a pytree with the number of steps done as `step` and the logits as `alphas`.

    Attributes:
        steps: number of steps.
        batch: examples in the batch of a step.
    """

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    def init(self, space: SearchSpace) -> Any:
        """Returns the state before the first step."""
        ...

    def init_params(self, space: SearchSpace, source: Source, key: jax.Array) -> Any:
        """Draws what does not change in the course of a search, such as the parameters at initialisation."""
        ...

    def execution(self, space: SearchSpace, source: Source) -> Execution:
        """Chooses how steps run on the device at hand."""
        ...

    def step(
        self, space: SearchSpace, source: Source, state: Any, params: Any, key: jax.Array, execution: Execution
    ) -> tuple[Any, Any]:
        """Takes one step; pure. Returns the state after it and a named tuple of the step's figures, scalars."""
        ...

    def genotype(self, space: SearchSpace, state: Any) -> Any:
        """Returns the architecture that is selected so far."""
        ...


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
    source.check_batch(strategy.batch)
    strategy.execution(space, source)


def init_states(count: int, space: SearchSpace, strategy: Relaxed) -> Any:
    """Returns the states of `count` searches before their first step, along a leading axis."""
    return stack([strategy.init(space)] * count)


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
    source.check_batch(strategy.batch)
    chosen = strategy.execution(space, source)
    execution = chosen if execution is None else execution
    current: Any = init_states(len(keys), space, strategy) if states is None else states
    own = [(strategy.init_params(space, source, jax.random.fold_in(key, strategy.steps)), key) for key in keys]
    done = int(current.step[0])
    chunk = next(n for n in range(_LONGEST_CHUNK, 0, -1) if strategy.steps % n == 0) if execution.scan else 1
    while done < strategy.steps:
        statics = (space, strategy, execution)
        current, infos = _searches.advance(statics, source, current, own, execution=execution, length=chunk)
        infos = jax.tree.map(np.asarray, infos)
        _check_finite(infos, done)
        done += chunk
        yield current, infos


def _step(
    space: SearchSpace,
    strategy: Relaxed,
    execution: Execution,
    source: Source,
    state: Any,
    params: Any,
    key: jax.Array,
) -> tuple[Any, Any]:
    return strategy.step(space, source, state, params, jax.random.fold_in(key, state.step), execution)


_searches = Population(_step, statics=3)


def _check_finite(infos: Any, done: int) -> None:
    finite = np.all([np.isfinite(leaf) for leaf in jax.tree.leaves(infos)], axis=0)
    bad = np.argwhere(~finite.T)
    if len(bad):
        offset, search = (int(i) for i in bad[0])
        figures = {name: float(values[search, offset]) for name, values in infos._asdict().items()}
        raise NonFiniteError(search, done + offset, figures)
