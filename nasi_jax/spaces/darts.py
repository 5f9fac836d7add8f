"""The DARTS space (Liu, Simonyan and Yang, ICLR 2019): a normal and a reduction cell, 10^18 pairs of them."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.spaces import text as text_form
from nasi_jax.spaces.base import Alphas, Edge, Genotype, Weights, uniform_other
from nasi_jax.spaces.darts_network import EDGES, KINDS, NODES, OPERATIONS, DARTSNetwork

_PAIRS = tuple(tuple(itertools.combinations(range(node + 2), 2)) for node in range(NODES))
"""For each node the pairs of distinct inputs that it can have."""
_PAIR_TABLE = np.array([[pairs[i % len(pairs)] for i in range(len(_PAIRS[-1]))] for pairs in _PAIRS], np.int32)
_PAIR_COUNTS = np.array([len(pairs) for pairs in _PAIRS], np.int32)
_FIRST_EDGE = np.array([EDGES.index((0, node)) for node in range(NODES)], np.int32)
_INPUT_EDITS = np.array(
    [(k, node, slot, i) for k in range(2) for node in range(NODES) for slot in range(2) for i in range(node)], np.int32
)
_NODE_NAMES = ("k-2", "k-1", "0", "1", "2", "3")
_TEXT_KEYS = ("normal", "normal_concat", "reduce", "reduce_concat")
_Cell = list[list[tuple[str, int]]]
"""For each node (operation, input) of its edges."""
_CONCAT = range(2, 2 + NODES)


@struct.dataclass(eq=False)
class DARTSGenotype(Genotype):
    """A normal and a reduction cell.

    Attributes:
        inputs: (2, 4, 2) int32, for the normal and the reduction cell and each of their nodes two of its possible
            inputs in rising order: 0 and 1 are the outputs of the cell before the last and of the last one, 2 to 4
            are the nodes before it.
        operations: (2, 4, 2) int32, for each of these edges an index into `OPERATIONS`.
    """

    inputs: jax.Array
    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class DARTS:
    """The DARTS space; see `nasi_jax.spaces.SearchSpace` for the contract.

    Each of four nodes takes two of the nodes before it, each through one of seven operations; a cell's output are its
    nodes, concatenated. The relaxed form has all 14 edges of a cell; weights of an edge that a genotype lacks are 0.
    The text form is that of the authors' code, ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2,
    6), reduce=[...], reduce_concat=range(2, 6))``.

    Attributes:
        none: whether the relaxed edges have "none", which no genotype contains, as an eighth operation.

    References:
        Liu, Simonyan and Yang, "DARTS: Differentiable architecture search", ICLR 2019.
    """

    none: bool = False

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "darts-none" if self.none else "darts"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations of a relaxed edge."""
        return ("none", *OPERATIONS) if self.none else OPERATIONS

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """The 14 edges, for both kinds of cell."""
        return dict.fromkeys(KINDS, tuple(f"{_NODE_NAMES[i]}→{_NODE_NAMES[j + 2]}" for i, j in EDGES))

    @property
    def additive(self) -> bool:
        """False: an architecture has eight of a cell's edges."""
        return False

    @property
    def branches(self) -> bool:
        """False: all operations of all edges are computed."""
        return False

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The operations, for both kinds of cell."""
        return dict.fromkeys(KINDS, self.operations)

    @property
    def size(self) -> int:
        """About 1.1e18."""
        return math.prod(len(pairs) * len(OPERATIONS) ** 2 for pairs in _PAIRS) ** 2

    def alphas(self) -> Alphas:
        """Returns zeros (14, operations) for ``"normal"`` and ``"reduction"``."""
        return {kind: jnp.zeros((len(EDGES), len(self.operations))) for kind in KINDS}

    def sample(self, key: jax.Array) -> DARTSGenotype:
        """Draws pairs of inputs and operations uniformly."""
        pair_key, operation_key = jax.random.split(key)
        pairs = jax.random.randint(pair_key, (2, NODES), 0, np.tile(_PAIR_COUNTS, (2, 1)))
        inputs = jnp.asarray(_PAIR_TABLE)[np.tile(np.arange(NODES), (2, 1)), pairs]
        return DARTSGenotype(inputs, jax.random.randint(operation_key, (2, NODES, 2), 0, len(OPERATIONS)))

    def enumerate(self) -> Iterator[DARTSGenotype]:
        """Yields all pairs of cells lazily, the last node's second operation changing fastest."""
        operations = range(len(OPERATIONS))
        nodes = [[*itertools.product(pairs, operations, operations)] for pairs in _PAIRS] * 2
        for choices in itertools.product(*nodes):
            inputs = np.array([pair for pair, _, _ in choices], np.int32).reshape(2, NODES, 2)
            chosen = np.array([pair for _, *pair in choices], np.int32).reshape(2, NODES, 2)
            yield DARTSGenotype(inputs, chosen)  # type: ignore[arg-type]

    def canonical(self, genotype: DARTSGenotype) -> str:
        """Names the function of both cells up to the order of their nodes, with the normal cell's skips taken."""
        cells = []
        for kind, cell in enumerate(self._cells(genotype)):
            names = ["a", "b"]
            for node in cell:
                terms = [
                    names[source] if operation == "skip_connect" and (kind == 0 or source > 1)
                    else f"{operation}({names[source]})"
                    for operation, source in node
                ]  # fmt: skip
                names.append("+".join(sorted(terms)))
            cells.append("|".join(sorted(names[2:])))
        return " / ".join(cells)

    def mutate(self, key: jax.Array, genotype: DARTSGenotype) -> DARTSGenotype:
        """Gives one edge another operation or another input, each such change with the same probability."""
        edit_key, operation_key = jax.random.split(key)
        slots = genotype.operations.size
        by_operation = slots * (len(OPERATIONS) - 1)
        edit = jax.random.randint(edit_key, (), 0, by_operation + len(_INPUT_EDITS))
        slot = jnp.minimum(edit, by_operation - 1) // (len(OPERATIONS) - 1)
        flat = genotype.operations.ravel()
        other = uniform_other(operation_key, flat[slot], len(OPERATIONS))
        changed = DARTSGenotype(genotype.inputs, flat.at[slot].set(other).reshape(genotype.operations.shape))
        moved = _moved(genotype, jnp.asarray(_INPUT_EDITS)[jnp.maximum(edit - by_operation, 0)])
        return jax.tree.map(lambda a, b: jnp.where(edit < by_operation, a, b), changed, moved)

    def encode(self, genotype: DARTSGenotype) -> Weights:
        """Returns (14, operations) for each kind of cell, a one in the row of each edge that is there."""
        rows = _FIRST_EDGE.reshape(1, NODES, 1) + genotype.inputs
        columns = genotype.operations + self.none
        zeros = jnp.zeros((len(EDGES), len(self.operations)))
        return {kind: zeros.at[rows[k].ravel(), columns[k].ravel()].set(1) for k, kind in enumerate(KINDS)}

    def decode(self, alphas: Alphas) -> DARTSGenotype:
        """Keeps, for each node, the two edges whose best operations are the most likely (DARTS, section 2.4)."""
        inputs, operations = [], []
        for kind in KINDS:
            probabilities = jax.nn.softmax(alphas[kind])[:, int(self.none) :]
            best, strength = jnp.argmax(probabilities, axis=-1), jnp.max(probabilities, axis=-1)
            for node in range(NODES):
                rows = slice(_FIRST_EDGE[node], _FIRST_EDGE[node] + node + 2)
                chosen = jnp.sort(jax.lax.top_k(strength[rows], 2)[1])
                inputs.append(chosen)
                operations.append(best[rows][chosen])
        shape = (2, NODES, 2)
        return DARTSGenotype(
            jnp.stack(inputs).reshape(shape).astype(jnp.int32), jnp.stack(operations).reshape(shape).astype(jnp.int32)
        )

    def graph(self, genotype: DARTSGenotype) -> dict[str, list[Edge]]:
        """Returns the eight edges of each cell, from the inputs "k-2" and "k-1" and the nodes "0" to "3"."""
        return {
            kind: [
                Edge(_NODE_NAMES[i], _NODE_NAMES[2 + j], operation)
                for j, node in enumerate(cell)
                for operation, i in node
            ]
            for kind, cell in zip(KINDS, self._cells(genotype), strict=True)
        }

    def format(self, genotype: DARTSGenotype) -> str:
        """Writes the authors' text form, the inputs of each node in rising order."""
        normal, reduction = ([edge for node in cell for edge in node] for cell in self._cells(genotype))
        return _text(str(normal), str(reduction))

    def parse(self, text: str) -> DARTSGenotype:
        """Reads the authors' text form, without evaluating it.

        Args:
            text: see the class.

        Returns:
            Both cells.

        Raises:
            ValueError: `text` is malformed, or a cell is not one of this space.
        """
        parts = text_form.arguments(text, "Genotype", _TEXT_KEYS)
        for name in ("normal_concat", "reduce_concat"):
            _check_concat(name, parts[name])
        cells = [_parse_cell(name, parts[name]) for name in ("normal", "reduce")]
        inputs, operations = (np.array([[[e[i] for e in node] for node in cell] for cell in cells]) for i in range(2))
        return DARTSGenotype(jnp.asarray(inputs, jnp.int32), jnp.asarray(operations, jnp.int32))

    def one_shot(self, **size: Any) -> DARTSNetwork:
        """Returns the network with all edges and operations; "none" adds nothing and is not computed.

        Args:
            **size: attributes of `DARTSNetwork`; `affine` is off unless given, as in the paper.

        Returns:
            A module called as `module(x, weights)`.

        Raises:
            ValueError: a size is out of range.
        """
        options: dict[str, Any] = {"affine": False} | size
        return DARTSNetwork(choices=None, **options)

    def network(self, genotype: DARTSGenotype, **size: Any) -> DARTSNetwork:
        """Returns the network of one pair of cells.

        Args:
            genotype: concrete cells.
            **size: attributes of `DARTSNetwork`.

        Returns:
            A module called as `module(x)`.

        Raises:
            ValueError: a size is out of range.
        """
        return DARTSNetwork(choices=tuple(_choices(cell) for cell in self._cells(genotype)), **size)

    def _cells(self, genotype: DARTSGenotype) -> list[_Cell]:
        """Returns (operation, input) of the two edges of each node of both cells."""
        inputs, operations = np.asarray(genotype.inputs), np.asarray(genotype.operations)
        return [
            [
                [(OPERATIONS[o], int(i)) for i, o in zip(inputs[k, n], operations[k, n], strict=True)]
                for n in range(NODES)
            ]
            for k in range(2)
        ]


