"""The network of the DARTS space: cells that reduce at one and two thirds of the depth, for CIFAR and for ImageNet."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from nasi_jax.nn import (
    BatchNorm,
    Conv,
    Dense,
    FactorizedReduction,
    ReLUConvNorm,
    Style,
    as_program,
    batch_norm,
    detached,
    dropped,
    handed_on,
    is_plain,
    observe_stage,
    relu_conv_norm,
)
from nasi_jax.programs import Execution, add, average_pool, fan_out, max_pool
from nasi_jax.spaces.base import Network, Weights, check_images, check_positive

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The operations of a genotype, in the order of the authors' code."""

KINDS = ("normal", "reduction")
NODES = 4
EDGES = tuple((source, node) for node in range(NODES) for source in range(node + 2))
"""(input, node) of each of the 14 edges of a cell; inputs 0 and 1 are earlier cells, input 2 is node 0."""

Choices = tuple[tuple[tuple[int, str], ...], ...]
"""For the normal and the reduction cell (edge, operation) of the edges that are there."""

StemKind = Literal["cifar", "imagenet"]
"""What comes before the cells: one convolution, or three that halve the image thrice."""

_CONVOLUTIONS = {"sep_conv_3x3": (3, 1), "sep_conv_5x5": (5, 1), "dil_conv_3x3": (3, 2), "dil_conv_5x5": (5, 2)}
"""Window and dilation."""
_POOLS = {"max_pool_3x3": max_pool, "avg_pool_3x3": average_pool}
_READERS = ("skip_connect", *_CONVOLUTIONS)
"""What reads the images of an edge, beside pools."""
_STEM_MULTIPLIER = 3


