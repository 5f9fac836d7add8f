"""Runs a black-box strategy on any evaluator, within limits, from wherever it stopped."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.programs import member, stack
from nasi_jax.scores.evaluator import FAILED, Evaluator
from nasi_jax.scores.limits import InfeasibleError, Limits
from nasi_jax.search.strategy import Strategy
from nasi_jax.spaces import SearchSpace

Unique = Literal["no", "equal", "isomorphic"]
"""Which architectures count as evaluated already, and are not evaluated again.

``"no"``: none; what is chosen again is paid for again, as in published comparisons. ``"equal"``: equal ones.
``"isomorphic"``: those that compute the same function, by `SearchSpace.canonical`.
"""

_ATTEMPTS = 1000


class Evaluation(NamedTuple):
    """One architecture that was evaluated.

    Attributes:
        genotype: the architecture.
        value: what the strategy is told, larger for better ones; NaN where there is none.
        figures: what the evaluator said.
        costs: its costs.
        reason: why it has no value, or "".
    """

    genotype: Any
    value: float
    figures: dict[str, float]
    costs: dict[str, float]
    reason: str = ""


class BlackBox:
    """A search by values alone.

    It is deterministic: what is asked for follows from the key and from what was told. So a search that stopped
    continues from its evaluations, which are told again.

    Attributes:
        evaluations: those so far, in the order in which they were told.
        looked_at: how many architectures were chosen, with those that do not meet the limits.
    """

    def __init__(
        self,
        key: jax.Array,
        strategy: Strategy[Any],
        space: SearchSpace,
        evaluator: Evaluator,
        value: Callable[[dict[str, float]], float],
        *,
        costs: Callable[[Any], dict[str, float]] = lambda _: {},
        limits: Limits = Limits(),
        unique: Unique = "no",
        parallel: int = 1,
    ):
        """Checks the options; nothing is evaluated yet.

        Args:
            key: typed random key.
            strategy: how architectures are chosen.
            space: the search space.
            evaluator: what they are worth.
            value: the value of an architecture from the evaluator's figures, larger for better ones.
            costs: costs of an architecture by name.
            limits: what they may be at most; other architectures are not evaluated.
            unique: which architectures are not evaluated again.
            parallel: how many are asked for at once, which an evaluator may work on at the same time. The strategy
                hears of one's value before it chooses the next only at 1.

        Raises:
            ValueError: an option is out of range, or the strategy does not fit the space.
        """
        if parallel < 1:
            raise ValueError(f"parallel: expected a positive integer, got {parallel}")
        self._strategy, self._space, self._evaluator, self._value = strategy, space, evaluator, value
        self._costs, self._limits, self._unique, self._parallel = costs, limits, unique, parallel
        init_key, self._key = jax.random.split(key)
        self._state = strategy.init(init_key, space)
        # asked for one at a time where some of them are turned down
        self._count = parallel if unique == "no" and not limits.bounds else 1
        self._ask = jax.jit(functools.partial(strategy.ask, count=self._count))
        self._tell, self._reject = jax.jit(strategy.tell), jax.jit(strategy.reject)
        self._asked, self._names, self._smallest = 0, set(), dict.fromkeys(limits.bounds, math.inf)
        self._known: dict[str, Evaluation] = {}
        self.evaluations: list[Evaluation] = []
        self.looked_at = 0

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the highest value, the first one on ties; None where none has a value."""
        valued = [evaluation for evaluation in self.evaluations if not math.isnan(evaluation.value)]
        return max(valued, key=lambda evaluation: evaluation.value, default=None)

    def run(self, evaluations: int, told: Sequence[Evaluation] = ()) -> Iterator[Evaluation]:
        """Evaluates architectures until there are so many; fewer where the strategy has no others.

        Args:
            evaluations: how many in all.
            told: those of an earlier run with the same options, in their order, which are not evaluated again.

        Yields:
            The evaluations that are not among `told`.

        Raises:
            ValueError: `told` are not those of such a run.
            InfeasibleError: nothing that the strategy chooses meets the limits.
        """
        remaining = list(told)
        while len(self.evaluations) < evaluations:
            genotypes = self._chosen()
            if not genotypes:
                return
            genotypes = genotypes[: evaluations - len(self.evaluations)]
            replayed = [self._same(genotype, remaining.pop(0)) for genotype in genotypes if remaining]
            fresh = genotypes[len(replayed) :]
            round_, news = list(replayed), self._evaluated(fresh)
            self.evaluations += replayed
            for evaluation in news:
                round_.append(evaluation)
                self.evaluations.append(evaluation)
                yield evaluation
            values = jnp.array([e.value for e in round_])
            self._state = self._tell(self._state, stack([e.genotype for e in round_]), values)

    def _chosen(self) -> list[Any]:
        """Asks for the architectures of a round, until enough of them are new and within the limits."""
        found: list[Any] = []
        for _ in range(_ATTEMPTS):
            self._asked += 1
            genotypes, self._state = self._ask(jax.random.fold_in(self._key, self._asked), self._state)
            genotypes = jax.device_get(genotypes)
            for i in range(self._count):
                genotype = member(genotypes, i)
                self.looked_at += 1
                if self._accepted(genotype):
                    found.append(genotype)
                else:
                    self._state = self._reject(self._state, jax.tree.map(lambda leaf: leaf[None], genotype))
            if len(found) >= self._parallel:
                return found
        if not found and not self.evaluations and self._limits.bounds:
            raise InfeasibleError(self._limits, self._smallest, self.looked_at)
        return found

    def _accepted(self, genotype: Any) -> bool:
        if self._limits.bounds:
            costs = self._costs(genotype)
            for name in self._smallest:
                self._smallest[name] = min(self._smallest[name], costs[name])
            if not self._limits.met(costs):
                return False
        if self._unique == "no":
            return True
        name = (self._space.canonical if self._unique == "isomorphic" else self._space.format)(genotype)
        new = name not in self._names
        self._names.add(name)
        return new

    def _same(self, genotype: Any, told: Evaluation) -> Evaluation:
        if self._space.format(told.genotype) != self._space.format(genotype):
            raise ValueError(
                f"history: expected evaluation {len(self.evaluations)} to be of {self._space.format(genotype)}, got "
                f"{self._space.format(told.genotype)}; it is of a search with other options, or "
                "a line was taken out; pass --overwrite to start anew"
            )
        self._known[self._space.format(genotype)] = told
        return told

    def _evaluated(self, genotypes: list[Any]) -> Iterator[Evaluation]:
        """Evaluates architectures; equal ones, which have equal figures, are computed once."""
        texts = [self._space.format(genotype) for genotype in genotypes]
        missing = {text: g for text, g in zip(texts, genotypes, strict=True) if text not in self._known}
        stream = self._evaluator.stream(list(missing.values()))
        for text, genotype in zip(texts, genotypes, strict=True):
            if text not in self._known:
                figures = dict(next(stream))
                reason = str(figures.pop(FAILED, ""))
                value = math.nan if reason else self._value(figures)
                if not reason and not math.isfinite(value):
                    reason = "not a finite number: " + " ".join(n for n, v in figures.items() if not math.isfinite(v))
                    value = math.nan
                self._known[text] = Evaluation(genotype, value, figures, self._costs(genotype), reason)
            yield self._known[text]


def incumbents(values: Sequence[float]) -> np.ndarray:
    """Returns the best value so far after each evaluation, (evaluations,); NaN before the first value."""
    return np.fmax.accumulate(np.asarray(values, float)) if len(values) else np.zeros(0)
