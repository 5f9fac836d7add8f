"""NAS-Bench-101 (Ying et al., ICML 2019): cells of at most 7 vertices and 9 edges, 423,624 distinct ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import nasbench101_text
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked, no_one_shot
from nasi_jax.spaces.nasbench101_network import NASBench101Network, NASBench101Size
from nasi_jax.spaces.nasbench101_text import INPUT, OPERATIONS, OUTPUT, ModelSpec

VERTICES, EDGES = 7, 9
"""The most of each that a cell has."""
_PLACES = tuple(itertools.combinations(range(VERTICES), 2))
"""(source, target) of all edges that a cell can have."""
_FURTHER = 5  # edges beside the first one into each vertex, as many as a cell of 5 vertices and 9 edges has
_CHOOSING = range(2, VERTICES)  # vertex 1 can only read the input


@struct.dataclass(eq=False)
class NASBench101Genotype(Genotype):
    """A cell of NAS-Bench-101.

    Attributes:
        operations: (5,) int32, for each inner vertex an index into `OPERATIONS`.
        parents: (5,) int32, for vertices 2 to 6 a vertex before it that it reads; vertex 1 reads the input.
        further: (5,) int32, further edges, by their place among (0, 1), (0, 2), ..., (5, 6). One that is there already
            adds nothing.
    """

    operations: jax.Array
    parents: jax.Array
    further: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBench101(SearchSpace):
    """The NAS-Bench-101 space; see `nasi_jax.spaces.SearchSpace` for the contract.

    Genotypes are made so that independent decisions always give a cell of the benchmark, and every one of its cells is
    given. Each vertex reads one of those before it, so that a path leads to the output. Five further edges are added in
    turn, except where the cell, without what is on no path, would have more than nine. Vertices on no path are not
    built. Many genotypes have one cell.

    The text form is that of the authors' code, ``ModelSpec(matrix=[[0, 1, ...], ...], ops=['input', ..., 'output'])``,
    with what is on no path left out. Genotypes beside the first of a cell say so in a third argument, ``decisions``.

    Channels depend on the cell, which no one-shot network can follow: there is none.

    References:
        Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.
    """

    Size: ClassVar[type] = NASBench101Size
    search_size: ClassVar[NASBench101Size] = NASBench101Size(channels=16, cells=1)
    evaluation_size: ClassVar[NASBench101Size] = NASBench101Size()
    one_shot: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbench101"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations of an inner vertex."""
        return OPERATIONS

    @property
    def additive(self) -> bool:
        """False: channels depend on the whole cell."""
        return False

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        inner = tuple(str(vertex) for vertex in range(1, VERTICES - 1))
        parents = {f"parent of {_name(vertex)}": (_name(vertex),) for vertex in _CHOOSING}
        return {"operations": inner} | parents | {"further edges": tuple(str(i + 1) for i in range(_FURTHER))}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        parents = {f"parent of {_name(v)}": tuple(_name(u) for u in range(v)) for v in _CHOOSING}
        places = tuple(f"{_name(source)}→{_name(target)}" for source, target in _PLACES)
        return {"operations": OPERATIONS} | parents | {"further edges": places}

    @property
    def decisions(self) -> tuple[int, ...]:
        """Operations, parents, further edges: 7e11 genotypes."""
        return (len(OPERATIONS),) * (VERTICES - 2) + tuple(_CHOOSING) + (len(_PLACES),) * _FURTHER

    def to_decisions(self, genotype: NASBench101Genotype) -> jax.Array:
        """Returns the operations, the parents, the further edges."""
        return jnp.concatenate([genotype.operations, genotype.parents, genotype.further])

    def from_decisions(self, options: jax.Array) -> NASBench101Genotype:
        """Splits the options of all decisions."""
        operations, parents, further = jnp.split(options, [VERTICES - 2, 2 * VERTICES - 4])
        return NASBench101Genotype(operations, parents, further)

    def spec(self, genotype: NASBench101Genotype) -> ModelSpec:
        """Returns the matrix and the operations of a concrete genotype, without what is on no path."""
        genotype = checked(self, genotype)
        operations = (INPUT, *(OPERATIONS[i] for i in genotype.operations), OUTPUT)
        matrix = np.zeros((VERTICES, VERTICES), int)
        matrix[0, 1] = 1
        matrix[genotype.parents, _CHOOSING] = 1
        for place in genotype.further:
            more = matrix.copy()
            more[_PLACES[place]] = 1
            if ModelSpec(more, operations).pruned().matrix.sum() <= EDGES:
                matrix = more
        return ModelSpec(matrix, operations).pruned()

    def alphas(self) -> Alphas:
        """Returns zeros (5, 3) for "operations", (1, v) for the parent of vertex v, (5, 21) for "further edges"."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in self.choices.items()}

    def canonical(self, genotype: NASBench101Genotype) -> str:
        """Writes the canonical one of the cells that differ in the order of vertices alone, which are one entry."""
        return self.spec(genotype).canonical().model_spec()

    def listed(self, genotype: NASBench101Genotype) -> str:
        """Returns the canonical cell: the benchmark trains one of those that differ in their order alone."""
        return self.canonical(genotype)

    def encode(self, genotype: NASBench101Genotype) -> Weights:
        """Returns a one in each row."""
        genotype = checked(self, genotype)
        parents = {
            f"parent of {_name(vertex)}": jax.nn.one_hot(genotype.parents[i], vertex)[None]
            for i, vertex in enumerate(_CHOOSING)
        }
        return (
            {"operations": jax.nn.one_hot(genotype.operations, len(OPERATIONS))}
            | parents
            | {"further edges": jax.nn.one_hot(genotype.further, len(_PLACES))}
        )

    def decode(self, alphas: Alphas) -> NASBench101Genotype:
        """Takes the largest logit of each row."""
        operations, further = (jnp.argmax(alphas[kind], axis=-1) for kind in ("operations", "further edges"))
        parents = jnp.stack([jnp.argmax(alphas[f"parent of {_name(vertex)}"][0]) for vertex in _CHOOSING])
        return NASBench101Genotype(*(found.astype(jnp.int32) for found in (operations, parents, further)))

    def graph(self, genotype: NASBench101Genotype) -> dict[str, list[Edge]]:
        """Returns the edges of the cell, those into a vertex with its operation."""
        matrix, operations = self.spec(genotype)
        names = [INPUT, *map(str, range(1, len(matrix) - 1)), OUTPUT]
        labels = [*operations[:-1], ""]
        return {"cell": [Edge(names[i], names[j], labels[j]) for i, j in np.argwhere(matrix).tolist()]}

    def format(self, genotype: NASBench101Genotype) -> str:
        """Writes the authors' form."""
        spec, genotype = self.spec(genotype), checked(self, genotype)
        further = {} if _first(spec) == genotype else {"decisions": np.asarray(self.to_decisions(genotype)).tolist()}
        return spec.model_spec(**further)

    @property
    def notations(self) -> dict[str, Callable[[NASBench101Genotype], str]]:
        """The authors' form of the cell alone, "modelspec", and NASLib's tuple of numbers, "naslib"."""
        return {"modelspec": lambda g: self.spec(g).model_spec(), "naslib": lambda g: self.spec(g).naslib()}

    def parse(self, text: str) -> NASBench101Genotype:
        """Reads the authors' form or NASLib's tuple, without evaluating it.

        Args:
            text: see the class. Vertices on no path may be there, and are left out. NASLib's tuple has the matrix by
                rows and then the operations, of which 0 is the input, 1 the output, 2 a max-pool, 3 a 1x1 convolution
                and 4 a 3x3 convolution.

        Returns:
            The first genotype that has the cell, or the one whose decisions are named.

        Raises:
            ValueError: `text` is malformed, or the cell is not one of the benchmark.
        """
        whole, given = nasbench101_text.parse(text, range(2, VERTICES + 1), ("decisions",))
        spec = whole.pruned()
        if not len(spec.matrix):
            raise ValueError(f"genotype: expected a path from input to output, there is none in {text!r}")
        if spec.matrix.sum() > EDGES:
            raise ValueError(
                f"genotype: expected at most {EDGES} edges on paths from input to output, got {spec.matrix.sum()}"
            )
        if not given:
            return _first(spec)
        decisions, counts = given["decisions"], self.decisions
        if not isinstance(decisions, list | tuple) or len(decisions) != len(counts):
            raise ValueError(f"genotype: expected decisions as {len(counts)} numbers, got {decisions!r}")
        if any(type(option) is not int or not 0 <= option < n for option, n in zip(decisions, counts, strict=True)):
            raise ValueError(f"genotype: expected decisions from 0 to one less than {counts}, got {decisions!r}")
        genotype = self.from_decisions(jnp.array(decisions, jnp.int32))
        found = self.spec(genotype)
        if found.model_spec() != spec.model_spec():
            raise ValueError(f"genotype: expected decisions of the cell, those of {text!r} give {found.model_spec()}")
        return genotype

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of CIFAR's size."""
        return Gaussian((32, 32, 3), outputs)

    def network(
        self,
        genotype: NASBench101Genotype | None,
        size: NASBench101Size,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBench101Network:
        """Returns the network of one cell, with the parameters that the benchmark counts.

        Args:
            genotype: a concrete cell.
            size: channels and cells.
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
        spec = self.spec(genotype)
        rows = tuple(tuple(row) for row in spec.matrix.tolist())
        return NASBench101Network(size, outputs, style, execution, rows, spec.operations)


def _name(vertex: int) -> str:
    return {0: INPUT, VERTICES - 1: OUTPUT}.get(vertex, str(vertex))


def _first(spec: ModelSpec) -> NASBench101Genotype:
    """Returns the genotype of a cell that has each edge once, by rising source, and all else 0."""
    last = len(spec.matrix) - 1
    placed = [*range(last), VERTICES - 1]  # vertices on no path come after the others
    edges = [(placed[i], placed[j]) for i, j in np.argwhere(spec.matrix).tolist()]
    parents = [0] * VERTICES
    for source, target in reversed(edges):
        parents[target] = source
    further = [_PLACES.index(edge) for edge in edges if parents[edge[1]] != edge[0]]
    further += [0] * (_FURTHER - len(further))
    operations = [OPERATIONS.index(name) for name in spec.operations[1:-1]]
    operations += [0] * (VERTICES - 2 - len(operations))
    parts = (operations, parents[2:], further)
    return NASBench101Genotype(*(jnp.array(part, jnp.int32) for part in parts))
