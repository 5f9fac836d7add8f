"""Run folders: files that are never half written, resume, and protection of what is there."""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from nasi_jax.programs import numerics
from nasi_jax.runs.files import Appended, read_object, remove_partial, write_atomic
from nasi_jax.runs.lock import Lock

CONFIG = "config.json"
HISTORY = "history.jsonl"
CHECKPOINT = "checkpoint.msgpack"
_LOCK = ".lock"

_Use = Literal["continue", "grow", "replace"]

Row = dict[str, Any]
"""A line of a history: names and JSON values."""


class RunFolderError(ValueError):
    """What a run writes to cannot be used; the message says why and what to do."""


class Mark(NamedTuple):
    """How much of a history a checkpoint covers: its length in bytes and the CRC-32 of these."""

    size: int = 0
    checksum: int = 0


class RunFolder:
    """The folder of one run, locked against other processes until it is closed; a context manager.

    A run is finished when all of its results are there. An unfinished run of the same configuration is continued; one
    of another configuration, and a finished one, are left alone unless they may be overwritten.

    Attributes:
        path: the folder.
        rows: the history so far; see `load`.
    """

    def __init__(self, path: pathlib.Path, lock: Lock):
        self.path, self.rows = path, list[Row]()
        self._lock = lock
        self._history = Appended(path / HISTORY)

    @classmethod
    def open(
        cls,
        path: pathlib.Path,
        kind: str,
        config: dict[str, Any],
        *,
        results: Sequence[str],
        leaves: Sequence[str] = (),
        growing: Sequence[str] = (),
        overwrite: bool = False,
    ) -> Self:
        """Creates a run folder, or opens an unfinished one of the same configuration, or one of less of the same.

        Args:
            path: the folder; parents are created.
            kind: what the run is, such as "nasi search".
            config: what decides the run's result, as JSON values. In what `identity` returns, the path does not count.
            results: names of the files of which all are there when the run is finished.
            leaves: names of the other files and folders that such a run leaves, which `overwrite` removes.
            growing: names of numbers in `config` that may be larger than they were, finished or not: more of the same.
            overwrite: whether to drop what a run of this kind left in the folder; other files stay in any case.

        Returns:
            The folder, ready to be written.

        Raises:
            RunFolderError: the path is a file, cannot be written, is in use, holds something else than a run, a run of
                another kind, a finished run, or one of another configuration.
        """
        config = json.loads(json.dumps({"run": kind} | config | {"numerics": numerics()}))
        folder = cls(path, lock_folder(path))
        try:
            folder._claim(config, results, leaves, growing, overwrite)
        except BaseException:
            folder.close()
            raise
        return folder

    def _claim(
        self,
        config: dict[str, Any],
        results: Sequence[str],
        leaves: Sequence[str],
        growing: Sequence[str],
        overwrite: bool,
    ) -> None:
        path, shown = self.path, repr(str(self.path))
        remove_partial(path)
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
        if names and CONFIG not in names:
            raise RunFolderError(
                f"out: expected an empty folder or a run, {shown} holds other files and no {CONFIG}; "
                "choose another folder"
            )
        use = self._check(config, results, growing, overwrite) if names else "continue"
        if use == "replace":
            # results first: without them, what is left after a crash is an unfinished run
            for name in (*results, CHECKPOINT, *leaves, HISTORY, CONFIG):
                if (path / name).is_dir():
                    shutil.rmtree(path / name)
                else:
                    (path / name).unlink(missing_ok=True)
        if use == "grow":  # before the configuration says that there is more to do
            for name in results:
                (path / name).unlink(missing_ok=True)
        if use == "grow" or not (path / CONFIG).exists():
            write_atomic(path / CONFIG, json.dumps(config, indent=2) + "\n")

    def _check(self, config: dict[str, Any], results: Sequence[str], growing: Sequence[str], overwrite: bool) -> _Use:
        """Raises if the folder, which holds a config.json, may not be used; says what becomes of its run."""
        path, shown = self.path, repr(str(self.path))
        try:
            stored = read_object(path / CONFIG, "out")
        except ValueError as error:
            if not (path / HISTORY).exists():  # nothing says that the damaged file is a run's
                raise RunFolderError(f"{error}; choose another folder") from error
            if not overwrite:
                raise RunFolderError(
                    f"out: cannot read {CONFIG} of the run in {shown}; pass --overwrite to start it anew"
                ) from error
            return "replace"
        if "run" not in stored:
            raise RunFolderError(f"out: {CONFIG} in {shown} is not that of a run; choose another folder")
        if stored["run"] != config["run"]:
            raise RunFolderError(
                f"out: {shown} holds a run of another configuration (run: {stored['run']!r} there, {config['run']!r} "
                "now); choose another folder"
            )
        if overwrite:
            return "replace"
        more = {name: config[name] for name in growing if _is_more(config[name], stored.get(name))}
        differing = differences(stored | more, config)
        if differing and not self._is_begun(results):  # it stopped at once, for one by a setting that is mended now
            return "replace"
        if differing:
            raise RunFolderError(
                f"out: {shown} holds a run of another configuration ({', '.join(differing)}); "
                "choose another folder or pass --overwrite"
            )
        if more:
            return "grow"
        if all((path / name).exists() for name in results):
            raise RunFolderError(f"out: {shown} holds a finished run; pass --overwrite to replace it")
        return "continue"

    def _is_begun(self, results: Sequence[str]) -> bool:
        """Whether the folder holds more than the configuration of a run: a row, a checkpoint or a result."""
        history = self.path / HISTORY
        rows = history.stat().st_size if history.is_file() else 0
        return rows > 0 or any((self.path / name).exists() for name in (CHECKPOINT, *results))

    def close(self) -> None:
        """Lets other processes use the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file of the run atomically."""
        write_atomic(self.path / name, content)

    @property
    def mark(self) -> Mark:
        """How much of the history is written."""
        return Mark(self._history.size, self._history.checksum)

    def load(self, mark: Mark | None = None) -> list[Row]:
        """Reads the history, and drops from the file what is not of the run as it continues.

        Rows are written before the checkpoint that covers them, so after a crash the file may hold later rows, the last
        of them cut short; these steps are taken again.

        Args:
            mark: how much the checkpoint covers; None keeps all whole lines, for a run that its rows alone continue.

        Returns:
            The rows, in the order in which they were written, which are `rows` from now on.

        Raises:
            RunFolderError: the file was changed, and does not hold what the run wrote.
        """
        path = self.path / HISTORY
        content = path.read_bytes() if path.exists() else b""
        content = content[: content.rfind(b"\n") + 1 if mark is None else mark.size]
        if mark is not None and Mark(len(content), zlib.crc32(content)) != mark:
            raise RunFolderError(
                f"out: {str(path)!r} is not what the run wrote before its checkpoint; pass --overwrite to start anew"
            )
        self.rows = []
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise RunFolderError(
                    f"out: line {number} of {str(path)!r} is not a row; mend it, or pass --overwrite to start anew"
                )
            self.rows.append(row)
        write_atomic(path, content)
        self._history = Appended(path, content)
        return self.rows

    def append(self, rows: Sequence[Row]) -> None:
        """Appends rows to the history, one JSON object a line, and waits until they are on the disk.

        Raises:
            OSError: they cannot be written; the rows before stand.
        """
        self._history.append("".join(json.dumps(row) + "\n" for row in rows).encode())
        self.rows.extend(rows)


