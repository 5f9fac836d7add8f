"""NAS-Bench-Graph (Qin et al., NeurIPS 2022): four nodes, nine operations, 26,206 graph networks."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data import RandomGraphs
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import nasbench_graph_text as text_form
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked
from nasi_jax.spaces.nasbench_graph_network import NASBenchGraphNetwork, NASBenchGraphSize
from nasi_jax.spaces.nasbench_graph_text import NODES, OPERATIONS

_Size = NASBenchGraphSize

NASBENCH_GRAPH_SIZES = {
    "cora": _Size(256, pre=False, post=True),
    "citeseer": _Size(256, pre=False, post=True),
    "pubmed": _Size(128, pre=False, post=False),
    "cs": _Size(128, pre=True, post=False),
    "physics": _Size(256, pre=True, post=False),
    "photo": _Size(128, pre=False, post=False),
    "computers": _Size(64, pre=True, post=True),
    "arxiv": _Size(128, pre=False, post=True),
}
"""Sizes of the benchmark's networks for its data sets, with which they have as many parameters as its tables say."""


@struct.dataclass(eq=False)
class NASBenchGraphGenotype(Genotype):
    """Four nodes.

    Attributes:
        links: (4,) int32, for node k = 1 to 4 the node that it reads, 0 to k - 1, of which 0 is the network's input.
        operations: (4,) int32, for each node an index into `OPERATIONS`.
    """

    links: jax.Array
    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBenchGraph(SearchSpace):
    """The NAS-Bench-Graph space; see `nasi_jax.spaces.SearchSpace` for the contract.

    Each node reads one node before it, and those that no other reads are the output. Different lists of inputs and
    operations may compute the same function: there are 157,464 genotypes, of which `canonical` makes 26,206, those of
    the benchmark's tables, and one of four skips, a linear model of the features. The text form is that of the tables,
    ``0012|gat|fc|sage|cheb``.

    References:
        Qin, Zhang, Wang, Zhang and Zhu, "NAS-Bench-Graph: Benchmarking graph neural architecture search", NeurIPS 2022.
    """

    Size: ClassVar[type] = NASBenchGraphSize
    search_size: ClassVar[NASBenchGraphSize] = NASBenchGraphSize(hidden=64)
    evaluation_size: ClassVar[NASBenchGraphSize] = NASBenchGraphSize()

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbench-graph"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""
        return OPERATIONS

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        names = {f"input of {k}": (str(k),) for k in range(2, NODES + 1)}
        return {"operations": tuple(str(k) for k in range(1, NODES + 1))} | names

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        names = {f"input of {k}": ("input", *map(str, range(1, k))) for k in range(2, NODES + 1)}
        return {"operations": OPERATIONS} | names

    @property
    def additive(self) -> bool:
        """False: what an operation costs depends on the width of what it reads."""
        return False

    @property
    def decisions(self) -> tuple[int, ...]:
        """The operation of each node, then what the nodes from the second on read."""
        return (len(OPERATIONS),) * NODES + tuple(range(2, NODES + 1))

    def to_decisions(self, genotype: NASBenchGraphGenotype) -> jax.Array:
        """Returns the (4,) operations, then the (3,) inputs."""
        return jnp.concatenate([genotype.operations, genotype.links[1:]])

    def from_decisions(self, options: jax.Array) -> NASBenchGraphGenotype:
        """Returns the architecture of (7,) options."""
        first = options[:1] * 0
        return NASBenchGraphGenotype(jnp.concatenate([first, options[NODES:]]), options[:NODES])

    def alphas(self) -> Alphas:
        """Returns zeros (4, 9) for "operations", and (1, k) for the input of each node k from the second on."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in self.choices.items()}

    def canonical(self, genotype: NASBenchGraphGenotype) -> str:
        """Writes the architecture of the benchmark's tables that computes the same function."""
        return text_form.canonical(*self._tuples(genotype))

    def listed(self, genotype: NASBenchGraphGenotype) -> str:
        """Returns the canonical form; the benchmark's tables have each function once."""
        return self.canonical(genotype)

    def encode(self, genotype: NASBenchGraphGenotype) -> Weights:
        """Returns a one in each row."""
        genotype = checked(self, genotype)
        inputs = {f"input of {k}": jax.nn.one_hot(genotype.links[k - 1 : k], k) for k in range(2, NODES + 1)}
        return {"operations": jax.nn.one_hot(genotype.operations, len(OPERATIONS))} | inputs

    def decode(self, alphas: Alphas) -> NASBenchGraphGenotype:
        """Takes the largest logit of each row."""
        inputs = [jnp.argmax(alphas[f"input of {k}"], axis=-1) for k in range(2, NODES + 1)]
        operations = jnp.argmax(alphas["operations"], axis=-1)
        return self.from_decisions(jnp.concatenate([operations, *inputs]).astype(jnp.int32))

    def graph(self, genotype: NASBenchGraphGenotype) -> dict[str, list[Edge]]:
        """Returns the input of each node with its operation, and what leads to the output."""
        links, operations = self._tuples(genotype)
        names = ("input", *map(str, range(1, NODES + 1)))
        read = [
            Edge(names[i], names[k], OPERATIONS[o]) for k, (i, o) in enumerate(zip(links, operations, strict=True), 1)
        ]
        return {"cell": read + [Edge(names[k], "output", "") for k in range(1, NODES + 1) if k not in links]}

    def format(self, genotype: NASBenchGraphGenotype) -> str:
        """Writes inputs and operations as they are, which need not be the canonical form."""
        return text_form.written(*self._tuples(genotype))

    def parse(self, text: str) -> NASBenchGraphGenotype:
        """Reads inputs and operations; see `nasi_jax.spaces.nasbench_graph_text.parse`."""
        links, operations = text_form.parse(text)
        return NASBenchGraphGenotype(jnp.array(links, jnp.int32), jnp.array(operations, jnp.int32))

    def noise(self, outputs: int = 10) -> RandomGraphs:
        """Returns the nodes of random graphs with as many neighbours as in citation networks."""
        return RandomGraphs("node", nodes=512, degree=4, node_features=64, outputs=outputs)

    def network(
        self,
        genotype: NASBenchGraphGenotype | None,
        size: NASBenchGraphSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBenchGraphNetwork:
        """Returns the network of one architecture, with the parameters that the benchmark counts, or of all.

        Args:
            genotype: a concrete architecture, or None for the one-shot network.
            size: channels and layers around the nodes.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else self._tuples(genotype)
        return NASBenchGraphNetwork(size, outputs, style, execution, choices)

    def _tuples(self, genotype: NASBenchGraphGenotype) -> tuple[tuple[int, ...], tuple[int, ...]]:
        genotype = checked(self, genotype)
        return tuple(int(i) for i in genotype.links), tuple(int(i) for i in genotype.operations)
