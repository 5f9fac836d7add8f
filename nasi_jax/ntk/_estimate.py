"""What an estimate says: a value, how well it is known, and what it cost."""

from __future__ import annotations

from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A figure and how well it is known.

    Attributes:
        value: the figure, an array or a pytree of such.
        stderr: standard error of the value, like it; 0 where it is exact, NaN where there is none: for a single probe,
            which cannot tell, and for the lower bounds.
        cost: number of vector-Jacobian products that the value rests on, each about one gradient of a loss.
            Jacobian-vector products count the same.
    """

    value: Any
    stderr: Any
    cost: int
