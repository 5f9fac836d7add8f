"""The three spaces of NAS-Bench-1Shot1 (Zela, Siems and Hutter, ICLR 2020), parts of NAS-Bench-101."""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import nasbench101_text
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked
from nasi_jax.spaces.nasbench1shot1_network import (
    Choices,
    NASBench1Shot1Network,
    NASBench1Shot1Size,
    parents_of,
)
from nasi_jax.spaces.nasbench101_text import INPUT, OPERATIONS, OUTPUT, ModelSpec

_NUMBERS = {1: (1, 2, 2, 2, 2), 2: (1, 1, 2, 2, 3), 3: (1, 1, 1, 2, 2, 2)}
"""How many nodes each choice block and the output read."""


@struct.dataclass(eq=False)
class NASBench1Shot1Genotype(Genotype):
    """A cell of one of the three spaces, n choice blocks and the output.

    Attributes:
        operations: (n,) int32, for each block an index into `OPERATIONS`.
        parents: (n + 1,) int32, for each block and the output an index into the sets of nodes that it can read, in
            lexicographic order.
    """

    operations: jax.Array
    parents: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBench1Shot1(SearchSpace):
    """One of the spaces; see `nasi_jax.spaces.SearchSpace` for the contract.

    A choice block applies one operation to the sum of the earlier nodes that it reads. How many these are is fixed: 1,
    2, 2, 2 for the blocks and 2 for the output in the first space, 1, 1, 2, 2 and 3 in the second, 1, 1, 1, 2, 2 and 2
    in the third. The relaxed form has a row of weights for the operation of each block, and one for each node over
    the sets of nodes that it can read; the authors' has one over single nodes instead, which does not say how many.

    The text form is that of NAS-Bench-101's code: ``ModelSpec(matrix=[[0, 1, ...], ...], ops=['input', ...,
    'output'])``, with an upper triangular matrix whose entry (i, j) says whether node j reads node i.

    Attributes:
        number: 1, 2 or 3.

    References:
        Zela, Siems and Hutter, "NAS-Bench-1Shot1: Benchmarking and Dissecting One-shot Neural Architecture Search",
        ICLR 2020; Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.
    """

    number: int = 1

    Size: ClassVar[type] = NASBench1Shot1Size
    search_size: ClassVar[NASBench1Shot1Size] = NASBench1Shot1Size(channels=8, cells=5)
    evaluation_size: ClassVar[NASBench1Shot1Size] = NASBench1Shot1Size()

    def __post_init__(self) -> None:
        """Checks the number."""
        if self.number not in _NUMBERS:
            raise ValueError(f"number: expected one of {tuple(_NUMBERS)}, got {self.number!r}")

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return f"nasbench1shot1-s{self.number}"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations of a block."""
        return OPERATIONS

    @property
    def additive(self) -> bool:
        """False: a block that nothing reads costs nothing."""
        return False

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        blocks = tuple(str(block) for block in range(1, self._output))
        return {"operations": blocks} | {
            kind: (kind.removeprefix("parents of "),) for kind in self.choices if kind != "operations"
        }

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        names: dict[str, tuple[str, ...]] = {"operations": OPERATIONS}
        for node, sets in enumerate(self._sets, start=1):
            if len(sets) > 1:
                names[parents_of(node, self._output)] = tuple("+".join(map(_name, chosen)) for chosen in sets)
        return names

    @property
    def decisions(self) -> tuple[int, ...]:
        """The operation of each block, then what each block and the output read.

        There are 14,580, 29,160 or 1,312,200 cells: blocks that nothing reads count, and so does their order.
        """
        return (len(OPERATIONS),) * (self._output - 1) + tuple(map(len, self._sets))

    def to_decisions(self, genotype: NASBench1Shot1Genotype) -> jax.Array:
        """Returns the operations, then the parents."""
        return jnp.concatenate([genotype.operations, genotype.parents])

    def from_decisions(self, options: jax.Array) -> NASBench1Shot1Genotype:
        """Splits the options of all decisions, those of the operations first."""
        return NASBench1Shot1Genotype(options[: self._output - 1], options[self._output - 1 :])

    @property
    def _output(self) -> int:
        return len(_NUMBERS[self.number])

    @property
    def _sets(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each block and the output the sets of nodes that it can read."""
        return tuple(
            tuple(itertools.combinations(range(node), count))
            for node, count in enumerate(_NUMBERS[self.number], start=1)
        )

    def alphas(self) -> Alphas:
        """Returns zeros (n, 3) for "operations", and (1, sets) for the parents of each node that has a choice."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in self.choices.items()}

    def canonical(self, genotype: NASBench1Shot1Genotype) -> str:
        """Writes the canonical one of the NAS-Bench-101 cells that differ in the order of blocks alone."""
        matrix, operations = self.nasbench101(genotype)
        return ModelSpec(matrix, tuple(operations)).canonical().model_spec()

    def encode(self, genotype: NASBench1Shot1Genotype) -> Weights:
        """Returns a one in each row."""
        genotype = checked(self, genotype)
        weights = {"operations": jax.nn.one_hot(genotype.operations, len(OPERATIONS))}
        for node, sets in enumerate(self._sets, start=1):
            if len(sets) > 1:
                row = jax.nn.one_hot(genotype.parents[node - 1], len(sets))
                weights[parents_of(node, self._output)] = row[None]
        return weights

    def decode(self, alphas: Alphas) -> NASBench1Shot1Genotype:
        """Takes the largest logit of each row."""
        parents = [
            jnp.argmax(alphas[kind][0]) if (kind := parents_of(node, self._output)) in alphas else jnp.zeros((), int)
            for node in range(1, self._output + 1)
        ]
        operations = jnp.argmax(alphas["operations"], axis=-1)
        return NASBench1Shot1Genotype(operations.astype(jnp.int32), jnp.stack(parents).astype(jnp.int32))

    def graph(self, genotype: NASBench1Shot1Genotype) -> dict[str, list[Edge]]:
        """Returns the edges of the cell, those into a block with its operation; blocks that nothing reads stay."""
        cell = self._choices(genotype)
        labels = (*cell.operations, "")
        return {
            "cell": [
                Edge(_name(parent), _name(node) if node < self._output else OUTPUT, labels[node - 1])
                for node, parents in enumerate(cell.parents, start=1)
                for parent in parents
            ]
        }

    def nasbench101(self, genotype: NASBench1Shot1Genotype) -> tuple[np.ndarray, list[str]]:
        """Translates a cell to NAS-Bench-101's form, without the blocks on which the output does not depend.

        Args:
            genotype: a concrete cell.

        Returns:
            The (nodes, nodes) upper triangular matrix of zeros and ones, and the operation of each node, from "input"
            to "output".
        """
        cell = self._choices(genotype)
        used, whole = sorted(cell.used | {0}), self._spec(cell)
        return whole.matrix[np.ix_(used, used)], [whole.operations[node] for node in used]

    def format(self, genotype: NASBench1Shot1Genotype) -> str:
        """Writes NAS-Bench-101's form, with blocks that nothing reads."""
        cell = self._choices(genotype)
        return self._spec(cell).model_spec()

    def parse(self, text: str) -> NASBench1Shot1Genotype:
        """Reads NAS-Bench-101's form, without evaluating it.

        Args:
            text: see the class.

        Returns:
            The cell.

        Raises:
            ValueError: `text` is malformed, or the cell is not one of this space.
        """
        spec, _ = nasbench101_text.parse(text, (self._output + 1,))
        parents = []
        for node, sets in enumerate(self._sets, start=1):
            chosen = tuple(np.flatnonzero(spec.matrix[:, node]).tolist())
            if chosen not in sets:
                raise ValueError(
                    f"genotype: expected node {node} of the matrix to read {len(sets[0])} earlier ones, got {chosen}"
                )
            parents.append(sets.index(chosen))
        indices = [OPERATIONS.index(operation) for operation in spec.operations[1:-1]]
        return self.from_decisions(jnp.array([*indices, *parents], jnp.int32))

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of CIFAR's size."""
        return Gaussian((32, 32, 3), outputs)

    def network(
        self,
        genotype: NASBench1Shot1Genotype | None,
        size: NASBench1Shot1Size,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBench1Shot1Network:
        """Returns the network of one cell, without the blocks on which its output does not depend, or of all choices.

        Args:
            genotype: a concrete cell, or None for the one-shot network.
            size: channels and cells.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else self._choices(genotype)
        return NASBench1Shot1Network(size, outputs, style, execution, self._sets, choices)

    def _choices(self, genotype: NASBench1Shot1Genotype) -> Choices:
        genotype = checked(self, genotype)
        return Choices(
            tuple(OPERATIONS[i] for i in genotype.operations),
            tuple(sets[i] for sets, i in zip(self._sets, genotype.parents, strict=True)),
        )

    def _spec(self, cell: Choices) -> ModelSpec:
        matrix = np.zeros((self._output + 1, self._output + 1), int)
        for node, parents in enumerate(cell.parents, start=1):
            matrix[list(parents), node] = 1
        return ModelSpec(matrix, (INPUT, *cell.operations, OUTPUT))


def _name(node: int) -> str:
    return str(node) if node else INPUT