def lock_folder(path: pathlib.Path) -> Lock:
    """Makes a folder where there is none, and locks it.

    Args:
        path: the folder; parents are created.

    Returns:
        The lock, to be released.

    Raises:
        RunFolderError: the path is a file, cannot be written, or another process is at work there.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"out: expected a folder, {str(path)!r} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        return Lock(path / _LOCK)
    except BlockingIOError as error:
        raise RunFolderError(
            f"out: another process is at work in {str(path)!r}; wait for its end, or choose another folder"
        ) from error
    except OSError as error:
        raise RunFolderError(f"out: cannot write to the folder {str(path)!r}: {error.strerror or error}") from error


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names what differs between two configurations, as "search.mu: 2.0 there, 1.5 now"."""
    there, now = (dict(_flat(_by_content(tree))) for tree in (stored, wanted))
    missing = object()
    return [
        f"{key}: {'nothing' if key not in there else repr(there[key])} there, "
        f"{'nothing' if key not in now else repr(now[key])} now"
        for key in sorted(there.keys() | now.keys())
        if there.get(key, missing) != now.get(key, missing)
    ]


def _is_more(now: Any, there: Any) -> bool:
    return isinstance(there, int) and now > there


def _by_content(value: Any) -> Any:
    """Leaves out the paths of inputs; see `identity`."""
    if not isinstance(value, dict):
        return value
    return {key: _by_content(entry) for key, entry in value.items() if not (key == "path" and "sha256" in value)}


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in tree.items()
        for pair in (_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)])
    ]
