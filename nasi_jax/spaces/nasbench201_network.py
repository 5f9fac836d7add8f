"""The network of NAS-Bench-201, and its cell, which other skeletons have too."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.nn import (
    FEATURES,
    RUNNING_STATISTICS,
    BatchNorm,
    ConvNormWeights,
    Dense,
    FactorizedReduction,
    ReLUConvNorm,
    ResidualReduction,
    Stem,
    Style,
    channel_scale,
    dropped,
    handed_on,
    in_turn,
    is_plain,
    observe,
    observe_stage,
    relu_conv_norm,
    scaled_relu_conv_norm,
)
from nasi_jax.programs import Execution, average_pool, switch
from nasi_jax.spaces.base import Network, Weights, check_images, check_positive
from nasi_jax.spaces.nasbench201_text import EDGES, OPERATIONS

STAGES = 3
_WINDOWS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
_NODES = 4
_NONE = OPERATIONS.index("none")


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


class Cell(nn.Module):
    """A NAS-Bench-201 cell. A node is the sum of its incoming edges.

    The edges that leave one node share its ReLU, its pooling and, for each window size, one convolution.

    Attributes:
        features: channels of every node, and of the input where the cell keeps its size.
        choices: for each edge the index of its only operation, or None to build all of them.
        style: see `nasi_jax.nn.Style`.
        execution: see `NASBench201Network`.
        operations: names of the operations, those that an edge chooses from: `OPERATIONS` or the first of them.
        strides: 2 where the edges that leave the input halve the image; skips among them are reductions then.
    """

    features: int
    choices: tuple[int, ...] | None = None
    style: Style = Style()
    execution: Execution = Execution()
    operations: tuple[str, ...] = OPERATIONS
    strides: int = 1

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: jax.Array | None = None, drop_path: jax.typing.ArrayLike | None = None
    ) -> jax.Array:
        """Maps images to nodes.

        Args:
            x: (batch, height, width, features), or of any channels with strides of 2.
            weights: (6, operations), or None where all are one.
            drop_path: probability that an edge is dropped for an example, which takes the random key "drop_path".

        Returns:
            The output node, (batch, height / strides, width / strides, features).
        """
        nodes: list[jax.Array | None] = [x, None, None, None]
        for source in range(_NODES - 1):
            node = nodes[source]
            value = self._nothing(x) if node is None else node
            outgoing = self._outgoing(value, source, weights)
            if drop_path is not None:
                outgoing = self._dropped(outgoing, drop_path)
            for edge, output in outgoing:
                target = EDGES[edge][1]
                total = nodes[target]
                nodes[target] = output if total is None else total + output
        return self._nothing(x) if nodes[-1] is None else nodes[-1]

    def _dropped(
        self, outgoing: list[tuple[int, jax.Array]], probability: jax.typing.ArrayLike
    ) -> list[tuple[int, jax.Array]]:
        """Drops edges as a whole, each for some examples; those that only pass on what they read stay."""
        totals: dict[int, jax.Array] = {}
        for edge, output in outgoing:
            totals[edge] = totals[edge] + output if edge in totals else output
        stays = {
            edge
            for edge, chosen in enumerate(self.choices or ())
            if self.operations[chosen] == "skip_connect" and (self.strides == 1 or EDGES[edge][0] > 0)
        }
        return [
            (edge, y if edge in stays else dropped(self.make_rng("drop_path"), y, probability))
            for edge, y in totals.items()
        ]

    def _nothing(self, x: jax.Array) -> jax.Array:
        # x * 0 and not a constant: XLA folds convolutions of constants at compile time, for minutes
        if self.strides == 1:
            return x * 0
        part = x[:, :: self.strides, :: self.strides, :1] * 0
        return jnp.broadcast_to(part, (*part.shape[:-1], self.features))

    def _outgoing(self, x: jax.Array, source: int, weights: jax.Array | None) -> list[tuple[int, jax.Array]]:
        """Returns (edge, weighted output) of the operations that read node `source`; `none` is left out."""
        edges = [edge for edge in range(len(EDGES)) if EDGES[edge][0] == source]
        strides = 1 if source else self.strides
        untracked = not self.style.tracked or RUNNING_STATISTICS not in self.variables
        if self.execution.discrete == "branches" and weights is not None and untracked:
            return self._chosen(x, source, edges, weights)
        built = [
            (edge, operation)
            for edge in edges
            for operation in (self.operations if self.choices is None else (self.operations[self.choices[edge]],))
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
        convolved = relu_conv_norm(self, f"node_{source}", x, branches, self.style, self.execution, strides, uses=uses)
        outputs = [(edge, _times(scale, y)) for (edge, scale), y in zip(scales, convolved, strict=True)]
        pooled = average_pool(x) if any(operation == "avg_pool_3x3" for _, operation in built) else x
        for edge, operation in built:
            if operation == "skip_connect":
                weight = _weight(weights, edge, operation)
                skipped = x
                if strides > 1:
                    name = f"edge_{source}_{EDGES[edge][1]}_{operation}"
                    skipped = FactorizedReduction(self.features, self.style, name=name)(x, weight)
                outputs.append((edge, _times(weight, skipped)))
            elif operation == "avg_pool_3x3":
                outputs.append((edge, _times(_weight(weights, edge, operation), pooled)))
        return outputs

    def _chosen(self, x: jax.Array, source: int, edges: list[int], weights: jax.Array) -> list[tuple[int, jax.Array]]:
        """Returns (edge, output) of the edges that leave node `source`, each of its one operation."""
        observe(self, f"node_{source}", x, sum(_weight(weights, e, o) for e in edges for o in _WINDOWS))
        choices = jnp.argmax(weights, axis=-1)
        if is_plain(self, self.style):
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

    capabilities = frozenset({"blocks", "branches", "drop_path", "features", "stages"})

    choices: tuple[int, ...] | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: Weights | None = None, drop_path: jax.typing.ArrayLike | None = None
    ) -> jax.Array:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours), height and width divisible by 4.
            weights: ``{"cell": (6, 5)}`` for the one-shot network, None for a derived one.
            drop_path: probability that an edge is dropped for an example, which takes the random key "drop_path".

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is not of that shape.
        """
        check_images(x, 4)
        size: NASBench201Size = self.size
        style, execution = self.style, self.execution
        x, count = handed_on(self, 0, Stem(size.channels, style, name="stem")(x)), 0
        whole = not self.is_mutable_collection(FEATURES)
        for stage in range(STAGES):
            features = size.channels * 2**stage
            if stage > 0:
                count += 1
                x = ResidualReduction(features, style, execution, name=f"reduction_{stage}")(x)
                x = handed_on(self, count, x)
            names = [f"stage_{stage}_cell_{i}" for i in range(size.cells)]
            cell = functools.partial(Cell, features, self.choices, style.in_cells, execution)
            plain = is_plain(self, style.in_cells) and whole and drop_path is None
            if execution.discrete == "branches" and weights is not None and plain:
                params = self.variables["params"]
                x = in_turn(cell(parent=None), [params[name] for name in names], x, weights["cell"])
            else:
                for name in names:
                    count += 1
                    y = cell(name=name)(x, None if weights is None else weights["cell"], drop_path)
                    x = handed_on(self, count, y)
            observe_stage(self, stage, x)
        x = BatchNorm(style, name="norm")(x)
        observe(self, "last", x)
        return Dense(self.outputs, style, name="head")(nn.relu(x).mean(axis=(1, 2)))
