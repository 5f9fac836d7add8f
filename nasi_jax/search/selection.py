"""The best architectures within limits where blocks were valued apart, exactly and without listing combinations."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasi_jax.scores.limits import InfeasibleError, Limits

_AT_ONCE = 512
_PAIRS = 4_000_000  # candidates times completions that are compared at once


class Selected(NamedTuple):
    """A candidate for every block.

    Attributes:
        places: the place of each block's candidate.
        value: the sum of their values.
        costs: the whole costs by name, those of the joints among them.
    """

    places: tuple[int, ...]
    value: float
    costs: dict[str, float]


class _Completions(NamedTuple):
    """Ways to choose all blocks from one on, those that no other beats, by falling value.

    Attributes:
        values: sums of values, (completions,).
        costs: sums of costs, (completions, costs).
        chosen: the place of the block's candidate, (completions,).
        following: the place among the completions of the next block for this candidate's port, (completions,).
    """

    values: np.ndarray
    costs: np.ndarray
    chosen: np.ndarray
    following: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """Blocks in a row, the candidates of each with a value and costs, and what stands between two blocks.

    A candidate has a port, such as its width, and a joint has a cost that depends on the ports on both sides, such as
    a linear map where widths differ. Values and costs of an architecture are sums, as NAS-BERT approximates them.

    All methods are exact. From the last block to the first they keep, for every port, the completions that no other one
    beats in value and in all costs that matter; these say for any beginning what its best end is.

    Attributes:
        values: for each block (candidates,), larger for better ones.
        ports: for each block (candidates,) int.
        costs: for each cost and block (candidates,).
        joints: for each cost, before, between and after the blocks, (ports of the block before, ports of the next
            one); at both ends a single port.

    Raises:
        ValueError: a value is not finite.

    References:
        Xu et al., "NAS-BERT: Task-agnostic and adaptive-size BERT compression with neural architecture search", KDD
        2021, which lists all combinations.
    """

    values: Sequence[np.ndarray]
    ports: Sequence[np.ndarray]
    costs: Mapping[str, Sequence[np.ndarray]]
    joints: Mapping[str, Sequence[np.ndarray]]

    def __post_init__(self) -> None:
        """Checks the values."""
        for block, values in enumerate(self.values):
            if not len(values) or not np.isfinite(values).all():
                raise ValueError(f"values: expected finite ones, got others or none in block {block}")

    def best(self, limits: Limits = Limits(), count: int = 1) -> list[Selected]:
        """Returns the architectures of the highest values that meet limits, the best first.

        Args:
            limits: bounds of costs.
            count: how many at most.

        Returns:
            At least one.

        Raises:
            InfeasibleError: nothing meets the limits.
        """
        found = list(itertools.islice(self._descending(limits), count))
        if not found:
            raise self._infeasible(limits)
        return found

    def front(self, cost: str, limits: Limits = Limits()) -> list[Selected]:
        """Returns the architectures that no other one beats in value and cost, by rising cost.

        Args:
            cost: name of the cost.
            limits: bounds that they meet.

        Returns:
            At least one; the value rises with the cost.

        Raises:
            InfeasibleError: nothing meets the limits.
        """
        names = tuple(dict.fromkeys([cost, *limits.bounds]))
        completions = self._completions(names, limits)
        first = completions[0][0]
        if not len(first.values):
            raise self._infeasible(limits)
        best = _unbeaten(first.values, first.costs[:, :1])[::-1]
        return [self.at(self._walked(completions, int(place))) for place in best]

    def _descending(self, limits: Limits) -> Iterator[Selected]:
        """Yields everything within the limits by falling value: a best-first search that knows the best end."""
        names = tuple(limits.bounds)
        completions, bounds, number = self._completions(names, limits), self._bounds(names, limits), itertools.count()
        first = completions[0][0]
        waiting: list[Any] = [(-first.values[0], 0, 0, (), 0.0, np.zeros(len(names)))] if len(first.values) else []
        while waiting:
            _, _, _, places, value, spent = heapq.heappop(waiting)
            block = len(places)
            if block == len(self.values):
                yield self.at(places)
                continue
            port = int(self.ports[block - 1][places[-1]]) if places else 0
            costs = spent + self._joint(block, names)[port][self.ports[block]] + self._own(block, names)
            values = value + self.values[block]
            reachable = values + self._best_ends(completions[block + 1], self.ports[block], bounds - costs)
            for place in np.flatnonzero(reachable > -math.inf):
                # of equal ones the longest beginning first: there may be very many
                entry = (-reachable[place], -block, next(number), (*places, int(place)), values[place], costs[place])
                heapq.heappush(waiting, entry)

    @staticmethod
    def _best_ends(completions: list[_Completions], ports: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Returns the highest value of an end for beginnings, (beginnings,); -inf without one.

        Args:
            completions: for each port.
            ports: of the beginnings, (beginnings,).
            left: what each cost of the end may be at most, (beginnings, costs).
        """
        found = np.full(len(ports), -math.inf)
        for port in np.unique(ports):
            ends, rows = completions[port], np.flatnonzero(ports == port)
            if not len(ends.values):
                continue
            for part in np.array_split(rows, 1 + len(rows) * len(ends.values) // _PAIRS):
                fits = (ends.costs[None] <= left[part, None]).all(axis=-1)
                best = ends.values[np.argmax(fits, axis=1)]  # the first, since values fall
                found[part] = np.where(fits.any(axis=1), best, -math.inf)
        return found

    def _completions(self, names: tuple[str, ...], limits: Limits) -> list[list[_Completions]]:
        """Returns for each block, and each port of the block before it, the completions with the joint before.

        After the last block there is the joint alone.
        """
        bounds, least, after = self._bounds(names, limits), self._least_before(names), len(self.values)
        found: list[list[_Completions]] = [
            [
                _Completions(np.zeros(1), joint, np.zeros(1, int), np.zeros(1, int))
                for joint in self._joint(after, names)
            ]
        ]
        for block in reversed(range(after)):
            own, joints, here = self._own(block, names), self._joint(block, names), []
            for port in range(joints.shape[1]):
                places, ends = np.flatnonzero(self.ports[block] == port), found[0][port]
                places = places[_unbeaten(self.values[block][places], own[places])]
                parts = []
                for place in places:
                    costs = own[place] + ends.costs
                    fits = np.flatnonzero((costs + least[block][port] <= bounds).all(axis=1))
                    values = self.values[block][place] + ends.values[fits]
                    parts.append(_Completions(values, costs[fits], np.full(len(fits), place), fits))
                here.append(_best_of(parts, len(names)))
            found.insert(
                0,
                [
                    _best_of(
                        [ends._replace(costs=ends.costs + joint[port]) for port, ends in enumerate(here)], len(names)
                    )
                    for joint in joints
                ],
            )
        return found

    def _least_before(self, names: tuple[str, ...]) -> list[np.ndarray]:
        """Returns, for each block, the least of each cost of all that stands before it, (ports, costs)."""
        found, least = [], np.zeros((1, len(names)))
        for block in range(len(self.values)):
            before = np.min(least[:, None] + self._joint(block, names), axis=0)
            found.append(before)
            own = self._own(block, names)
            least = np.full_like(before, math.inf)
            np.minimum.at(least, self.ports[block], own)
            least = least + before
        return found

    def _infeasible(self, limits: Limits) -> InfeasibleError:
        """Returns the error that says the smallest of each cost of any architecture."""
        smallest = {}
        for name in limits.bounds:
            last, least = len(self.values) - 1, self._least_before((name,))
            ends = self._own(last, (name,)) + (least[last] + self._joint(last + 1, (name,))[:, 0])[self.ports[last]]
            smallest[name] = float(np.min(ends))
        return InfeasibleError(limits, smallest, math.prod(map(len, self.values)))

    def _walked(self, completions: list[list[_Completions]], place: int) -> tuple[int, ...]:
        """Returns the candidates of a completion of the first block."""
        places, port = [], 0
        for block, here in enumerate(completions[:-1]):
            places.append(int(here[port].chosen[place]))
            place, port = int(here[port].following[place]), int(self.ports[block][places[-1]])
        return tuple(places)

    def at(self, places: Sequence[int]) -> Selected:
        """Returns the architecture of a candidate for each block, with its value and costs."""
        ports = [0, *(int(ports[place]) for ports, place in zip(self.ports, places, strict=True)), 0]
        costs = {}
        for name, own in self.costs.items():
            total = sum(float(costs[place]) for costs, place in zip(own, places, strict=True))
            joints = zip(self.joints[name], itertools.pairwise(ports), strict=True)
            costs[name] = total + sum(float(joint[pair]) for joint, pair in joints)
        return Selected(tuple(places), sum(float(v[p]) for v, p in zip(self.values, places, strict=True)), costs)

    def _joint(self, block: int, names: tuple[str, ...]) -> np.ndarray:
        """Returns the costs of the joint before a block, (ports before, ports, costs)."""
        rows = [self.joints[name][block] for name in names]
        shape = np.shape(next(iter(self.joints.values()))[block])
        return np.stack(rows, axis=-1).astype(float) if rows else np.zeros((*shape, 0))

    def _own(self, block: int, names: tuple[str, ...]) -> np.ndarray:
        """Returns the costs of a block's candidates, (candidates, costs)."""
        rows = [self.costs[name][block] for name in names]
        return np.stack(rows, axis=-1).astype(float) if rows else np.zeros((len(self.values[block]), 0))

    @staticmethod
    def _bounds(names: tuple[str, ...], limits: Limits) -> np.ndarray:
        return np.array([limits.bounds.get(name, math.inf) for name in names])


def _best_of(parts: list[_Completions], costs: int) -> _Completions:
    """Returns the completions of all parts that no other one beats, by falling value."""
    if not parts:
        return _Completions(np.zeros(0), np.zeros((0, costs)), np.zeros(0, int), np.zeros(0, int))
    whole = _Completions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    best = _unbeaten(whole.values, whole.costs)
    return _Completions(*(array[best] for array in whole))


def _unbeaten(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Returns the places that no other one beats, by falling value: with at least the value and at most all costs.

    Args:
        values: (count,).
        costs: (count, costs).

    Returns:
        Places, (unbeaten,); of equal ones one.
    """
    order = np.lexsort((*costs.T[::-1], -values))
    ordered = costs[order]
    if costs.shape[1] == 0:
        return order[:1]
    if costs.shape[1] == 1:
        least = np.minimum.accumulate(np.concatenate([[math.inf], ordered[:-1, 0]]))
        return order[ordered[:, 0] < least]
    kept = np.zeros((0, costs.shape[1]))
    found = []
    for start in range(0, len(order), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(order)))
        rows = rows[~_beaten(ordered[rows], kept)]
        part = ordered[rows]
        earlier = np.tri(len(rows), k=-1, dtype=bool)
        rows = rows[~((part[None] <= part[:, None]).all(axis=-1) & earlier).any(axis=1)]
        found.append(rows)
        kept = np.concatenate([kept, ordered[rows]])
    return order[np.concatenate(found)] if found else order


def _beaten(costs: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Returns for each row of costs whether one of `by` is at most as large everywhere."""
    found = np.zeros(len(costs), bool)
    for start in range(0, len(by), 8 * _AT_ONCE):
        part = by[start : start + 8 * _AT_ONCE]
        found |= (part[None] <= costs[:, None]).all(axis=-1).any(axis=-1)
    return found
