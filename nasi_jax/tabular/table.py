"""A benchmark's published figures, one row an architecture."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import pathlib
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of numbers for the architectures of a benchmark.

    Attributes:
        rows: row of each architecture, by its text form.
        columns: for each name an array (architectures,).
    """

    rows: dict[str, int]
    columns: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: str | pathlib.Path, columns: Sequence[str]) -> Table:
        """Reads a CSV file, plain or gzipped, with a column `arch` and columns of numbers.

        Args:
            path: the file.
            columns: the columns wanted.

        Returns:
            The table.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a column is missing, an architecture is there twice, or a cell is not a number.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"table: expected a CSV file, there is none at {str(path)!r}")
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.DictReader(file)
            present = reader.fieldnames or []
            missing = [name for name in ("arch", *columns) if name not in present]
            if missing:
                raise ValueError(f"table: expected columns {missing} in {str(path)!r}, which has {list(present)}")
            rows: dict[str, int] = {}
            values: dict[str, list[float]] = {name: [] for name in columns}
            for number, row in enumerate(reader, start=2):
                if row["arch"] in rows:
                    raise ValueError(f"table: line {number} of {str(path)!r} repeats the architecture {row['arch']!r}")
                rows[row["arch"]] = len(rows)
                for name in columns:
                    try:
                        values[name].append(float(row[name]))
                    except (TypeError, ValueError):
                        raise ValueError(
                            f"table: line {number} of {str(path)!r}: expected a number in {name!r}, got {row[name]!r}"
                        ) from None
        return cls(rows, {name: np.array(column) for name, column in values.items()})

    def lookup(self, architectures: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns every column's values for some architectures.

        Args:
            architectures: text forms, in any order and repeated at will.

        Returns:
            For each column an array (len(architectures),).

        Raises:
            ValueError: an architecture is not in the table.
        """
        unknown = [text for text in architectures if text not in self.rows]
        if unknown:
            raise ValueError(f"table: expected architectures of the benchmark, it has no {unknown[0]!r}")
        index = [self.rows[text] for text in architectures]
        return {name: column[index] for name, column in self.columns.items()}