def _text(normal: str, reduction: str) -> str:
    return f"Genotype(normal={normal}, normal_concat={_CONCAT}, reduce={reduction}, reduce_concat={_CONCAT})"


def _choices(cell: _Cell) -> tuple[tuple[int, str], ...]:
    return tuple((EDGES.index((i, node)), operation) for node, edges in enumerate(cell) for operation, i in edges)


def _moved(genotype: DARTSGenotype, edit: jax.Array) -> DARTSGenotype:
    """Moves one edge to the i-th of the inputs that its node does not have, for an edit (cell, node, slot, i)."""
    cell, node, slot, i = edit
    pair, chosen = genotype.inputs[cell, node], genotype.operations[cell, node]
    candidates = jnp.arange(NODES + 1)
    free = (candidates != pair[0]) & (candidates != pair[1])
    pair = pair.at[slot].set(jnp.argmax(jnp.cumsum(free) == i + 1))
    order = jnp.argsort(pair)
    return DARTSGenotype(
        genotype.inputs.at[cell, node].set(pair[order]), genotype.operations.at[cell, node].set(chosen[order])
    )


def _check_concat(name: str, node: ast.expr) -> None:
    if ast.unparse(node) == str(_CONCAT):
        return
    listed = text_form.literal(name, node, f"to be {_CONCAT}")
    if not isinstance(listed, list | tuple) or list(listed) != list(_CONCAT):
        raise ValueError(f"genotype: expected {name} to be {_CONCAT}, got {ast.unparse(node)}")