class Cell(nn.Module):
    """A cell: two preprocessed inputs, four nodes that sum their incoming edges, and their concatenation.

    Attributes:
        features: channels of each node.
        reduction: whether edges from the inputs halve the image.
        after_reduction: whether the cell before this one did, so that the first input is twice as large.
        choices: (edge, operation) of the edges that are there, or None to build all of them.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    reduction: bool
    after_reduction: bool
    choices: tuple[tuple[int, str], ...] | None = None
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        before: jax.Array,
        last: jax.Array,
        weights: jax.Array | None = None,
        drop_path: jax.typing.ArrayLike | None = None,
    ) -> jax.Array:
        """Maps the outputs of the two cells before to (batch, height, width, 4 features).

        Args:
            before: output of the cell before the last.
            last: output of the last cell.
            weights: (14, operations), those of `OPERATIONS` the last ones, or None where all are one.
            drop_path: probability that an edge is dropped for a sample, which takes the random key "drop_path".

        Returns:
            The four nodes, concatenated.
        """
        if self.after_reduction:
            first = FactorizedReduction(self.features, self.style, name="preprocess_0")(before)
        else:
            first = self._preprocessed(before, "preprocess_0")
        second = self._preprocessed(last, "preprocess_1")
        sources: list[jax.Array] = [first, second]
        incoming: dict[int, list[jax.Array]] = {node: [] for node in range(NODES)}
        rows = None if weights is None else _rows(weights)
        for source in range(NODES + 1):
            leaving = _leaving(source, self.choices)
            attributes: dict[str, Any] = {
                "features": self.features,
                "strides": 2 if self.reduction and source < 2 else 1,
                "choices": _chosen(leaving, self.choices),
                "style": self.style,
                "execution": self.execution,
            }
            own_rows = None if rows is None else [rows[edge] for edge in leaving]
            outputs = Edges(**attributes, name=f"from_{source}")(sources[source], own_rows)
            for number, edge in enumerate(leaving):
                for i, y in enumerate(outputs[number]):
                    identity = attributes["choices"][number][i] == "skip_connect" and attributes["strides"] == 1
                    if drop_path is not None and not identity:
                        y = dropped(self.make_rng("drop_path"), y, drop_path)
                    incoming[EDGES[edge][1]].append(y)
            if source > 0:  # all edges into the next node are there
                terms = incoming[source - 1]
                sources.append(add(terms) if terms else _nothing(second, 2 if self.reduction else 1))
        return jnp.concatenate(sources[2:], axis=-1)

    def _preprocessed(self, x: jax.Array, name: str) -> jax.Array:
        return ReLUConvNorm(self.features, 1, style=self.style, execution=self.execution, name=name)(x)


class Edges(nn.Module):
    """The edges that leave one input or node.

    Attributes:
        features: channels.
        strides: 2 where they halve the image.
        choices: for each edge its operations.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    strides: int
    choices: tuple[tuple[str, ...], ...]
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        x: jax.Array | dict[str, jax.Array],
        rows: list[jax.Array] | None = None,
        pools: dict[str, jax.Array] | None = None,
    ) -> list[list[jax.Array]]:
        """Applies the operations.

        Args:
            x: images, (batch, height, width, features), or the same for each of `_READERS` by itself.
            rows: for each edge the weights of its operations, where it has all of them; else None.
            pools: what `_pools` gives, where it is known already.

        Returns:
            For each edge the outputs of its operations, or where there are weights a list of their sums alone.
        """
        if isinstance(x, jax.Array) and rows is not None and self.execution.blocks and is_plain(self, self.style):
            return self._one_by_one(x, rows)
        images = x if isinstance(x, dict) else dict.fromkeys(_READERS, x)
        outputs: list[dict[str, jax.Array]] = [{} for _ in self.choices]

        def edges_with(operation: str) -> list[int]:
            return [edge for edge, operations in enumerate(self.choices) if operation in operations]

        def weight(edge: int, operation: str) -> jax.Array | None:
            return None if rows is None else rows[edge][OPERATIONS.index(operation)]

        if pools is None:
            names = [name for name in _POOLS if edges_with(name)]
            pools = _pools(self, images["skip_connect"], names, self.strides)
        for name, pooled in pools.items():
            for edge in edges_with(name):
                outputs[edge][name] = _times(weight(edge, name), pooled)
        for edge in edges_with("skip_connect"):
            reduced = images["skip_connect"]
            if self.strides == 2:
                uses = 1.0 if rows is None else weight(edge, "skip_connect")
                reduced = FactorizedReduction(self.features, self.style, name=f"edge_{edge}_skip")(reduced, uses)
            outputs[edge]["skip_connect"] = _times(weight(edge, "skip_connect"), reduced)
        for name, (window, dilation) in _CONVOLUTIONS.items():
            edges, image = edges_with(name), images[name]
            part = (self.features, window, self.strides, self.style, dilation, True, self.execution)
            branches = [
                ReLUConvNorm(*part, name=f"edge_{e}_{name}").weights(image.shape[-1], image.dtype) for e in edges
            ]
            factors = [weight(edge, name) for edge in edges]
            if name.startswith("dil"):
                branches = [b if f is None else b.times(f) for b, f in zip(branches, factors, strict=True)]
            uses: Any = sum(1.0 if factor is None else factor for factor in factors)
            found = relu_conv_norm(
                self, name, image, branches, self.style, self.execution, self.strides, dilation, uses
            )
            for edge, factor, y in zip(edges, factors, found, strict=True):
                if name.startswith("sep"):
                    again = (self.features, window, 1, self.style, 1, True, self.execution)
                    y = ReLUConvNorm(*again, name=f"edge_{edge}_{name}_again")(y, factor)
                outputs[edge][name] = y
        if rows is None:
            return [[found[o] for o in operations] for operations, found in zip(self.choices, outputs, strict=True)]
        return [[add([found[operation] for operation in OPERATIONS])] for found in outputs]

    def _one_by_one(self, x: jax.Array, rows: list[jax.Array]) -> list[list[jax.Array]]:
        """Calls one program for every edge, which is the same for all that leave such images."""
        # so that what all of them give back comes out of their programs, and is added at once
        own, *others = fan_out(x, 1 + len(rows) * len(_READERS))
        images = iter(others)
        pooled = as_program(_Pools(self.strides, self.style, parent=None), {}, own)
        pools = {name: iter(fan_out(y, len(rows))) for name, y in pooled.items()}
        edge = Edges(self.features, self.strides, self.choices[:1], self.style, self.execution, parent=None)
        params, outputs = self.variables["params"], []
        for e, row in enumerate(rows):
            prefix = f"edge_{e}_"
            kernels = {
                f"edge_0_{name.removeprefix(prefix)}": leaf for name, leaf in params.items() if name.startswith(prefix)
            }
            read = {name: next(images) for name in _READERS}
            outputs += as_program(edge, kernels, read, [row], {name: next(found) for name, found in pools.items()})
        return outputs


class _Pools(nn.Module):
    strides: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return _pools(self, x, [*_POOLS], self.strides)


def _pools(module: nn.Module, x: jax.Array, names: list[str], strides: int) -> dict[str, jax.Array]:
    """Returns the outputs of the pools."""
    outputs = {name: _POOLS[name](x, 3, strides) for name in names}
    style: Style = module.style  # type: ignore[attr-defined]
    if style.affine:
        return outputs
    return {name: batch_norm(module, name, y, None, None, style) for name, y in outputs.items()}


def _times(weight: jax.Array | None, x: jax.Array) -> jax.Array:
    return x if weight is None else weight * x


@jax.jit
def _rows(weights: jax.Array) -> list[jax.Array]:
    """Returns for each edge the weights of `OPERATIONS`, the last ones."""
    return [*weights[:, -len(OPERATIONS) :]]


def _leaving(source: int, choices: tuple[tuple[int, str], ...] | None) -> list[int]:
    """Returns the edges that leave an input or node, and once more those that an architecture has twice."""
    edges = [edge for edge in range(len(EDGES)) if EDGES[edge][0] == source]
    twice = [] if choices is None else [edge for edge in edges if sum(e == edge for e, _ in choices) > 1]
    return edges + twice


def _chosen(leaving: list[int], choices: tuple[tuple[int, str], ...] | None) -> tuple[tuple[str, ...], ...]:
    """Returns the operations of each edge, of one that is there twice the second one where it comes again."""
    if choices is None:
        return tuple(OPERATIONS for _ in leaving)
    operations = {edge: iter([operation for e, operation in choices if e == edge]) for edge in leaving}
    return tuple(tuple(itertools.islice(operations[edge], 1)) for edge in leaving)


def _nothing(x: jax.Array, strides: int) -> jax.Array:
    # not a constant: XLA folds convolutions of constants at compile time, for minutes
    return x[:, ::strides, ::strides] * 0


