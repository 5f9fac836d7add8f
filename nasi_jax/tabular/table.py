"""A benchmark's published figures, one row an architecture."""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import math
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nasi_jax.spaces import SearchSpace

_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = ",;\t"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Columns of numbers for the architectures of a benchmark.

    Attributes:
        rows: row of each architecture, by its text form.
        columns: for each name an array (architectures,).
    """

    rows: dict[str, int]
    columns: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: str | pathlib.Path, columns: Sequence[str], merged: SearchSpace | None = None) -> Table:
        """Reads a CSV file with a column `arch` and columns of numbers; see `read_rows`.

        Args:
            path: the file.
            columns: the columns wanted, in whatever units they have. Decimal commas are read, and an empty cell is NaN.
            merged: reads notations and says which of them are one architecture, see `SearchSpace.listed`. Every
                architecture of this space is then there once, with the means of its finite figures, and rows that are
                none of its architectures are left out.

        Returns:
            The table, by the texts of the file, or by those of `SearchSpace.listed` where it is merged.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not such a table, a column is missing, a cell is not a number, or an architecture is
                there twice and the table is not merged.
        """
        places: dict[str, list[int]] = {}
        values: dict[str, list[float]] = {name: [] for name in columns}
        for place, (number, row) in enumerate(read_rows(path, "table", ["arch", *columns])):
            text = row["arch"]
            if merged is None and text in places:
                raise ValueError(f"table: line {number} of {str(path)!r} repeats the architecture {text!r}")
            with contextlib.suppress(ValueError):
                text = text if merged is None else merged.listed(merged.parse(text))
                places.setdefault(text, []).append(place)
            for name in columns:
                try:
                    values[name].append(_number(row[name]))
                except ValueError:
                    raise ValueError(
                        f"table: line {number} of {str(path)!r}: expected a number in {name!r}, got {row[name]!r}"
                    ) from None
        figures = {name: np.array(column) for name, column in values.items()}
        if merged is not None:
            groups = list(places.values())
            figures = {name: np.array([_mean(column[group]) for group in groups]) for name, column in figures.items()}
        return cls({text: row for row, text in enumerate(places)}, figures)

    def row(self, space: SearchSpace, text: str) -> int | None:
        """Returns the row of an architecture, whatever notation the table is in; None where it has none.

        Args:
            space: reads notations.
            text: a text form.

        Raises:
            ValueError: `text` is not in the table and no architecture of the space, or the table has one twice.
        """
        if text in self.rows:
            return self.rows[text]
        return self.rows_of(space).get(space.listed(space.parse(text)))

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def rows_of(self, space: SearchSpace) -> dict[str, int]:
        """Returns the rows of the architectures of a space, by `SearchSpace.listed`; others are left out.

        Args:
            space: the space.

        Raises:
            ValueError: the table has an architecture twice, in two notations.
        """
        rows: dict[str, int] = {}
        for text, row in self.rows.items():
            try:
                written = space.listed(space.parse(text))
            except ValueError:
                continue
            if rows.setdefault(written, row) != row:
                raise ValueError(f"table: expected every architecture once, {text!r} is {written!r} again")
        return rows

    def lookup(self, architectures: Sequence[str], space: SearchSpace | None = None) -> dict[str, np.ndarray]:
        """Returns every column's values for some architectures.

        Args:
            architectures: text forms, in any order and repeated at will.
            space: reads notations, see `row`; without, text forms are to be as in the table.

        Returns:
            For each column an array (len(architectures),).

        Raises:
            ValueError: an architecture is not in the table.
        """
        found = [self.rows.get(text) if space is None else self.row(space, text) for text in architectures]
        lacking = [text for text, row in zip(architectures, found, strict=True) if row is None]
        if lacking:
            raise ValueError(
                f"table: expected architectures of the benchmark, it has no {lacking[0]!r}"
                + (f", nor {len(lacking) - 1} more" if len(lacking) > 1 else "")
            )
        return {name: column[np.array(found, int)] for name, column in self.columns.items()}


def read_rows(
    path: str | pathlib.Path, argument: str, columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads a CSV file, plain or gzipped, in UTF-8 or UTF-16, whose cells are parted by commas, semicolons or tabs.

    Args:
        path: the file.
        argument: name of the option or argument that names it, for messages.
        columns: the columns that it must have.

    Yields:
        The number of each line and its cells by column, without the spaces around them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read or is no such text, a column is missing, or a line has another number of
            cells than the first.
    """
    path = pathlib.Path(path)
    shown, reader = repr(str(path)), _reader(path, argument)
    try:
        header = [name.strip() for name in next(reader, [])]
        found = [name for name in columns if header.count(name) != 1]
        if found:
            raise ValueError(f"{argument}: expected columns {found} in {shown}, each once; it has {header}")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ValueError(
                    f"{argument}: line {reader.line_num} of {shown}: expected {len(header)} cells, got {len(cells)}"
                )
            if cells:
                yield reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise ValueError(f"{argument}: line {reader.line_num} of {shown} is not CSV: {error}") from error


def header(path: str | pathlib.Path, argument: str) -> list[str]:
    """Returns the names of the columns of a CSV file.

    Args:
        path: the file, see `read_rows`.
        argument: name of the option or argument that names it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or is no such text.
    """
    path = pathlib.Path(path)
    try:
        return [name.strip() for name in next(_reader(path, argument), [])]
    except csv.Error as error:
        raise ValueError(f"{argument}: the first line of {str(path)!r} is not CSV: {error}") from error


def _reader(path: pathlib.Path, argument: str) -> Any:
    lines = list(io.StringIO(_text(path, argument), newline=""))
    first = lines[0] if lines else ""
    # by the names of the columns, because genotypes have commas in their text
    return csv.reader(lines, delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True)


def _text(path: pathlib.Path, argument: str) -> str:
    if not path.is_file():
        there = "a folder" if path.is_dir() else "none"
        raise FileNotFoundError(f"{argument}: expected a CSV file, there is {there} at {str(path)!r}")
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        return content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: expected text in UTF-8, {str(path)!r} is something else: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{argument}: cannot read {str(path)!r}: {reason}") from error


def _mean(figures: np.ndarray) -> float:
    """Returns the mean of the finite ones, NaN where there are none."""
    known = figures[np.isfinite(figures)]
    return float(known.mean()) if len(known) else math.nan


def _number(cell: str) -> float:
    if not cell:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return float(cell.replace(",", "."))