def _parse_cell(name: str, node: ast.expr) -> list[list[tuple[int, int]]]:
    """Returns (input, operation) of each edge, a list for each node."""
    edges = text_form.literal(name, node, "as a list of (operation, input)")
    if not isinstance(edges, list) or len(edges) != 2 * NODES:
        got = f"{len(edges)}" if isinstance(edges, list) else ast.unparse(node)
        raise ValueError(f"genotype: expected {2 * NODES} edges in {name}, two for each node, got {got}")
    nodes = []
    for target in range(NODES):
        found = []
        for edge in edges[2 * target : 2 * target + 2]:
            if not isinstance(edge, tuple) or len(edge) != 2:
                raise ValueError(f"genotype: expected edges (operation, input) in {name}, got {edge!r}")
            operation, source = edge
            if operation not in OPERATIONS:
                raise ValueError(f"genotype: expected an operation of {OPERATIONS} in {name}, got {operation!r}")
            if type(source) is not int or not 0 <= source < target + 2:
                raise ValueError(
                    f"genotype: expected node {target + 2} of {name} to read an earlier one, 0 to {target + 1}, "
                    f"got {source!r}"
                )
            found.append((source, OPERATIONS.index(operation)))
        if found[0][0] == found[1][0]:
            raise ValueError(
                f"genotype: expected node {target + 2} of {name} to read two nodes, got {found[0][0]} twice"
            )
        nodes.append(sorted(found))
    return nodes


def _published(normal: str, reduction: str) -> DARTSGenotype:
    return DARTS().parse(_text(normal, reduction))


DARTS_V1 = _published(
    "[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)]",
    "[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)]",
)
"""Found by first-order DARTS (Liu, Simonyan and Yang, 2019, authors' code)."""

DARTS_V2 = _published(
    "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)]",
    "[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)]",
)
"""Found by second-order DARTS (Liu, Simonyan and Yang, 2019, figures 4 and 5)."""
