"""Ctrl-C and requests to terminate, taken only where nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run was interrupted and has saved what it had.

    Attributes:
        signum: the signal, such as `signal.SIGTERM`.
    """

    def __init__(self, signum: int, message: str):
        self.signum = signum
        super().__init__(message)


class Interruption:
    """What signals came, and when they may raise.

    Attributes:
        signum: the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._open = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Takes a signal: notes it, and raises KeyboardInterrupt where the block below is under way."""
        self.signum = self.signum or signum
        if self._open:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Lets a signal raise a KeyboardInterrupt inside of the block; elsewhere it waits for the end of the next one.

        That of the block raises too: Python discards an exception while it disposes of an object, which JAX does often,
        and libraries turn some into others.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        self._open = True
        try:
            if self.signum is not None:
                raise KeyboardInterrupt
            yield
        except Exception as error:
            if self.signum is not None:
                raise KeyboardInterrupt from error
            raise
        finally:
            self._open = False
        if self.signum is not None:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Takes SIGINT and SIGTERM in one way; outside of the main thread, where Python allows no handlers, neither.

    A signal that nothing raised for is passed on at the end to whoever took signals before.

    Yields:
        What came so far.
    """
    interruption = Interruption()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interruption.signum is not None:
        signal.raise_signal(interruption.signum)
