"""A CSV file of scores that grows, is continued, and is extended by more rows and more columns."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from nasi_jax.programs import numerics
from nasi_jax.runs.files import Appended, read_object, read_text, remove_partial, write_atomic
from nasi_jax.runs.folder import Mark, Row, RunFolderError, differences
from nasi_jax.runs.lock import Lock
from nasi_jax.runs.provenance import provenance

_KIND = "nasi score"

Key = tuple[str, int]
"""Text form of an architecture, and seed."""


class ScoreSheet:
    """A CSV file with the columns genotype, seed, a column for each score, and reason; locked until it is closed.

    Settings stand beside it in a file of its whole name and `.json`. Those that decide what stands in a row are the
    file's for ever. Those that say which rows and columns there are may change so that there are more.

    Attributes:
        path: the file.
        rows: its rows, as read and as appended; a score that is yet to be computed is "".
    """

    def __init__(self, path: pathlib.Path, names: Sequence[str]):
        """Nothing is read yet.

        Args:
            path: the file.
            names: the scores.

        Raises:
            RunFolderError: the file cannot be written, or is in use.
        """
        if not path.name or path.is_dir():
            raise RunFolderError(f"out: expected a file, {str(path)!r} is a folder")
        self.path, self.rows = path, list[Row]()
        self.beside = path.with_name(f"{path.name}.json")
        self._names, self._columns = tuple(names), ["genotype", "seed", *names, "reason"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path.with_name(f".{path.name}.lock"))
        except BlockingIOError as error:
            raise RunFolderError(
                f"out: another process writes {str(path)!r}; wait for its end, or choose another file"
            ) from error
        except OSError as error:
            raise RunFolderError(f"out: cannot write {str(path)!r}: {error.strerror or error}") from error
        self._file, self._places = Appended(path), dict[Key, int]()

    def open(
        self, settings: dict[str, Any], choice: dict[str, Any], keys: Iterable[Key], *, overwrite: bool = False
    ) -> None:
        """Creates the file, or takes over one of the same settings.

        Args:
            settings: what decides a row's scores, as JSON values.
            choice: which rows and scores are asked for.
            keys: these rows. The file may hold some of them, and no other.
            overwrite: whether to drop the rows of a file that `nasi score` wrote.

        Raises:
            RunFolderError: the file is not one of `nasi score`, was damaged, is of other settings, or holds rows or
                scores that are not asked for.
        """
        remove_partial(self.path.parent, self.path.name)
        remove_partial(self.path.parent, self.beside.name)
        settings = json.loads(json.dumps(settings | {"numerics": numerics()}))
        choice = json.loads(json.dumps(choice | {"score": list(self._names)}))
        there = self._stored(overwrite)
        if there is not None and not overwrite:
            differing = differences(there["settings"], settings)
            if differing:
                raise self._refused("scores of another configuration", differing)
            scores = there["choice"].get("score", ())
            if not set(scores) <= set(self._names):
                raise self._refused("scores that are not asked for", differences(there["choice"], choice))
            self.rows = self._read()
            self._places = {_key(row): place for place, row in enumerate(self.rows)}
            if not self._places.keys() <= set(keys):
                raise self._refused("rows that are not asked for", differences(there["choice"], choice))
        record = {"run": _KIND, "settings": settings, "choice": choice, "provenance": provenance("float32")}
        try:
            write_atomic(self.beside, json.dumps(record, indent=2) + "\n")
            self._rewrite()
        except OSError as error:
            raise RunFolderError(f"out: cannot write {str(self.path)!r}: {error.strerror or error}") from error

    def _stored(self, overwrite: bool) -> dict[str, Any] | None:
        """Returns the record beside the file, or None where there is neither; raises where one is not ours."""
        shown, beside = repr(str(self.path)), repr(str(self.beside))
        try:
            record: Any = read_object(self.beside, "out") if self.beside.exists() else None
        except ValueError:
            record = {}
        ours = bool(record) and record.get("run") == _KIND
        whole = ours and all(isinstance(record.get(name), dict) for name in ("settings", "choice"))
        if not self.path.exists() or not self.path.stat().st_size:
            if record is not None and not ours:
                raise RunFolderError(f"out: {beside}, where settings would go, is another file; choose another one")
            return record if whole else None
        if whole:
            return record
        # settings are missing or damaged; the header says whether the file is one of this program
        if self._is_ours() and (record is None or ours or not record):
            if overwrite:
                return None
            advice = "choose another file, or pass --overwrite"
        else:
            advice = "choose another file"
        raise RunFolderError(f"out: expected the settings of {shown} in {beside}; {advice}")

    def _is_ours(self) -> bool:
        try:
            header = next(csv.reader([read_text(self.path, "out").partition("\n")[0]]), [])
        except (ValueError, csv.Error):
            return False
        return header[:2] == ["genotype", "seed"] and header[-1:] == ["reason"]

    def _refused(self, what: str, differing: list[str]) -> RunFolderError:
        listed = f" ({', '.join(differing)})" if differing else ""
        return RunFolderError(f"out: {str(self.path)!r} holds {what}{listed}; choose another file, or pass --overwrite")

    def _read(self) -> list[Row]:
        """Reads the rows, without the last line where it was torn."""
        if not self.path.exists():
            return []
        text = read_text(self.path, "out")
        whole = text[: text.rfind("\n") + 1]
        if not whole:  # not even the header, or nothing
            if _lines([self._columns]).startswith(text):
                return []
            raise self._damaged(1, "is not the header")
        lines = csv.DictReader(io.StringIO(whole, newline=""), strict=True)
        try:
            columns = list(lines.fieldnames or ())
            names = columns[2:-1]
            if columns[:2] != ["genotype", "seed"] or columns[-1:] != ["reason"] or not set(names) <= set(self._names):
                raise self._damaged(1, f"is not the header {self._columns}")
            rows, seen = list[Row](), set[Key]()
            for line in lines:
                if None in line or None in line.values():
                    raise self._damaged(lines.line_num, f"has not {len(columns)} cells")
                row: Row = dict.fromkeys(self._names, "") | line
                try:
                    row["seed"] = int(line["seed"])
                    row |= {name: float(line[name]) if line[name] else "" for name in names}
                except ValueError:
                    raise self._damaged(lines.line_num, "has a cell that is not a number") from None
                if _key(row) in seen:
                    raise self._damaged(lines.line_num, f"repeats {row['genotype']!r}, seed {row['seed']}")
                seen.add(_key(row))
                rows.append(row)
        except csv.Error as error:
            raise self._damaged(lines.line_num, f"is not CSV ({error})") from error
        return rows

    def _damaged(self, line: int, problem: str) -> RunFolderError:
        return RunFolderError(
            f"out: line {line} of {str(self.path)!r} {problem}; mend it, choose another file, or pass --overwrite"
        )

    def _rewrite(self) -> None:
        content = (_lines([self._columns]) + self._lines(self.rows)).encode()
        if not self.path.exists() or self.path.read_bytes() != content:
            write_atomic(self.path, content)
        self._file = Appended(self.path, content)

    def _lines(self, rows: Iterable[Row]) -> str:
        return _lines([row[column] for column in self._columns] for row in rows)

    @property
    def mark(self) -> Mark:
        """How much is written."""
        return Mark(self._file.size, self._file.checksum)

    def load(self, mark: Mark | None = None) -> list[Row]:
        """Returns the rows; `open` has read them."""
        return self.rows

    def append(self, rows: Sequence[Row]) -> None:
        """Appends rows, and puts those that are there already, with some scores to be computed, into their place.

        Raises:
            OSError: they cannot be written; the rows before stand.
        """
        filled = [row for row in rows if _key(row) in self._places]
        more = [row for row in rows if _key(row) not in self._places]
        for row in filled:
            self.rows[self._places[_key(row)]] = row
        if filled:
            self._rewrite()
        self._file.append(self._lines(more).encode(), sync=False)
        for row in more:
            self._places[_key(row)] = len(self.rows)
            self.rows.append(row)

    def close(self) -> None:
        """Lets other processes write the file."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(row: Row) -> Key:
    return row["genotype"], row["seed"]


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    """Writes rows as CSV; a name with options has commas, and stands in quotes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
