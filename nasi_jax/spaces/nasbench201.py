"""NAS-Bench-201 (Dong and Yang, ICLR 2020): 4 nodes, 6 edges, 5 operations, 15,625 cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import nasbench201_text
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked
from nasi_jax.spaces.nasbench201_network import NASBench201Network, NASBench201Size
from nasi_jax.spaces.nasbench201_text import EDGES, OPERATIONS

_NODES = 4


@struct.dataclass(eq=False)
class NASBench201Genotype(Genotype):
    """A cell of NAS-Bench-201.

    Attributes:
        operations: (6,) int32, for each of `EDGES` an index into `OPERATIONS`.
    """

    operations: jax.Array


class SixEdges(SearchSpace):
    """What spaces of a cell of four nodes and six edges, each with an operation of its own, have in common.

    Attributes:
        Genotype: class of the genotypes, whose one array is the (6,) operations.
        identities: whether a skip from the input of a cell hands it on as it is.
    """

    Genotype: ClassVar[type]
    identities: ClassVar[bool] = True

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """The six edges."""
        return {"cell": tuple(f"{i}→{j}" for i, j in EDGES)}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The operations."""
        return {"cell": self.operations}

    @property
    def additive(self) -> bool:
        """True: each edge has an operation of its own."""
        return True

    @property
    def decisions(self) -> tuple[int, ...]:
        """The operation of each of six edges."""
        return (len(self.operations),) * len(EDGES)

    def to_decisions(self, genotype: Any) -> jax.Array:
        """Returns the (6,) operations."""
        return genotype.operations

    def from_decisions(self, options: jax.Array) -> Any:
        """Returns the cell of (6,) operations."""
        return self.Genotype(options)

    def alphas(self) -> Alphas:
        """Returns ``{"cell": zeros (6, operations)}``."""
        return {"cell": jnp.zeros((len(EDGES), len(self.operations)))}

    def canonical(self, genotype: Any) -> str:
        """Names the function of a cell: the sum of the paths to its output, without `none` and with skips taken."""
        operations = dict(zip(EDGES, self.names(genotype), strict=True))
        nodes = [["x"]]  # the terms of each node's sum
        for target in range(1, _NODES):
            terms: list[str] = []
            for source in range(target):
                operation = operations[source, target]
                if operation == "skip_connect" and (source or self.identities):
                    terms += nodes[source]
                elif operation != "none" and nodes[source]:
                    terms.append(f"{operation}({'+'.join(nodes[source])})")
            nodes.append(sorted(terms))
        return "+".join(nodes[-1])

    def encode(self, genotype: Any) -> Weights:
        """Returns ``{"cell": (6, operations)}`` with a one in each row."""
        return {"cell": jax.nn.one_hot(checked(self, genotype).operations, len(self.operations))}

    def decode(self, alphas: Alphas) -> Any:
        """Takes the largest logit of each edge."""
        return self.Genotype(jnp.argmax(alphas["cell"], axis=-1).astype(jnp.int32))

    def graph(self, genotype: Any) -> dict[str, list[Edge]]:
        """Returns the six edges between the nodes "0", the input, and "3", the output."""
        return {"cell": [Edge(str(i), str(j), k) for (i, j), k in zip(EDGES, self.names(genotype), strict=True)]}

    @property
    def subsets(self) -> dict[str, Callable[[Any], bool]]:
        """The cells in which every operation but `none` is on a path from the input to the output, "valid"."""
        return {"valid": self._is_valid}

    def _is_valid(self, genotype: Any) -> bool:
        there = [edge for edge, name in zip(EDGES, self.names(genotype), strict=True) if name != "none"]
        forwards, backwards = {0}, {_NODES - 1}
        for source, target in sorted(there):
            forwards |= {target} if source in forwards else set()
        for source, target in sorted(there, reverse=True):
            backwards |= {source} if target in backwards else set()
        return all(source in forwards and target in backwards for source, target in there)

    def names(self, genotype: Any) -> list[str]:
        """Returns the operation of each edge of a concrete genotype."""
        return [self.operations[index] for index in checked(self, genotype).operations]


@dataclasses.dataclass(frozen=True)
class NASBench201(SixEdges):
    """The NAS-Bench-201 space; see `nasi_jax.spaces.SearchSpace` for the contract.

    The text form is the benchmark's: ``|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|avg_pool_3x3~2|``.

    References:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
    """

    Size: ClassVar[type] = NASBench201Size
    search_size: ClassVar[NASBench201Size] = NASBench201Size(channels=8)
    evaluation_size: ClassVar[NASBench201Size] = NASBench201Size()
    Genotype: ClassVar[type] = NASBench201Genotype

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbench201"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""
        return OPERATIONS

    def format(self, genotype: NASBench201Genotype) -> str:
        """Writes the benchmark's arch string."""
        return nasbench201_text.arch_string(self.names(genotype))

    @property
    def notations(self) -> dict[str, Callable[[NASBench201Genotype], str]]:
        """The benchmark's index, "index", and NASLib's tuple of numbers, "naslib"."""
        return {
            "index": lambda g: str(nasbench201_text.index(self.names(g))),
            "naslib": lambda g: nasbench201_text.naslib(self.names(g)),
        }

    def parse(self, text: str) -> NASBench201Genotype:
        """Reads the benchmark's arch string and other notations; see `nasi_jax.spaces.nasbench201_text`.

        Args:
            text: for example ``|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|``, an index of NATS-Bench, or
                NASLib's ``(4, 3, 2, 1, 0, 3)``.

        Returns:
            The cell.

        Raises:
            ValueError: `text` is malformed, has two readings, or names an unknown operation.
        """
        operations = nasbench201_text.parse(text)
        return NASBench201Genotype(jnp.array([OPERATIONS.index(name) for name in operations], jnp.int32))

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of CIFAR's size."""
        return Gaussian((32, 32, 3), outputs)

    def network(
        self,
        genotype: NASBench201Genotype | None,
        size: NASBench201Size,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBench201Network:
        """Returns the network of one cell, with the parameters that the benchmark counts, or of all operations.

        Args:
            genotype: a concrete cell, or None for the one-shot network.
            size: channels and cells.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else tuple(int(i) for i in checked(self, genotype).operations)
        return NASBench201Network(size, outputs, style, execution, choices)
