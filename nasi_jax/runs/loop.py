"""The one loop that saves, is interrupted and continues."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from nasi_jax.runs.folder import Mark, Row
from nasi_jax.runs.interruption import Interrupted, interruptible
from nasi_jax.runs.progress import Progress
from nasi_jax.runs.stores import Store, Stored

S = TypeVar("S")


class Step(NamedTuple, Generic[S]):
    """What a run hands out as it goes.

    Attributes:
        done: steps done so far, in all.
        state: state after them; None in a run that its rows alone continue.
        rows: rows of the history that are new.
        figures: what the progress shows, by name.
        save: whether to save now, and not only when it is time.
    """

    done: int
    state: S
    rows: Sequence[Row] = ()
    figures: dict[str, float] = {}  # noqa: RUF012 (a default that nobody changes)
    save: bool = False


class Ended(NamedTuple, Generic[S]):
    """What a run came to.

    Attributes:
        state: the last state.
        rows: the whole history.
        seconds: time that it took, over all interruptions.
    """

    state: S
    rows: list[Row]
    seconds: float


class Log(Protocol):
    """Where rows go: a `RunFolder` or a `ScoreSheet`."""

    path: Any
    rows: list[Row]

    @property
    def mark(self) -> Mark:
        """How much is written."""
        ...

    def load(self, mark: Mark | None) -> list[Row]:
        """Reads the rows that are there; see `RunFolder.load`."""
        ...

    def append(self, rows: Sequence[Row]) -> None:
        """Writes more rows."""
        ...


def run(
    log: Log,
    begin: Callable[[S | None, list[Row]], Iterable[Step[S]]],
    store: Store[S] | None = None,
    *,
    total: int,
    label: str = "run",
    unit: str = "step",
    every: float = 5.0,
    covered: Callable[[list[Row]], int] = len,
) -> Ended[S]:
    """Runs something from where it stopped to its end, and keeps what it does.

    Rows are written before the state that covers them, so that the run continues from any moment at which its process
    ends. Signals are taken here: after SIGINT or SIGTERM what is done is saved.

    Args:
        log: where rows go.
        begin: starts or continues: takes the stored state, None at the beginning, and the rows up to it. Without a
            store it takes None and all rows that were written, from which it finds where it is.
        store: where states go. Without one, rows are all that is kept.
        total: steps of the whole run, for the progress.
        label: what the progress is called.
        unit: what a step is called.
        every: seconds between two times that it saves.
        covered: without a store, how many steps rows are worth.

    Returns:
        The last state, all rows, and the time that they took.

    Raises:
        Interrupted: a signal came.
        RunFolderError: what was kept cannot be read.
        OSError: what is to be kept cannot be written; what was kept before stands.
    """
    stored = None if store is None else store.load()
    try:
        beginning = None if store is None else Mark()
        rows = log.load(beginning if stored is None else stored.mark)
        start = time.monotonic() - (0.0 if stored is None else stored.seconds)
        state: Any = None if stored is None else stored.state
        done = covered(rows) if stored is None else stored.done
        fresh: list[Row] = []
        last: Step[S] | None = None

        def save() -> None:
            if last is None:
                return
            log.append(fresh)
            fresh.clear()
            if store is not None:
                store.save(Stored(last.done, last.state, time.monotonic() - start, log.mark))

        with interruptible() as interruption, Progress(label, total, done, unit) as progress:
            try:
                with interruption.raising():
                    steps = iter(begin(state, list(rows)))
                saved = time.monotonic()
                while True:
                    try:
                        with interruption.raising():
                            step = next(steps, None)
                    except Exception:
                        save()
                        raise
                    if step is None:
                        break
                    last = step
                    fresh.extend(step.rows)
                    progress.advance(step.done - done, step.figures)
                    done = step.done
                    if step.save or time.monotonic() - saved >= every:
                        save()
                        saved = time.monotonic()
                save()
            except KeyboardInterrupt as error:
                save()
                where = f"interrupted; the same command continues from what is in {str(log.path)!r}"
                raise Interrupted(interruption.signum or signal.SIGINT, where) from error
        return Ended(state if last is None else last.state, log.rows, time.monotonic() - start)
    finally:
        if store is not None:
            store.close()
