"""DARTS cells as published tables have them: a node may read one input twice, and an edge may have no operation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import darts_text
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked, no_one_shot
from nasi_jax.spaces.darts import NODE_NAMES, choices_of
from nasi_jax.spaces.darts_network import KINDS, NODES, OPERATIONS, DARTSNetwork, DARTSSize
from nasi_jax.spaces.darts_text import NONE, Cell

_OPERATIONS = (NONE, *OPERATIONS)
_SLOTS = ("first", "second")


@struct.dataclass(eq=False)
class DARTSNDSGenotype(Genotype):
    """A normal and a reduction cell.

    Attributes:
        inputs: (2, 4, 2) int32, for the normal and the reduction cell and each of their nodes two inputs, in any order
            and maybe the same: 0 and 1 are the outputs of the cell before the last and of the last one, 2 to 4 are the
            nodes before it.
        operations: (2, 4, 2) int32, for each of these edges an index into "none" and the operations of DARTS.
    """

    inputs: jax.Array
    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class DARTSNDS(SearchSpace):
    """The DARTS space of NDS and of tables of trainings; see `nasi_jax.spaces.SearchSpace` for the contract.

    Networks are those of `nasi_jax.spaces.DARTS`, whose nodes sum two edges. Where both read one input, each has
    parameters of its own, which a one-shot network with one set of them for each edge cannot follow: there is none.
    The text form is that of DARTS, with the edges of a node in their order.

    References:
        Radosavovic et al., "On network design spaces for visual recognition", ICCV 2019; Liu, Simonyan and Yang,
        "DARTS: Differentiable architecture search", ICLR 2019.
    """

    Size: ClassVar[type] = DARTSSize
    search_size: ClassVar[DARTSSize] = DARTSSize(channels=8, cells=5)
    evaluation_size: ClassVar[DARTSSize] = DARTSSize(channels=36, cells=20)
    one_shot: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "darts-nds"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""
        return _OPERATIONS

    @property
    def additive(self) -> bool:
        """False: what an operation costs depends on whether its input is halved."""
        return False

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`: of both cells the first and the second edge into a node."""
        rows = {
            node: tuple(f"{kind} {slot} edge into {node}" for kind in KINDS for slot in _SLOTS) for node in range(NODES)
        }
        inputs = {f"inputs of {node}": names for node, names in rows.items()}
        return inputs | {f"operations of {node}": names for node, names in rows.items()}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        inputs: dict[str, tuple[str, ...]] = {f"inputs of {node}": NODE_NAMES[: node + 2] for node in range(NODES)}
        return inputs | {f"operations of {node}": _OPERATIONS for node in range(NODES)}

    @property
    def decisions(self) -> tuple[int, ...]:
        """For both cells and each node two inputs and two operations: about 2e20 pairs of cells."""
        operations = len(_OPERATIONS)
        return tuple(n for node in range(NODES) for n in (node + 2, node + 2, operations, operations)) * 2

    def to_decisions(self, genotype: DARTSNDSGenotype) -> jax.Array:
        """Returns (32,): for each node two inputs, then two operations."""
        return jnp.concatenate([genotype.inputs, genotype.operations], axis=-1).ravel()

    def from_decisions(self, options: jax.Array) -> DARTSNDSGenotype:
        """Returns the cells of (32,) options."""
        by_node = options.reshape(2, NODES, 4)
        return DARTSNDSGenotype(by_node[..., :2], by_node[..., 2:])

    def alphas(self) -> Alphas:
        """Returns zeros (4, inputs) for the inputs of each node, (4, 8) for its operations."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in self.choices.items()}

    def canonical(self, genotype: DARTSNDSGenotype) -> str:
        """Names the function of both cells up to the order of their nodes, with the normal cell's skips taken."""
        cells = []
        for kind, cell in enumerate(self.cells(genotype)):
            names = [["a"], ["b"]]
            for node in cell:
                terms: list[str] = []
                for operation, source in node:
                    if operation == "skip_connect" and (kind == 0 or source > 1):
                        terms += names[source]
                    elif operation != NONE and names[source]:
                        terms.append(f"{operation}({'+'.join(names[source])})")
                names.append(sorted(terms))
            cells.append("|".join(sorted("+".join(terms) for terms in names[2:])))
        return " / ".join(cells)

    def encode(self, genotype: DARTSNDSGenotype) -> Weights:
        """Returns a one in each row."""
        genotype = checked(self, genotype)
        inputs, operations = (jnp.swapaxes(jnp.asarray(a), 0, 1) for a in (genotype.inputs, genotype.operations))
        weights = {f"inputs of {node}": jax.nn.one_hot(inputs[node].reshape(-1), node + 2) for node in range(NODES)}
        return weights | {
            f"operations of {node}": jax.nn.one_hot(operations[node].reshape(-1), len(_OPERATIONS))
            for node in range(NODES)
        }

    def decode(self, alphas: Alphas) -> DARTSNDSGenotype:
        """Takes the largest logit of each row."""

        def largest(kind: str) -> jax.Array:
            rows = [jnp.argmax(alphas[f"{kind} of {node}"], axis=-1).reshape(2, 2) for node in range(NODES)]
            return jnp.stack(rows, axis=1).astype(jnp.int32)

        return DARTSNDSGenotype(largest("inputs"), largest("operations"))

    def cells(self, genotype: DARTSNDSGenotype) -> list[Cell]:
        """Returns (operation, input) of the two edges of each node of both cells of a concrete genotype."""
        genotype = checked(self, genotype)
        arrays = zip(np.asarray(genotype.inputs).tolist(), np.asarray(genotype.operations).tolist(), strict=True)
        return [
            [
                [(_OPERATIONS[o], i) for i, o in zip(inputs, operations, strict=True)]
                for inputs, operations in zip(*cell, strict=True)
            ]
            for cell in arrays
        ]

    def graph(self, genotype: DARTSNDSGenotype) -> dict[str, list[Edge]]:
        """Returns the edges of each cell; operations of two edges between the same nodes are joined by +."""
        found = {}
        for kind, cell in zip(KINDS, self.cells(genotype), strict=True):
            edges: dict[tuple[int, int], list[str]] = {}
            for j, node in enumerate(cell):
                for operation, i in node:
                    edges.setdefault((i, j), []).append(operation)
            found[kind] = [Edge(NODE_NAMES[i], NODE_NAMES[2 + j], "+".join(names)) for (i, j), names in edges.items()]
        return found

    def format(self, genotype: DARTSNDSGenotype) -> str:
        """Writes the text form of DARTS."""
        return darts_text.genotype_text(*self.cells(genotype))

    def parse(self, text: str) -> DARTSNDSGenotype:
        """Reads what `nasi_jax.spaces.DARTS.parse` reads, inputs that are read twice and "none" among it.

        Args:
            text: for example ``Genotype(normal=[('none', 0), ('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5],
                reduce=[...], reduce_concat=[2, 3, 4, 5])``.

        Returns:
            Both cells.

        Raises:
            ValueError: `text` is malformed, or a cell is not one of this space.
        """
        cells = darts_text.parse(text, free=True)
        inputs = [[[source for _, source in node] for node in cell] for cell in cells]
        operations = [[[_OPERATIONS.index(name) for name, _ in node] for node in cell] for cell in cells]
        return DARTSNDSGenotype(jnp.array(inputs, jnp.int32), jnp.array(operations, jnp.int32))

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of CIFAR's size."""
        return Gaussian((32, 32, 3), outputs)

    def network(
        self,
        genotype: DARTSNDSGenotype | None,
        size: DARTSSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> DARTSNetwork:
        """Returns the network of one pair of cells.

        Args:
            genotype: concrete cells.
            size: channels, cells and stem.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`.

        Raises:
            ValueError: a size is out of range, or there is no genotype.
        """
        if genotype is None:
            raise ValueError(no_one_shot(self))
        there = [[[edge for edge in node if edge[0] != NONE] for node in cell] for cell in self.cells(genotype)]
        return DARTSNetwork(size, outputs, style, execution, tuple(choices_of(cell) for cell in there))
