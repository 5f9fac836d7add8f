"""The DARTS space (Liu, Simonyan and Yang, ICLR 2019): a normal and a reduction cell, 10^18 pairs of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import darts_text
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked
from nasi_jax.spaces.darts_network import EDGES, KINDS, NODES, OPERATIONS, DARTSNetwork, DARTSSize
from nasi_jax.spaces.darts_text import Cell

_PAIRS = tuple(tuple(itertools.combinations(range(node + 2), 2)) for node in range(NODES))
"""For each node the pairs of distinct inputs that it can have."""
_PAIR_TABLE = np.array([[pairs[i % len(pairs)] for i in range(len(_PAIRS[-1]))] for pairs in _PAIRS], np.int32)
_PAIR_COUNTS = np.array([len(pairs) for pairs in _PAIRS], np.int32)
_FIRST_EDGE = np.array([EDGES.index((0, node)) for node in range(NODES)], np.int32)
_INPUT_EDITS = np.array(
    [(k, node, slot, i) for k in range(2) for node in range(NODES) for slot in range(2) for i in range(node)], np.int32
)
_OPERATION_EDITS = 2 * NODES * 2 * (len(OPERATIONS) - 1)
NODE_NAMES = ("k-2", "k-1", "0", "1", "2", "3")


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
class DARTS(SearchSpace):
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

    Size: ClassVar[type] = DARTSSize
    search_size: ClassVar[DARTSSize] = DARTSSize(channels=8, cells=5)
    evaluation_size: ClassVar[DARTSSize] = DARTSSize(channels=36, cells=20)

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
        return dict.fromkeys(KINDS, tuple(f"{NODE_NAMES[i]}→{NODE_NAMES[j + 2]}" for i, j in EDGES))

    @property
    def additive(self) -> bool:
        """False: an architecture has eight of a cell's edges."""
        return False

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The operations, for both kinds of cell."""
        return dict.fromkeys(KINDS, self.operations)

    @property
    def decisions(self) -> tuple[int, ...]:
        """For both cells and each node a pair of inputs and two operations: about 1.1e18 pairs of cells."""
        return tuple(count for pairs in _PAIRS for count in (len(pairs), len(OPERATIONS), len(OPERATIONS))) * 2

    def to_decisions(self, genotype: DARTSGenotype) -> jax.Array:
        """Returns (24,): for each node the place of its pair of inputs among all of its pairs, and two operations."""
        first, second = genotype.inputs[..., 0], genotype.inputs[..., 1]
        # the pairs (a, b) before (first, second): all with a smaller a, then those with a smaller b
        inputs = np.arange(2, NODES + 2)[None]
        pairs = first * (2 * inputs - first - 1) // 2 + second - first - 1
        return jnp.concatenate([pairs[..., None], genotype.operations], axis=-1).ravel()

    def from_decisions(self, options: jax.Array) -> DARTSGenotype:
        """Returns the cells of (24,) options."""
        by_node = options.reshape(2, NODES, 3)
        return DARTSGenotype(jnp.asarray(_PAIR_TABLE)[np.arange(NODES)[None], by_node[..., 0]], by_node[..., 1:])

    @property
    def neighbours(self) -> int:
        """120: each of 16 edges with another operation or, where there is one, another input."""
        return _OPERATION_EDITS + len(_INPUT_EDITS)

    def neighbour(self, genotype: DARTSGenotype, i: Any) -> DARTSGenotype:
        """Gives one edge another operation or another input, which it takes its operation along to."""
        slot, shift = jnp.divmod(jnp.minimum(i, _OPERATION_EDITS - 1), len(OPERATIONS) - 1)
        flat = genotype.operations.ravel()
        flat = flat.at[slot].set((flat[slot] + 1 + shift) % len(OPERATIONS))
        changed = DARTSGenotype(genotype.inputs, flat.reshape(genotype.operations.shape))
        moved = _moved(genotype, jnp.asarray(_INPUT_EDITS)[jnp.maximum(i - _OPERATION_EDITS, 0)])
        return jax.tree.map(lambda a, b: jnp.where(i < _OPERATION_EDITS, a, b), changed, moved)

    def cross(self, key: jax.Array, first: DARTSGenotype, second: DARTSGenotype) -> DARTSGenotype:
        """Takes each node of each cell, its inputs with their operations, from either parent, by a fair coin."""
        heads = jax.random.bernoulli(key, shape=(2, NODES, 1))
        return jax.tree.map(lambda a, b: jnp.where(heads, a, b), first, second)

    def alphas(self) -> Alphas:
        """Returns zeros (14, operations) for ``"normal"`` and ``"reduction"``."""
        return {kind: jnp.zeros((len(EDGES), len(self.operations))) for kind in KINDS}

    def sample(self, key: jax.Array) -> DARTSGenotype:
        """Draws pairs of inputs and operations uniformly."""
        pair_key, operation_key = jax.random.split(key)
        pairs = jax.random.randint(pair_key, (2, NODES), 0, np.tile(_PAIR_COUNTS, (2, 1)), jnp.int32)
        inputs = jnp.asarray(_PAIR_TABLE)[np.tile(np.arange(NODES), (2, 1)), pairs]
        operations = jax.random.randint(operation_key, (2, NODES, 2), 0, len(OPERATIONS), jnp.int32)
        return DARTSGenotype(inputs, operations)

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

    def encode(self, genotype: DARTSGenotype) -> Weights:
        """Returns (14, operations) for each kind of cell, a one in the row of each edge that is there."""
        genotype = self._checked(genotype)
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
                Edge(NODE_NAMES[i], NODE_NAMES[2 + j], operation)
                for j, node in enumerate(cell)
                for operation, i in node
            ]
            for kind, cell in zip(KINDS, self._cells(genotype), strict=True)
        }

    def format(self, genotype: DARTSGenotype) -> str:
        """Writes the authors' text form, the inputs of each node in rising order."""
        return darts_text.genotype_text(*self._cells(genotype))

    @property
    def notations(self) -> dict[str, Callable[[DARTSGenotype], str]]:
        """NASLib's tuples of NAS-Bench-301, "naslib"."""
        return {"naslib": lambda g: darts_text.naslib(self._cells(g))}

    def parse(self, text: str) -> DARTSGenotype:
        """Reads the authors' text form and its variants, without evaluating them.

        Args:
            text: see the class. The edges of a cell may be in a list for each node, as pt.darts prints them, and have
                weights after their inputs, as GDAS prints them. A pair of
                cells alone is read too; where its edges are pairs of numbers, they are (input, operation) as in
                NASLib's tables of NAS-Bench-301, with operations counted in the order of `OPERATIONS`. A configuration
                of NAS-Bench-301, a dictionary of edge_normal_0 and so on, is another form. A name, and what a logger
                writes, may come before.

        Returns:
            Both cells.

        Raises:
            ValueError: `text` is malformed, or a cell is not one of this space.
        """
        cells = darts_text.parse(text)
        inputs = [[[source for _, source in node] for node in cell] for cell in cells]
        operations = [[[OPERATIONS.index(name) for name, _ in node] for node in cell] for cell in cells]
        return DARTSGenotype(jnp.array(inputs, jnp.int32), jnp.array(operations, jnp.int32))

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of CIFAR's size."""
        return Gaussian((32, 32, 3), outputs)

    def network(
        self,
        genotype: DARTSGenotype | None,
        size: DARTSSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> DARTSNetwork:
        """Returns the network of one pair of cells, or of all edges and operations.

        Args:
            genotype: concrete cells, or None for the one-shot network, where "none" adds nothing and is not computed.
            size: channels, cells and stem.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else tuple(choices_of(cell) for cell in self._cells(genotype))
        return DARTSNetwork(size, outputs, style, execution, choices)

    def _checked(self, genotype: DARTSGenotype) -> DARTSGenotype:
        genotype = checked(self, genotype)
        if isinstance(genotype.inputs, np.ndarray):
            for place in np.argwhere(genotype.inputs[..., 0] >= genotype.inputs[..., 1]).tolist():
                pair = genotype.inputs[tuple(place)].tolist()
                raise ValueError(f"inputs: expected two inputs in rising order at {tuple(place)}, got {pair}")
        return genotype

    def _cells(self, genotype: DARTSGenotype) -> list[Cell]:
        """Returns (operation, input) of the two edges of each node of both cells."""
        genotype = self._checked(genotype)
        inputs, operations = genotype.inputs, genotype.operations
        return [
            [
                [(OPERATIONS[o], int(i)) for i, o in zip(inputs[k, n], operations[k, n], strict=True)]
                for n in range(NODES)
            ]
            for k in range(2)
        ]


def choices_of(cell: Cell) -> tuple[tuple[int, str], ...]:
    """Returns (edge, operation) of the edges of a cell."""
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


def _published(normal: str, reduction: str) -> DARTSGenotype:
    return DARTS().parse(f"Genotype(normal={normal}, reduce={reduction})")


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
