"""Run folders: files that are never half written, resume, and protection of what is finished."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

CONFIG = "config.json"
HISTORY = "history.jsonl"
CHECKPOINT = "checkpoint.msgpack"


_PACKAGES = ("nasi_jax", "jax", "jaxlib", "flax", "optax", "numpy")


class RunFolderError(ValueError):
    """A run folder cannot be used; the message says why and what to do."""


def provenance(precision: str) -> dict[str, Any]:
    """Returns what a result depends on beside its settings: versions, device, precision."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {
        "versions": versions,
        "device": f"{jax.default_backend()}: {jax.devices()[0].device_kind}",
        "precision": f"{precision}, matrix products at highest precision",
    }


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Makes a request to terminate a `KeyboardInterrupt`, so that both end a command in the same way.

    Yields:
        A function to call between steps. It raises a `KeyboardInterrupt` that was lost once more: Python discards an
        exception while it disposes of an object, which JAX does often.
    """
    requested = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal requested
        requested = True
        raise KeyboardInterrupt

    def check() -> None:
        if requested:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_atomic(path: pathlib.Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or all of the new, whatever happens in between."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(name).chmod(0o644)
        pathlib.Path(name).replace(path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


class RunFolder:
    """The folder of one run.

    A run is finished when its result file is there. An unfinished run of the same configuration is continued from
    its checkpoint; one of another configuration, and a finished one, are left alone unless they may be overwritten.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    @classmethod
    def open(
        cls,
        path: pathlib.Path,
        config: dict[str, Any],
        *,
        result: str,
        overwrite: bool = False,
        folders: tuple[str, ...] = (),
    ) -> RunFolder:
        """Creates a run folder, or opens an unfinished one of the same configuration.

        Args:
            path: the folder; parents are created.
            config: what decides the run's result, as JSON values.
            result: name of the file whose presence means that the run is finished.
            overwrite: whether to drop what a run of this program left in the folder.
            folders: names of the folders that such a run leaves.

        Returns:
            The folder, ready to be written.

        Raises:
            RunFolderError: the path is a file, cannot be written, holds something else than a run, a finished run, or
                one of another configuration.
        """
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"out: expected a folder, {str(path)!r} is a file")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise RunFolderError(f"out: cannot write to the folder {str(path)!r}: {error.strerror or error}") from error
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
        if names and CONFIG not in names:
            raise RunFolderError(
                f"out: expected an empty folder or a run, {str(path)!r} holds other files and no {CONFIG}; "
                "choose another folder"
            )
        if names and overwrite:
            for name in names:
                if (path / name).is_file():
                    (path / name).unlink()
                elif name in folders:
                    shutil.rmtree(path / name)
        elif names:
            folder._check_same(config)
            if result in names:
                raise RunFolderError(f"out: {str(path)!r} holds a finished run; pass --overwrite to replace it")
        if not (path / CONFIG).exists():
            write_atomic(path / CONFIG, json.dumps(config, indent=2) + "\n")
        return folder

    def _check_same(self, config: dict[str, Any]) -> None:
        try:
            stored = json.loads((self.path / CONFIG).read_text())
            assert isinstance(stored, dict)
        except (ValueError, AssertionError, OSError) as error:
            raise RunFolderError(
                f"out: cannot read {CONFIG} of the run in {str(self.path)!r}; pass --overwrite to start it anew"
            ) from error
        wanted = json.loads(json.dumps(config))
        different = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
        if different:
            listed = ", ".join(f"{key}: {stored.get(key)!r} there, {wanted.get(key)!r} now" for key in different)
            raise RunFolderError(
                f"out: {str(self.path)!r} holds a run of another configuration ({listed}); "
                "choose another folder or pass --overwrite"
            )

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file of the run atomically."""
        write_atomic(self.path / name, content)

    def checkpoint(self) -> bytes | None:
        """Returns the last checkpoint, or None before the first one."""
        path = self.path / CHECKPOINT
        return path.read_bytes() if path.exists() else None

    def remove_checkpoint(self) -> None:
        """Removes the checkpoint of a run that is finished."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)

    def append_history(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to the history, one JSON object a line, and flushes them to the disk."""
        with (self.path / HISTORY).open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def history(self, before: int) -> list[dict[str, Any]]:
        """Returns the rows with a `step` below `before`, and drops all others from the file.

        Rows are appended before the checkpoint that covers them is written, so after an interruption the file may
        hold later rows, the last of them cut short; those steps are taken again.

        Args:
            before: steps that the checkpoint covers.

        Returns:
            The rows, in the order in which they were written.
        """
        path = self.path / HISTORY
        rows = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row["step"] < before:
                rows.append(row)
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows
