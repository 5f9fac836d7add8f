"""NAS-Bench-201 (Dong and Yang, ICLR 2020): 4 nodes, 6 edges, 5 operations, 15,625 cells."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import (
    RUNNING_STATISTICS,
    BatchNorm,
    ConvNormWeights,
    Dense,
    ReLUConvNorm,
    ResidualReduction,
    Stem,
    Style,
    channel_scale,
    in_turn,
    is_plain,
    observe,
    relu_conv_norm,
    scaled_relu_conv_norm,
)
from nasi_jax.programs import Execution, average_pool, switch
from nasi_jax.spaces import nasbench201_text
from nasi_jax.spaces.base import (
    Alphas,
    Edge,
    Genotype,
    Network,
    SearchSpace,
    Weights,
    check_images,
    check_positive,
    checked,
)
from nasi_jax.spaces.nasbench201_text import EDGES, OPERATIONS

STAGES = 3
_WINDOWS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
_NODES = 4
_NONE = OPERATIONS.index("none")


@struct.dataclass(eq=False)
class NASBench201Genotype(Genotype):
    """A cell of NAS-Bench-201.

    Attributes:
        operations: (6,) int32, for each of `EDGES` an index into `OPERATIONS`.
    """

    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBench201Size:
    """Size of a network; the defaults are the benchmark's.

    Attributes:
        channels: channels of the first stage; they double at each later one.
        cells: cells in each of the three stages.

    Raises:
        ValueError: one of them is no positive integer.
    """

    channels: int = 16
    cells: int = 5

    def __post_init__(self) -> None:
        """Checks both."""
        check_positive(self, channels=1, cells=1)


@dataclasses.dataclass(frozen=True)
class NASBench201(SearchSpace):
    """The NAS-Bench-201 space; see `nasi_jax.spaces.SearchSpace` for the contract.

    The text form is the benchmark's: ``|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|avg_pool_3x3~2|``.

    References:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
    """

    Size: ClassVar[type] = NASBench201Size
    search_size: ClassVar[NASBench201Size] = NASBench201Size(channels=8)
    evaluation_size: ClassVar[NASBench201Size] = NASBench201Size()

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbench201"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""
        return OPERATIONS

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """The six edges."""
        return {"cell": tuple(f"{i}→{j}" for i, j in EDGES)}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The operations."""
        return {"cell": OPERATIONS}

    @property
    def additive(self) -> bool:
        """True: each edge has an operation of its own."""
        return True

    @property
    def decisions(self) -> tuple[int, ...]:
        """Five operations for each of six edges: 15,625 cells."""
        return (len(OPERATIONS),) * len(EDGES)

    def to_decisions(self, genotype: NASBench201Genotype) -> jax.Array:
        """Returns the (6,) operations."""
        return genotype.operations

    def from_decisions(self, options: jax.Array) -> NASBench201Genotype:
        """Returns the cell of (6,) operations."""
        return NASBench201Genotype(options)

    def alphas(self) -> Alphas:
        """Returns ``{"cell": zeros (6, 5)}``."""
        return {"cell": jnp.zeros((len(EDGES), len(OPERATIONS)))}

    def canonical(self, genotype: NASBench201Genotype) -> str:
        """Names the function of a cell: the sum of the paths to its output, without `none` and with skips taken."""
        operations = dict(zip(EDGES, checked(self, genotype).operations, strict=True))
        nodes = [["x"]]  # the terms of each node's sum
        for target in range(1, _NODES):
            terms: list[str] = []
            for source in range(target):
                operation = OPERATIONS[operations[source, target]]
                if operation == "skip_connect":
                    terms += nodes[source]
                elif operation != "none" and nodes[source]:
                    terms.append(f"{operation}({'+'.join(nodes[source])})")
            nodes.append(sorted(terms))
        return "+".join(nodes[-1])

    def encode(self, genotype: NASBench201Genotype) -> Weights:
        """Returns ``{"cell": (6, 5)}`` with a one in each row."""
        return {"cell": jax.nn.one_hot(checked(self, genotype).operations, len(OPERATIONS))}

    def decode(self, alphas: Alphas) -> NASBench201Genotype:
        """Takes the largest logit of each edge."""
        return NASBench201Genotype(jnp.argmax(alphas["cell"], axis=-1).astype(jnp.int32))

    def graph(self, genotype: NASBench201Genotype) -> dict[str, list[Edge]]:
        """Returns the six edges between the nodes "0", the input, and "3", the output."""
        indices = checked(self, genotype).operations
        return {"cell": [Edge(str(i), str(j), OPERATIONS[k]) for (i, j), k in zip(EDGES, indices, strict=True)]}

    def format(self, genotype: NASBench201Genotype) -> str:
        """Writes the benchmark's arch string."""
        return nasbench201_text.arch_string([OPERATIONS[index] for index in checked(self, genotype).operations])

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


class Cell(nn.Module):
    """A NAS-Bench-201 cell. A node is the sum of its incoming edges.

    The edges that leave one node share its ReLU, its pooling and, for each window size, one convolution.

    Attributes:
        features: channels of the input and of every node.
        choices: for each edge the index of its only operation, or None to build all of them.
        style: see `nasi_jax.nn.Style`.
        execution: see `NASBench201Network`.
    """

    features: int
    choices: tuple[int, ...] | None = None
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array | None = None) -> jax.Array:
        """Maps (batch, height, width, features) to the same shape; `weights` is (6, 5), or None where all are one."""
        nodes: list[jax.Array | None] = [x, None, None, None]
        for source in range(_NODES - 1):
            # x * 0 and not a constant: XLA folds convolutions of constants at compile time, for minutes
            node = nodes[source]
            value = x * 0 if node is None else node
            for edge, output in self._outgoing(value, source, weights):
                target = EDGES[edge][1]
                total = nodes[target]
                nodes[target] = output if total is None else total + output
        return x * 0 if nodes[-1] is None else nodes[-1]

    def _outgoing(self, x: jax.Array, source: int, weights: jax.Array | None) -> list[tuple[int, jax.Array]]:
        """Returns (edge, weighted output) of the operations that read node `source`; `none` is left out."""
        edges = [edge for edge in range(len(EDGES)) if EDGES[edge][0] == source]
        if self.execution.discrete == "branches" and weights is not None and RUNNING_STATISTICS not in self.variables:
            return self._chosen(x, source, edges, weights)
        built = [
            (edge, operation)
            for edge in edges
            for operation in (OPERATIONS if self.choices is None else (OPERATIONS[self.choices[edge]],))
        ]
        convolutions = {
            (edge, operation): self._convolution(edge, operation, x)
            for edge, operation in built
            if operation in _WINDOWS
        }
        if self.execution.discrete != "no" and weights is not None:
            branches, scales = _merge(edges, convolutions, weights)
        else:
            branches = list(convolutions.values())
            scales = [(edge, _weight(weights, edge, operation)) for edge, operation in convolutions]
        uses = sum(scale for _, scale in scales)
        convolved = relu_conv_norm(self, f"node_{source}", x, branches, self.style, self.execution, uses=uses)
        outputs = [(edge, _times(scale, y)) for (edge, scale), y in zip(scales, convolved, strict=True)]
        pooled = average_pool(x) if any(operation == "avg_pool_3x3" for _, operation in built) else x
        for edge, operation in built:
            if operation == "skip_connect":
                outputs.append((edge, _times(_weight(weights, edge, operation), x)))
            elif operation == "avg_pool_3x3":
                outputs.append((edge, _times(_weight(weights, edge, operation), pooled)))
        return outputs

    def _chosen(self, x: jax.Array, source: int, edges: list[int], weights: jax.Array) -> list[tuple[int, jax.Array]]:
        """Returns (edge, output) of the edges that leave node `source`, each of its one operation."""
        observe(self, f"node_{source}", x, sum(_weight(weights, e, o) for e in edges for o in _WINDOWS))
        choices = jnp.argmax(weights, axis=-1)
        if is_plain(self):
            choices = _leading_on(choices)
        outputs = []
        for edge in edges:
            convolutions = {operation: self._convolution(edge, operation, x) for operation in _WINDOWS}
            factors = channel_scale(self, f"edge_{source}_{EDGES[edge][1]}_conv", x.shape, x.dtype)
            outputs.append((edge, switch(choices[edge], _operations(self.style), x, convolutions, factors)))
        return outputs

    def _convolution(self, edge: int, operation: str, x: jax.Array) -> ConvNormWeights:
        source, target = EDGES[edge]
        return ReLUConvNorm(
            self.features,
            _WINDOWS[operation],
            style=self.style,
            name=f"edge_{source}_{target}_{operation}",
        ).weights(x.shape[-1], x.dtype)


