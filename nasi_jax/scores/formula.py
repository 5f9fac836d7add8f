"""Formulas: sums of ranks of scores, with weights, or of the logarithms of ranks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

import nasi_jax
from nasi_jax.scores.catalogue import FORMULAS
from nasi_jax.spaces import SearchSpace
from nasi_jax.spaces.text import summands

_LOG = re.compile(r"log\((.*)\)", re.DOTALL)
_TERM = re.compile(r"(?:([\d.eE+-]+)\s*\*)?\s*(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Formula:
    """A sum of ranks, written ``a+b``, ``2*a+b`` or ``log(a+b)``.

    Attributes:
        weights: weight of each score, by its name with options.
        log: whether the logarithms of ranks are added, which is how much the worst of an architecture's ranks counts.

    References:
        Lee and Ham, "AZ-NAS: assembling zero-cost proxies for network architecture search", CVPR 2024, for the
        logarithms.
    """

    weights: dict[str, float]
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Reads a formula.

        Args:
            text: one of `FORMULAS`; or names joined by +, each maybe after a weight and *, all of it maybe in
                ``log(...)``.

        Returns:
            The formula.

        Raises:
            ValueError: a name is missing or there twice, or a weight is no positive number.
        """
        text = FORMULAS.get(text.strip(), text)
        match = _LOG.fullmatch(text.strip())
        weights: dict[str, float] = {}
        for part in summands(match[1] if match else text):
            term = _TERM.fullmatch(part)
            try:
                weight = float(term[1] or 1) if term else 0.0
            except ValueError:
                weight = 0.0
            if term is None or not 0 < weight < np.inf:
                raise ValueError(f"score: expected 'name' or 'weight*name' with a positive weight, got {part!r}")
            if term[2] in weights:
                raise ValueError(f"score: expected each score once, got {term[2]!r} again in {text!r}")
            weights[term[2]] = weight
        return cls(weights, match is not None)

    @property
    def single(self) -> str | None:
        """The name of the score where there is only one, whose ranks and values have one order."""
        return next(iter(self.weights)) if len(self.weights) == 1 else None

    def ranked(self, oriented: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the value of each of some architectures, from the ranks among them.

        Args:
            oriented: for each score its values, (architectures,), larger for architectures said to be better.

        Returns:
            An array (architectures,); NaN where a score is.
        """
        # named in full, so that scipy.stats loads when it is used
        return nasi_jax.tabular.rank_sum(
            [oriented[name] for name in self.weights], [*self.weights.values()], log=self.log
        )


def default_formula(space: SearchSpace) -> str:
    """Returns the formula that searches of a space take by default: that its networks can be asked for."""
    network = space.network(None if space.one_shot else space.at(0), space.search_size, 1)
    if "embedding" in network.capabilities:
        return "input-alignment"
    return "transfer" if "features" in network.capabilities else "ratio-zico"
