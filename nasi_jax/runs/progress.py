"""Progress of a long command: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Self

import tqdm

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows how far a command is, on standard error."""

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "step"):
        self._label, self._total, self._done, self._unit = label, total, done, unit
        self._first, self._start, self._last = done, 0.0, 0.0
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, initial=done, desc=label, unit=unit, dynamic_ncols=True)

    def advance(self, steps: int, figures: dict[str, float]) -> None:
        """Reports `steps` more steps and the latest figures."""
        self._done += steps
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()}, refresh=False)
            self._bar.update(steps)
            return
        now = time.monotonic()
        if self._start and now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        pace = ""
        if self._start:
            rate = (self._done - self._first) / (now - self._start)
            pace = f"  {rate:.3g} {self._unit}s/s  {(self._total - self._done) / rate:.0f} s left"
        else:  # the first steps are not counted, because they compile
            self._first, self._start = self._done, now
        self._last = now
        # who reads it may have gone, as `head` does; the run goes on
        with contextlib.suppress(BrokenPipeError):
            print(f"{self._label} {self._unit} {self._done}/{self._total}  {shown}{pace}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
