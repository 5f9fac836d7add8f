"""Cells of NAS-Bench-101 as matrix and operations: pruning, canonical form, and the notations of the field.

References:
    Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019, and the authors' code, for
    the matrix with its operations; NASLib's conversions for the tuple of numbers.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasi_jax.spaces import text as text_form

OPERATIONS = ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")
"""Operations of an inner vertex, by NAS-Bench-101's names, in the order of NAS-Bench-1Shot1's code."""

INPUT, OUTPUT = "input", "output"
_NASLIB = (INPUT, OUTPUT, "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")


class ModelSpec(NamedTuple):
    """A cell, or what is left of one.

    Attributes:
        matrix: (vertices, vertices) upper triangular zeros and ones; entry (i, j) says whether vertex j reads vertex i.
        operations: the operation of each vertex, from "input" to "output".
    """

    matrix: np.ndarray
    operations: tuple[str, ...]

    def pruned(self) -> ModelSpec:
        """Returns the cell of the vertices on a path from the input to the output; of none where there is no path."""
        forwards, backwards = ({start} for start in (0, len(self.matrix) - 1))
        for source, target in np.argwhere(self.matrix):  # by rising source, so that a source is known before its edges
            if source in forwards:
                forwards.add(int(target))
        for source, target in np.argwhere(self.matrix)[::-1]:
            if target in backwards:
                backwards.add(int(source))
        kept = sorted(forwards & backwards)
        return ModelSpec(self.matrix[np.ix_(kept, kept)], tuple(self.operations[vertex] for vertex in kept))

    def canonical(self) -> ModelSpec:
        """Returns the one of the cells that differ in the order of their vertices alone.

        Vertices go by the length of the longest path to them, then by operations and neighbours; orders of those that
        are still alike are tried, and the matrix that is first by its rows is taken.
        """
        nodes = range(len(self.matrix))
        parents, readers = ([np.flatnonzero(row).tolist() for row in side] for side in (self.matrix.T, self.matrix))
        depths = [0] * len(nodes)
        for source, target in np.argwhere(self.matrix):
            depths[target] = max(depths[target], depths[source] + 1)
        colours: list[Any] = list(zip(depths, self.operations, strict=True))
        for _ in nodes:
            seen = [(colours[v], *(sorted(colours[u] for u in near[v]) for near in (parents, readers))) for v in nodes]
            ranks = sorted(seen)
            colours = [ranks.index(own) for own in seen]
        classes = [[v for v in nodes if colours[v] == colour] for colour in sorted(set(colours))]
        orders = (list(itertools.chain(*parts)) for parts in itertools.product(*map(itertools.permutations, classes)))
        order = min(orders, key=lambda chosen: self.matrix[np.ix_(chosen, chosen)].tolist())
        return ModelSpec(self.matrix[np.ix_(order, order)], tuple(self.operations[v] for v in order))

    def model_spec(self, **further: list[int]) -> str:
        """Writes the benchmark's ``ModelSpec(matrix=..., ops=...)``, with further arguments where there are some."""
        more = "".join(f", {name}={value}" for name, value in further.items())
        return f"ModelSpec(matrix={self.matrix.tolist()}, ops={list(self.operations)}{more})"

    def naslib(self) -> str:
        """Writes NASLib's tuple: the matrix by rows, then the operations as numbers."""
        return str((*self.matrix.ravel().tolist(), *(_NASLIB.index(name) for name in self.operations)))


def parse(text: str, sides: Collection[int], further: tuple[str, ...] = ()) -> tuple[ModelSpec, dict[str, Any]]:
    """Reads a cell, with vertices on no path, without evaluating it.

    Args:
        text: ``ModelSpec(matrix=[[0, 1, ...], ...], ops=['input', ..., 'output'])``, a dictionary of these, or NASLib's
            tuple of numbers.
        sides: how many vertices the cell may have.
        further: names of other arguments that may be there, each a list of numbers.

    Returns:
        The cell, and the other arguments that are there.

    Raises:
        ValueError: `text` is malformed.
    """
    numbers = text_form.expression(text, "ModelSpec")
    if isinstance(numbers, ast.Tuple | ast.List):
        return _of_numbers(text_form.literal("a cell", numbers, "as a tuple of numbers"), sides), {}
    found = text_form.arguments(text, "ModelSpec", ("matrix", "ops", *further), further)
    operations = text_form.literal("ops", found["ops"], "as a list of names")
    if not isinstance(operations, list | tuple) or len(operations) not in sides:
        raise ValueError(f"genotype: expected ops as a list of {_either(sides)} names, got {operations!r}")
    if (operations[0], operations[-1]) != (INPUT, OUTPUT):
        raise ValueError(f"genotype: expected ops from 'input' to 'output', got {operations!r}")
    for operation in operations[1:-1]:
        if operation not in OPERATIONS:
            raise ValueError(f"genotype: expected an operation of {OPERATIONS} in ops, got {operation!r}")
    matrix = text_form.literal("matrix", found["matrix"], "as a list of rows")
    rows, side = matrix if isinstance(matrix, list | tuple) else [], len(operations)
    if len(rows) != side or any(not isinstance(row, list | tuple) or len(row) != side for row in rows):
        raise ValueError(f"genotype: expected matrix as {side} rows of {side} numbers, got {matrix!r}")
    given = {name: text_form.literal(name, found[name], "as a list of numbers") for name in further if name in found}
    return ModelSpec(_checked(rows), tuple(operations)), given


def _of_numbers(numbers: Any, sides: Collection[int]) -> ModelSpec:
    lengths = {side * side + side: side for side in sides}
    known = set(range(len(_NASLIB)))
    if len(numbers) not in lengths or any(type(n) is not int or n not in known for n in numbers):
        raise ValueError(
            f"genotype: expected {_either(lengths)} numbers from 0 to {len(_NASLIB) - 1}, a matrix by rows and then "
            f"operations, got {numbers!r}"
        )
    side = lengths[len(numbers)]
    rows = [list(numbers[side * i : side * i + side]) for i in range(side)]
    operations = tuple(_NASLIB[n] for n in numbers[side * side :])
    ends, inner = (operations[0], operations[-1]), operations[1:-1]
    if ends != (INPUT, OUTPUT) or not set(inner) <= set(OPERATIONS):
        raise ValueError(
            f"genotype: expected operations 0, the input, then numbers from 2 on, then 1, the output, got "
            f"{list(numbers[side * side :])}"
        )
    return ModelSpec(_checked(rows), operations)


def _checked(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    if any(type(entry) is not int or entry not in (0, 1) for row in rows for entry in row):
        raise ValueError(f"genotype: expected a matrix of zeros and ones, got {rows!r}")
    if any(row[0] for row in rows):
        raise ValueError("genotype: expected a matrix whose node 0 reads none, got a one in its first column")
    matrix = np.array(rows)
    for place in np.argwhere(np.tril(matrix)).tolist():
        raise ValueError(
            f"genotype: expected nodes that read earlier ones, a matrix of zeros on and below its diagonal, got a one "
            f"at {tuple(place)}"
        )
    return matrix


def _either(counts: Collection[int]) -> str:
    return " or ".join(map(str, sorted(counts)))
