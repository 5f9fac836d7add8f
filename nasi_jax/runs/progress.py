"""Progress of a long command: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import bisect
import contextlib
import sys
import time
from types import TracebackType
from typing import Self

import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_UNTIL_AN_ESTIMATE = 2.0


class Pace:
    """How long the rest takes, from how long the latest half of the time took.

    The first report is where the time begins, because what comes before it compiles. A pace that changes counts in full
    when as much time has gone by since.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._dones: list[int] = []

    def report(self, now: float, done: int) -> None:
        """Takes in that so many steps are done.

        Args:
            now: seconds, of a clock that only goes forward.
            done: steps in all.
        """
        self._times.append(now)
        self._dones.append(done)

    @property
    def measured(self) -> float:
        """Seconds from the first report to the last one."""
        return self._times[-1] - self._times[0] if self._times else 0.0

    def rate(self) -> float:
        """Steps a second, 0 where that is not known yet."""
        if self.measured <= 0:
            return 0.0
        half = self._times[-1] - self.measured / 2
        since = bisect.bisect_right(self._times, half) - 1
        return (self._dones[-1] - self._dones[since]) / (self._times[-1] - self._times[since])


class Progress:
    """Shows how far a command is, on standard error, and says how long it will take as soon as that is known."""

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "step"):
        self._label, self._total, self._done, self._unit = label, total, done, unit
        self._pace, self._last, self._estimated = Pace(), 0.0, False
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, initial=done, desc=label, unit=unit, dynamic_ncols=True)

    def advance(self, steps: int, figures: dict[str, float]) -> None:
        """Reports `steps` more steps and the latest figures."""
        self._done += steps
        now = time.monotonic()
        self._pace.report(now, self._done)
        rate, left = self._pace.rate(), self._total - self._done
        if not self._estimated and rate and self._pace.measured >= _SECONDS_UNTIL_AN_ESTIMATE:
            self._estimated = True
            self._say(f"{self._label}: about {duration(left / rate)}")
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()}, refresh=False)
            self._bar.update(steps)
            return
        if self._last and now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last = now
        shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        pace = f"  {rate:.3g} {self._unit}s/s  {left / rate:.0f} s left" if rate else ""
        self._say(f"{self._label} {self._unit} {self._done}/{self._total}  {shown}{pace}")

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
            return
        # who reads it may have gone, as `head` does; the run goes on
        with contextlib.suppress(BrokenPipeError):
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        if self._done < self._total:
            count = self._total - self._done
            self._say(f"{self._label}: {count} {self._unit}{'s' * (count > 1)}; before the first one, programs compile")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Returns a time as a person says it."""
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}s"
    whole = max(1, round(seconds))
    return "a minute" if seconds >= 40 else f"{whole} second{'s' * (whole > 1)}"
