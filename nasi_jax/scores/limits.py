"""Limits of size and latency: a cost and a bound each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of what an architecture may cost, at the size at which it is to be trained.

    Attributes:
        max_params: number of parameters.
        max_flops: multiply-adds of convolutions and products for one example.
        max_latency_ms: milliseconds that one example takes on the device at hand.

    Raises:
        ValueError: a bound is no positive number.
    """

    max_params: float | None = None
    max_flops: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Checks every bound."""
        for name, bound in dataclasses.asdict(self).items():
            if bound is not None and not 0 < bound < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {bound!r}")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that there are, by the name of their cost."""
        named = {name.removeprefix("max_"): bound for name, bound in dataclasses.asdict(self).items()}
        return {name: bound for name, bound in named.items() if bound is not None}

    def met(self, costs: Mapping[str, float]) -> bool:
        """Whether costs are within all bounds."""
        return all(costs[name] <= bound for name, bound in self.bounds.items())


class InfeasibleError(ValueError):
    """No architecture meets the limits.

    Attributes:
        smallest: the smallest cost seen, for each limit.
    """

    def __init__(self, limits: Limits, smallest: Mapping[str, float], seen: int):
        self.smallest = dict(smallest)
        listed = ", ".join(
            f"{name} at most {bound:.6g}, the smallest seen is {smallest[name]:.6g}"
            for name, bound in limits.bounds.items()
        )
        super().__init__(f"limits: no architecture that was looked at meets them, of {seen}: {listed}")
