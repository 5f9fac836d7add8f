"""Where a run keeps the state from which it continues."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from flax import serialization

from nasi_jax.runs.files import write_atomic
from nasi_jax.runs.folder import CHECKPOINT, Mark, RunFolder, RunFolderError

S = TypeVar("S")


class Stored(NamedTuple, Generic[S]):
    """A state, and what belongs to it.

    Attributes:
        done: steps that it covers.
        state: pytree of arrays.
        seconds: time that they took.
        mark: how much of the history it covers.
    """

    done: int
    state: S
    seconds: float
    mark: Mark


class Store(Protocol[S]):
    """Keeps the last states of a run."""

    def load(self) -> Stored[S] | None:
        """Returns the last one that was kept, or None.

        Raises:
            RunFolderError: there is one that cannot be read.
        """
        ...

    def save(self, stored: Stored[S]) -> None:
        """Keeps a state.

        Raises:
            OSError: it cannot be written; the one before stands.
        """
        ...

    def close(self) -> None:
        """Waits until all is written."""
        ...


class SmallStore(Generic[S]):
    """One file with the last state, replaced as a whole: for states of a few MB."""

    def __init__(self, folder: RunFolder, like: S):
        """Nothing is read yet.

        Args:
            folder: the run folder.
            like: a pytree with the structure of the states.
        """
        self._path, self._like = folder.path / CHECKPOINT, like

    def load(self) -> Stored[S] | None:
        """See `Store`.

        Returns:
            What was kept last, or None.

        Raises:
            RunFolderError: the file is damaged.
        """
        if not self._path.exists():
            return None
        try:
            record: Any = serialization.msgpack_restore(self._path.read_bytes())
            state: Any = serialization.from_state_dict(self._like, record["state"])
            mark = Mark(int(record["size"]), int(record["checksum"]))
            return Stored(int(record["done"]), state, float(record["seconds"]), mark)
        except Exception as error:  # msgpack and flax raise many types on damaged bytes
            raise RunFolderError(
                f"out: cannot read the checkpoint {str(self._path)!r}; pass --overwrite to start the run anew"
            ) from error

    def save(self, stored: Stored[S]) -> None:
        """See `Store`."""
        record = {
            "state": serialization.to_state_dict(stored.state),
            "done": stored.done,
            "seconds": stored.seconds,
            "size": stored.mark.size,
            "checksum": stored.mark.checksum,
        }
        write_atomic(self._path, serialization.msgpack_serialize(record))

    def close(self) -> None:
        """See `Store`."""