class _ImageNetStem(nn.Module):
    features: int
    style: Style
    execution: Execution

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps (batch, height, width, colours) to images with sides / 4 and with sides / 8."""
        x = Conv(self.features // 2, 3, style=self.style, strides=2, name="conv_0")(x)
        x = BatchNorm(self.style, name="norm_0")(x)
        before, last = (
            ReLUConvNorm(self.features, 3, 2, self.style, execution=self.execution, name=f"conv_{i}") for i in (1, 2)
        )
        y = before(x)
        return y, last(y)


class _AuxiliaryHead(nn.Module):
    outputs: int
    strides: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels), sides of at least 5, to logits."""
        if min(x.shape[1:3]) < 5:
            raise ValueError(f"auxiliary: expected images of at least 5x5 after the last reduction, got {x.shape[1:3]}")
        x = nn.avg_pool(nn.relu(x), (5, 5), (self.strides, self.strides))
        x = nn.relu(BatchNorm(self.style, name="norm_0")(Conv(128, 1, style=self.style, name="conv_0")(x)))
        # the authors' 2x2 convolution of a 2x2 image
        x = x.reshape(len(x), 1, 1, -1)
        x = nn.relu(BatchNorm(self.style, name="norm_1")(Conv(768, 1, style=self.style, name="conv_1")(x)))
        return Dense(self.outputs, self.style, name="head")(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class DARTSSize:
    """Size of a network; the defaults are those of the authors' search.

    Attributes:
        channels: channels of a node in the first cells; they double at each reduction.
        cells: number of cells, at least 3. Those at one and two thirds of the depth halve the image.
        stem: what reads the image: one convolution, or three that halve it three times.

    Raises:
        ValueError: one of them is out of range.
    """

    channels: int = 16
    cells: int = 8
    stem: StemKind = "cifar"

    def __post_init__(self) -> None:
        """Checks all of them."""
        check_positive(self, channels=1, cells=3)
        if self.stem not in get_args(StemKind):
            raise ValueError(f"stem: expected one of {get_args(StemKind)}, got {self.stem!r}")
        if self.stem == "imagenet" and self.channels % 2:
            raise ValueError(f"channels: expected an even number with stem='imagenet', got {self.channels}")


class DARTSNetwork(Network):
    """Stem, cells, mean over the image, linear head.

    Where the style's `affine` is off, pools are normalised, as in the authors' search; where it is on, they are not, as
    in their evaluation.

    Attributes:
        size: channels, cells and stem.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        choices: for both kinds of cell (edge, operation) of the edges that are there, or None for all of them.
        auxiliary: whether a second head reads the output of the second reduction and its logits are returned too.
    """

    capabilities = frozenset({"blocks", "drop_path", "auxiliary", "features", "stages"})

    choices: Choices | None = None
    auxiliary: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: Weights | None = None, drop_path: jax.typing.ArrayLike | None = None
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours), with sides divisible by 4, or 32 with the stem for ImageNet.
            weights: ``{"normal": (14, operations), "reduction": ...}`` for the one-shot network, else None.
            drop_path: probability that an edge is dropped for a sample, which takes the random key "drop_path".

        Returns:
            Logits, (batch, outputs), and those of the auxiliary head where there is one.

        Raises:
            ValueError: `x` is not of that shape.
        """
        size: DARTSSize = self.size
        check_images(x, 4 if size.stem == "cifar" else 32)
        style = self.style
        if size.stem == "cifar":
            stem = Conv(_STEM_MULTIPLIER * size.channels, 3, style=style, name="stem_conv")(x)
            before = last = BatchNorm(style, name="stem_norm")(stem)
        else:
            before, last = _ImageNetStem(size.channels, style, self.execution, name="stem")(x)
        before, last = detached(self, before), handed_on(self, 0, last)
        features, after_reduction, auxiliary = size.channels, size.stem == "imagenet", None
        reductions = (size.cells // 3, 2 * size.cells // 3)
        for i in range(size.cells):
            reduction = i in reductions
            if reduction:
                observe_stage(self, reductions.index(i), last)
            features *= 2 if reduction else 1
            cell = Cell(
                features,
                reduction,
                after_reduction,
                None if self.choices is None else self.choices[int(reduction)],
                style.in_cells,
                self.execution,
                name=f"cell_{i}",
            )
            y = cell(before, last, None if weights is None else weights[KINDS[reduction]], drop_path)
            before, last = detached(self, last), handed_on(self, i + 1, y)
            after_reduction = reduction
            if self.auxiliary and i == reductions[1]:
                strides = 3 if size.stem == "cifar" else 2
                auxiliary = _AuxiliaryHead(self.outputs, strides, style, name="auxiliary")(last)
        observe_stage(self, 2, last)
        logits = Dense(self.outputs, style, name="head")(last.mean(axis=(1, 2)))
        return logits if auxiliary is None else (logits, auxiliary)
