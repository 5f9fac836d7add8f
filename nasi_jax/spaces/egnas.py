"""EGNAS (Cai et al., 2021) and ARGNP (Cai et al., CVPR 2022): graph networks with states of nodes and of edges."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import RandomGraphs
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, check_positive, checked
from nasi_jax.spaces.egnas_network import KINDS, OPERATIONS, EGNASNetwork, EGNASSize, Kind, pairs_of
from nasi_jax.spaces.text import unknown, unquoted

_LINK = re.compile(r"(\d{1,3})<(\d{1,3})\.(\w+)")
_Cell = dict[Kind, list[tuple[tuple[int, str], tuple[int, str]]]]
"""For each kind and vertex its two links, (state that is read, operation)."""


@struct.dataclass(eq=False)
class EGNASGenotype(Genotype):
    """The cells of a network.

    Attributes:
        pairs: (cells, 2, vertices) int32, for states of nodes and of edges and each vertex which two states before it
            are read, as a place among `pairs_of`.
        operations: (cells, 2, vertices, 2) int32, the operations of these two links.
    """

    pairs: jax.Array
    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class EGNAS(SearchSpace):
    """The spaces of EGNAS and ARGNP; see `nasi_jax.spaces.SearchSpace` for the contract.

    A cell has a list of states of nodes, V, and one of edges, E, whose first two are the outputs of the two cells
    before it. Each further state is the sum of two links, which read different earlier places, each of these the pair
    of both kinds of state; topologies of V and E are independent. The relaxed form has a row of weights for the pair of
    places of each state, and one for the operation of each of its two links; the authors' has one over the operations
    of all links instead, which does not say that two are kept. Operations of a link share their weights, so that one
    program computes any of them.

    The text form is, for each cell, ``V:2<0.max,2<1.sum,3<0.mean,3<2.identity;E:2<0.film,...``, with | between cells.
    The authors' networks have 4 cells with 4 vertices, `spaces.get("egnas(cells=4,vertices=4)")`.

    Attributes:
        cells: cells in a row, each with an architecture of its own.
        vertices: states of each kind that a cell adds.
        family: which operations there are, those of "egnas" or "argnp".

    References:
        Cai, Li, Han, Zha and Huang, "Edge-featured graph neural architecture search", 2021; Cai et al., "Automatic
        relation-aware graph network proliferation", CVPR 2022.
    """

    cells: int = 2
    vertices: int = 2
    family: Literal["egnas", "argnp"] = "egnas"

    Size: ClassVar[type] = EGNASSize
    search_size: ClassVar[EGNASSize] = EGNASSize(nodes=16, edges=8, joined_nodes=16, joined_edges=8)
    evaluation_size: ClassVar[EGNASSize] = EGNASSize()

    def __post_init__(self) -> None:
        """Checks the numbers and the family."""
        check_positive(self, cells=1, vertices=1)
        if self.family not in OPERATIONS:
            raise ValueError(unknown("family", self.family, OPERATIONS))

    @property
    def name(self) -> str:
        """The name "egnas", with the attributes that are not as by default, as `nasi_jax.spaces.get` reads them."""
        fields = dataclasses.fields(self)
        options = [f"{f.name}={getattr(self, f.name)}" for f in fields if getattr(self, f.name) != f.default]
        return f"egnas({','.join(options)})" if options else "egnas"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations of both kinds."""
        return tuple(dict.fromkeys(name for kind in KINDS for name in self._names(kind)))

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return OPERATIONS[self.family][kind]

    @property
    def _states(self) -> range:
        return range(2, self.vertices + 2)

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        links = tuple(f"{j}.{slot}" for j in self._states for slot in ("first", "second"))
        return {name: links if " " not in name else (name.rpartition(" ")[2],) for name in self.choices}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        names: dict[str, tuple[str, ...]] = {}
        for cell in range(self.cells):
            for kind in KINDS:
                names[f"{kind}{cell}"] = self._names(kind)
                for j in self._states:
                    if len(pairs_of(j)) > 1:
                        names[f"{kind}{cell} inputs of {j}"] = tuple(f"{a}+{b}" for a, b in pairs_of(j))
        return names

    @property
    def additive(self) -> bool:
        """True: each link has costs of its own, whatever it reads."""
        return True

    @property
    def decisions(self) -> tuple[int, ...]:
        """For each cell, kind of state and vertex a pair of places and two operations."""
        return tuple(
            count
            for _ in range(self.cells)
            for kind in KINDS
            for j in self._states
            for count in (len(pairs_of(j)), len(self._names(kind)), len(self._names(kind)))
        )

    def to_decisions(self, genotype: EGNASGenotype) -> jax.Array:
        """Returns the options, (cells * 2 * vertices * 3,)."""
        return jnp.concatenate([genotype.pairs[..., None], genotype.operations], axis=-1).ravel()

    def from_decisions(self, options: jax.Array) -> EGNASGenotype:
        """Returns the cells of (cells * 2 * vertices * 3,) options."""
        by_vertex = options.reshape(self.cells, 2, self.vertices, 3)
        return EGNASGenotype(by_vertex[..., 0], by_vertex[..., 1:])

    def alphas(self) -> Alphas:
        """Returns zeros: for cell 0 (2 * vertices, operations) for "V0", (1, pairs) for "V0 inputs of 3", and so on."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in self.choices.items()}

    def canonical(self, genotype: EGNASGenotype) -> str:
        """Names the function of the cells up to the order of their vertices."""
        cells = []
        for cell in self._cells(genotype):
            names: dict[Kind, list[str]] = {"V": ["v0", "v1"], "E": ["e0", "e1"]}
            for j in self._states:
                added = [self._name(cell[kind][j - 2], names) for kind in KINDS]
                for kind, name in zip(KINDS, added, strict=True):
                    names[kind].append(name)
            cells.append(";".join(f"{kind}:{','.join(sorted(names[kind][2:]))}" for kind in KINDS))
        return "|".join(cells)

    def _name(self, links: tuple[tuple[int, str], tuple[int, str]], names: dict[Kind, list[str]]) -> str:
        """Names a state by what it is a sum of; short, because names of names grow."""
        terms = sorted(f"{operation}({names['V'][i]},{names['E'][i]})" for i, operation in links)
        return hashlib.sha256("+".join(terms).encode()).hexdigest()[:16]

    def encode(self, genotype: EGNASGenotype) -> Weights:
        """Returns a one in each row."""
        genotype, weights = checked(self, genotype), {}
        for cell in range(self.cells):
            for k, kind in enumerate(KINDS):
                operations = genotype.operations[cell, k].reshape(-1)
                weights[f"{kind}{cell}"] = jax.nn.one_hot(operations, len(self._names(kind)))
                for j in self._states:
                    if len(pairs_of(j)) > 1:
                        pair = genotype.pairs[cell, k, j - 2 : j - 1]
                        weights[f"{kind}{cell} inputs of {j}"] = jax.nn.one_hot(pair, len(pairs_of(j)))
        return weights

    def decode(self, alphas: Alphas) -> EGNASGenotype:
        """Takes the largest logit of each row."""
        options = []
        for cell in range(self.cells):
            for kind in KINDS:
                best = jnp.argmax(alphas[f"{kind}{cell}"], axis=-1).reshape(self.vertices, 2)
                for j in self._states:
                    name = f"{kind}{cell} inputs of {j}"
                    pair = jnp.argmax(alphas[name], axis=-1) if name in alphas else best[0, :1] * 0
                    options += [pair, best[j - 2]]
        return self.from_decisions(jnp.concatenate(options).astype(jnp.int32))

    def graph(self, genotype: EGNASGenotype) -> dict[str, list[Edge]]:
        """Returns the links of each cell between states of nodes, "V0" on, and of edges, "E0" on.

        A link that updates a state of one kind reads the state of the other kind of the same number as well.
        """
        found = {}
        for number, cell in enumerate(self._cells(genotype)):
            for kind, title in zip(KINDS, ("nodes", "edges"), strict=True):
                found[f"cell {number}, states of {title}"] = [
                    Edge(f"{kind}{i}", f"{kind}{j}", operation)
                    for j, links in enumerate(cell[kind], start=2)
                    for i, operation in links
                ]
        return found

    def format(self, genotype: EGNASGenotype) -> str:
        """Writes the text form, the places that a state reads in rising order."""
        return "|".join(
            ";".join(
                f"{kind}:" + ",".join(f"{j}<{i}.{o}" for j, links in enumerate(cell[kind], 2) for i, o in links)
                for kind in KINDS
            )
            for cell in self._cells(genotype)
        )

    def parse(self, text: str) -> EGNASGenotype:
        """Reads the text form.

        Args:
            text: see the class.

        Returns:
            The cells.

        Raises:
            ValueError: `text` is malformed, or a cell is not one of this space.
        """
        cells = unquoted(text).split("|")
        if len(cells) != self.cells:
            raise ValueError(
                f"genotype: expected {self.cells} cells with | between them, got {len(cells)}: {text[:200]!r}"
            )
        shape = (self.cells, 2, self.vertices)
        pairs, operations = np.zeros(shape, np.int32), np.zeros((*shape, 2), np.int32)
        for c, cell in enumerate(cells):
            parts = cell.split(";")
            if len(parts) != 2 or [part.strip()[:2] for part in parts] != ["V:", "E:"]:
                raise ValueError(f"genotype: expected cells 'V:2<0.max,...;E:2<0.film,...', got {cell[:200]!r}")
            for k, (kind, part) in enumerate(zip(KINDS, parts, strict=True)):
                pairs[c, k], operations[c, k] = self._parsed(kind, part.strip()[2:])
        return EGNASGenotype(jnp.asarray(pairs), jnp.asarray(operations))

    def _parsed(self, kind: Kind, text: str) -> tuple[list[int], list[list[int]]]:
        names, links = self._names(kind), [part.strip() for part in text.split(",")]
        if len(links) != 2 * self.vertices:
            raise ValueError(
                f"genotype: expected {2 * self.vertices} links of {kind}, two for each state, got {len(links)}"
            )
        pairs, operations = [], []
        for j in self._states:
            found = []
            for link in links[2 * (j - 2) : 2 * (j - 1)]:
                match = _LINK.fullmatch(link)
                if match is None or int(match[1]) != j or int(match[2]) >= j:
                    raise ValueError(f"genotype: expected a link '{j}<i.operation' with i below {j}, got {link[:80]!r}")
                if match[3] not in names:
                    raise ValueError(unknown(f"genotype: operation of {kind}", match[3], names))
                found.append((int(match[2]), names.index(match[3])))
            (first, a), (second, b) = sorted(found)
            if first == second:
                raise ValueError(f"genotype: expected {kind}{j} to read two different states, got {first} twice")
            pairs.append(pairs_of(j).index((first, second)))
            operations.append([a, b])
        return pairs, operations

    def noise(self, outputs: int = 10) -> RandomGraphs:
        """Returns random graphs of the size of small molecules, with features of nodes and edges."""
        return RandomGraphs("graph", nodes=16, degree=2, node_features=8, edge_features=4, outputs=outputs)

    def network(
        self,
        genotype: EGNASGenotype | None,
        size: EGNASSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> EGNASNetwork:
        """Returns the network of some cells, or of all links and operations.

        Args:
            genotype: concrete cells, or None for the one-shot network.
            size: channels.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None
        if genotype is not None:
            choices = tuple(tuple(tuple(cell[kind]) for kind in KINDS) for cell in self._cells(genotype))
        return EGNASNetwork(size, outputs, style, execution, self.family, self.cells, self.vertices, choices)

    def _cells(self, genotype: EGNASGenotype) -> list[_Cell]:
        genotype, cells = checked(self, genotype), []
        for c in range(self.cells):
            cell: _Cell = {}
            for k, kind in enumerate(KINDS):
                cell[kind] = []
                for v in range(self.vertices):
                    first, second = pairs_of(v + 2)[int(genotype.pairs[c, k, v])]
                    a, b = (self._names(kind)[int(o)] for o in genotype.operations[c, k, v])
                    cell[kind].append(((first, a), (second, b)))
            cells.append(cell)
        return cells