@functools.cache
def _operations(style: Style) -> list[Callable[..., jax.Array]]:
    """Returns the operations as functions of a node, the edge's convolutions, and factors of their outputs or None."""

    def convolution(name: str) -> Callable[..., jax.Array]:
        return lambda x, weights, factors: scaled_relu_conv_norm(x, weights[name], factors, style)

    operations: dict[str, Callable[..., jax.Array]] = {
        "none": lambda x, *_: jnp.zeros_like(x),
        "skip_connect": lambda x, *_: x,
        "avg_pool_3x3": lambda x, *_: average_pool(x),
    }
    return [operations.get(name) or convolution(name) for name in OPERATIONS]


def _leading_on(choices: jax.Array) -> jax.Array:
    """Returns the (6,) operations with `none` for those on no path to the output, whose gradients are zeros as well."""
    leads_on = {_NODES - 1: jnp.array(True)}
    for node in reversed(range(1, _NODES - 1)):
        outgoing = [(edge, target) for edge, (source, target) in enumerate(EDGES) if source == node]
        ways = [leads_on[target] & (choices[edge] != _NONE) for edge, target in outgoing]
        leads_on[node] = jnp.any(jnp.stack(ways))
    return jnp.where(jnp.stack([leads_on[target] for _, target in EDGES]), choices, _NONE)


def _weight(weights: jax.Array | None, edge: int, operation: str) -> jax.Array | float:
    return 1.0 if weights is None else weights[edge, OPERATIONS.index(operation)]


def _times(weight: jax.Array | float, x: jax.Array) -> jax.Array:
    return x if isinstance(weight, float) else weight * x


def _merge(
    edges: list[int], convolutions: dict[tuple[int, str], ConvNormWeights], weights: jax.Array
) -> tuple[list[ConvNormWeights], list[tuple[int, jax.Array]]]:
    """Merges each edge's convolutions into a 3x3 one: at one-hot weights it is whichever was chosen, or nothing."""
    branches, scales = [], []
    for edge in edges:
        total, merged = weights[edge, 0] * 0, None
        for operation, window in _WINDOWS.items():
            weight, pad = weights[edge, OPERATIONS.index(operation)], (3 - window) // 2
            branch = convolutions[edge, operation]
            kernel = jnp.pad(branch.kernel, ((pad, pad), (pad, pad), (0, 0), (0, 0)))
            part = jax.tree.map(lambda leaf, w=weight: w * leaf, branch._replace(kernel=kernel))
            merged = part if merged is None else jax.tree.map(jnp.add, merged, part)
            total = total + weight
        branches.append(merged)
        scales.append((edge, total))
    return branches, scales


class NASBench201Network(Network):
    """The benchmark's network around a cell: stem, 3 stages of cells with residual reductions between, head.

    Attributes:
        size: channels and cells.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`. Where weights are one-hot, an edge's two convolutions are one, or
            the program branches to the operation that each edge has.
        choices: for each edge the index of its only operation, or None for the one-shot network.
    """

    capabilities = frozenset({"blocks", "branches"})

    choices: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weights: Weights | None = None) -> jax.Array:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours), height and width divisible by 4.
            weights: ``{"cell": (6, 5)}`` for the one-shot network, None for a derived one.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is not of that shape.
        """
        check_images(x, 4)
        size: NASBench201Size = self.size
        style, execution = self.style, self.execution
        x = Stem(size.channels, style, name="stem")(x)
        for stage in range(STAGES):
            features = size.channels * 2**stage
            if stage > 0:
                x = ResidualReduction(features, style, execution, name=f"reduction_{stage}")(x)
            names = [f"stage_{stage}_cell_{i}" for i in range(size.cells)]
            cell = functools.partial(Cell, features, self.choices, style, execution)
            if execution.discrete == "branches" and weights is not None and is_plain(self):
                params = self.variables["params"]
                x = in_turn(cell(parent=None), [params[name] for name in names], x, weights["cell"])
            else:
                for name in names:
                    x = cell(name=name)(x, None if weights is None else weights["cell"])
        x = BatchNorm(style, name="norm")(x)
        observe(self, "last", x)
        return Dense(self.outputs, style, name="head")(nn.relu(x).mean(axis=(1, 2)))
