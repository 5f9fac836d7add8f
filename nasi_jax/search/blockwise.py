"""Block-wise search: the candidates of every block are valued apart, in bins of size that shrink while they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nasi_jax.search.selection import Chain
from nasi_jax.spaces.base import check_positive


class BlockEstimate(Protocol):
    """Says what the candidates of a block are worth, larger for better ones.

    Attributes:
        steps: how many candidates it is trained on in every round, 0 for one that is not trained. The values of such a
            one never change, and each is asked for once.
    """

    @property
    def steps(self) -> int: ...  # noqa: D102

    def init(self, seed: int) -> Any:
        """Returns what is trained, a pytree of arrays, before the first round."""
        ...

    def train(self, state: Any, block: int, candidates: np.ndarray) -> tuple[Any, float]:
        """Trains on candidates of a block, one after the other.

        Args:
            state: what is trained.
            block: number of the block.
            candidates: their numbers, (steps,).

        Returns:
            The next state, and the mean loss.
        """
        ...

    def values(self, state: Any, block: int, candidates: np.ndarray) -> np.ndarray:
        """Returns the values of candidates of a block, (candidates,); NaN for one that has none."""
        ...


class BlockwiseState(NamedTuple):
    """Where a block-wise search is.

    Attributes:
        done: steps so far, () int64; a step is one round of one block.
        alive: which candidates are left, (blocks, candidates) bool.
        values: the last value of each, (blocks, candidates) float64; NaN before it has one.
        estimate: what the estimate trains.
    """

    done: np.ndarray
    alive: np.ndarray
    values: np.ndarray
    estimate: Any


class BlockwiseInfo(NamedTuple):
    """Figures of one step.

    Attributes:
        round: number of the round; the last one values what is left.
        block: number of the block.
        evaluated: candidates that were valued.
        left: candidates of the block that are left after it.
        best: the largest value among them.
        mean: their mean value.
        loss: mean loss of the training before; NaN where nothing is trained.
    """

    round: int
    block: int
    evaluated: int
    left: int
    best: float
    mean: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Blockwise:
    """Progressive shrinking of NAS-BERT, over the candidates of several blocks.

    The candidates of a block are put into bins by their size, so that neither the small nor the large ones drive the
    others out. In every round the estimate is trained on candidates drawn from what is left, a bin uniformly and then
    one of it; some of each bin are drawn and valued; and the worse half of these is removed. It ends when every bin has
    a few left, which are valued once more. `nasi_jax.search.Chain` selects from them. Where bins begin, how they are
    drawn from and what happens when fewer than `drawn` are left, are choices of this library.

    A block is valued by itself and not within an architecture. So this is no `nasi_jax.search.Strategy`, which is told
    values of whole architectures.

    Attributes:
        bins: bins of each block; bin b holds what costs at most (b + 1) / bins of the most costly in every cost.
        pool: candidates of each bin that the search begins with, drawn uniformly; all of them when 0, as published.
        drawn: candidates of each bin that are valued in a round.
        kept: candidates of each bin that are left in the end.
        warmup: rounds before the first removal.

    Raises:
        ValueError: an option is out of range.

    References:
        Xu et al., "NAS-BERT: Task-agnostic and adaptive-size BERT compression with neural architecture search", KDD
        2021.
    """

    bins: int = 10
    pool: int = 64
    drawn: int = 2000
    kept: int = 10
    warmup: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        check_positive(self, bins=1, pool=0, drawn=2, kept=1, warmup=0)

    def binned(self, costs: Mapping[str, np.ndarray], allowed: np.ndarray | None = None) -> np.ndarray:
        """Returns the bin of each candidate.

        Args:
            costs: for each cost (candidates,), positive.
            allowed: which candidates there are, (candidates,) bool, such as those that limits leave; all when None.

        Returns:
            The first bin whose limits a candidate meets in all costs, (candidates,) int; -1 where it is not allowed.
        """
        there = np.ones(len(next(iter(costs.values()))), bool) if allowed is None else allowed
        shares = np.max([cost / cost[there].max() for cost in costs.values()], axis=0)
        bins = np.clip(np.ceil(self.bins * shares - 1e-9).astype(int) - 1, 0, self.bins - 1)
        return np.where(there, bins, -1)

    def init(self, seed: int, blocks: int, binned: np.ndarray, estimate: BlockEstimate) -> BlockwiseState:
        """Returns the state before the first step.

        Args:
            seed: of all that is drawn.
            blocks: number of blocks.
            binned: the bin of each candidate of a block, (candidates,).
            estimate: what values them.

        Returns:
            The state.
        """
        alive = np.zeros((blocks, len(binned)), bool)
        for block, row in enumerate(alive):
            generator = np.random.default_rng([seed, block])
            for number in np.unique(binned[binned >= 0]):
                members = np.flatnonzero(binned == number)
                row[generator.permutation(members)[: self.pool or None]] = True
        return BlockwiseState(np.array(0), alive, np.full(alive.shape, np.nan), estimate.init(seed))

    def rounds(self, binned: np.ndarray) -> int:
        """Returns how many rounds it takes until every bin has only what is kept."""
        sizes, count = np.bincount(binned[binned >= 0], minlength=self.bins), 0
        if self.pool:
            sizes = np.minimum(sizes, self.pool)
        while (sizes > self.kept).any():
            sizes = sizes - (self._removed(sizes) if count >= self.warmup else 0)
            count += 1
        return count

    def run(
        self, seed: int, binned: np.ndarray, estimate: BlockEstimate, state: BlockwiseState
    ) -> Iterator[tuple[BlockwiseState, BlockwiseInfo]]:
        """Goes on from a state to the end.

        Args:
            seed: that of `init`.
            binned: that of `init`.
            estimate: that of `init`.
            state: where to go on.

        Yields:
            The state after each step, and its figures.
        """
        blocks, rounds = len(state.alive), self.rounds(binned)
        for step in range(int(state.done), blocks * (rounds + 1)):
            number, block = divmod(step, blocks)
            generator = np.random.default_rng([seed, number, block, blocks])
            alive, values, trained, loss = state.alive.copy(), state.values.copy(), state.estimate, np.nan
            groups = [np.flatnonzero(alive[block] & (binned == b)) for b in np.unique(binned[alive[block]])]
            if estimate.steps and number < rounds:
                chosen = [generator.choice(groups[generator.integers(len(groups))]) for _ in range(estimate.steps)]
                trained, loss = estimate.train(trained, block, np.array(chosen))
            last = number == rounds
            drawn = [group if last else generator.permutation(group)[: self.drawn] for group in groups]
            asked = np.concatenate(drawn)
            if not estimate.steps:
                asked = asked[np.isnan(values[block][asked])]
            if len(asked):
                values[block][asked] = estimate.values(trained, block, asked)
            if not last and number >= self.warmup:
                for group, some in zip(groups, drawn, strict=True):
                    worst = some[np.argsort(np.nan_to_num(values[block][some], nan=-np.inf), kind="stable")]
                    alive[block][worst[: self._removed(np.array(len(group)))]] = False
            state = BlockwiseState(np.array(step + 1), alive, values, trained)
            left = values[block][alive[block]]
            known = left[np.isfinite(left)] if np.isfinite(left).any() else np.array([np.nan])
            yield (
                state,
                BlockwiseInfo(
                    number, block, len(asked), len(left), float(known.max()), float(known.mean()), float(loss)
                ),
            )

    def _removed(self, sizes: np.ndarray) -> np.ndarray:
        """Returns how many are removed from bins of some sizes: half of what is drawn, and never below what is kept."""
        half = np.maximum(np.minimum(sizes, self.drawn) // 2, 1)
        return np.clip(sizes - self.kept, 0, half)


BLOCKWISE: dict[str, Blockwise] = {"default": Blockwise(), "nasbert": Blockwise(pool=0, warmup=3)}
"""Settings by name, "default" first, which is for a score on two cores; "nasbert" are the published ones."""


def table(
    state: BlockwiseState,
    ports: np.ndarray,
    costs: Mapping[str, np.ndarray],
    joints: Mapping[str, Sequence[np.ndarray]],
) -> tuple[Chain, list[np.ndarray]]:
    """Returns what is left of every block at the end of a search, for selection.

    Args:
        state: the last state.
        ports: of the candidates of any block, (candidates,).
        costs: for each cost (candidates,).
        joints: see `Chain`.

    Returns:
        The chain of what is left and has a value, and for each block the numbers of these candidates.

    Raises:
        ValueError: a block has none.
    """
    left = [np.flatnonzero(row) for row in state.alive & np.isfinite(state.values)]
    values = [state.values[block][numbers] for block, numbers in enumerate(left)]
    return Chain(
        values,
        [ports[numbers] for numbers in left],
        {name: [cost[numbers] for numbers in left] for name, cost in costs.items()},
        joints,
    ), left
