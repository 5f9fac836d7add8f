"""The network of NAS-Bench-1Shot1: the stem, three stacks of cells and the head of NAS-Bench-101."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.nn import (
    RELU_GAIN,
    BatchNorm,
    ConvNormReLU,
    Dense,
    Style,
    as_block,
    channel_scale,
    observe,
    observe_stage,
    weight,
)
from nasi_jax.programs import Execution, max_pool
from nasi_jax.spaces.base import Network, Weights, check_images, check_positive
from nasi_jax.spaces.nasbench101_text import OPERATIONS

STACKS = 3
_WINDOWS = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}


class Choices(NamedTuple):
    """One cell, its loose ends among it.

    Attributes:
        operations: operation of each choice block.
        parents: for each block and then the output the nodes that it reads; 0 is the cell's input, 1 the first block.
    """

    operations: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    @property
    def used(self) -> set[int]:
        """The nodes on which the output depends, itself among them."""
        found = {len(self.parents)}
        for node in range(len(self.parents), 0, -1):
            found |= set(self.parents[node - 1]) if node in found else set()
        return found


class Block(nn.Module):
    """A choice block.

    Attributes:
        features: channels of the input and the output.
        operations: the operations that are built.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    operations: tuple[str, ...]
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: jax.Array, row: jax.Array | None, uses: jax.Array | float) -> jax.Array:
        """Maps (batch, height, width, features) to the same shape.

        Args:
            x: the sum of the nodes that the block reads.
            row: a weight for each operation, or None for a single one of weight one.
            uses: one where the cell's output depends on the block, see `nasi_jax.nn.observe`.

        Returns:
            The weighted sum of the operations.
        """
        terms = []
        for i, operation in enumerate(self.operations):
            factor = 1.0 if row is None else row[i]
            if operation in _WINDOWS:
                y = ConvNormReLU(self.features, _WINDOWS[operation], self.style, name=operation)(x, uses * factor)
            else:
                y = max_pool(x)
            terms.append(y if row is None else factor * y)
        return sum(terms[1:], terms[0])


class _Part(nn.Module):
    features: int
    gain: float
    style: Style

    @nn.compact
    def __call__(self, channels: int, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns weights (channels, features), drawn from a key of their own."""
        shape = (channels, self.features)
        return weight(self, shape, dtype, gain=self.gain, parameterisation=self.style.parameterisation)


class Projection(nn.Module):
    """A 1x1 convolution of images that are concatenated along their channels, batch normalisation, ReLU.

    The kernel is kept in a part for each of the images, so that a part is the same whatever images there are.

    Attributes:
        features: output channels.
        names: a name for each image.
        pieces: for how many images the weights are drawn, which is how many a discrete architecture has at most.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    names: tuple[str, ...]
    pieces: int
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images: list[jax.Array], uses: jax.Array | float) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, height, width, features); see `observe`."""
        gain = RELU_GAIN / self.pieces
        terms = [
            x @ _Part(self.features, gain, self.style, name=name)(x.shape[-1], x.dtype)
            for name, x in zip(self.names, images, strict=True)
        ]
        y = sum(terms[1:], terms[0])
        factors = channel_scale(self, "output", y.shape, y.dtype)
        y = BatchNorm(self.style, name="norm")(y if factors is None else factors * y)
        observe(self, "relu", y, uses)
        return nn.relu(y)


class Cell(nn.Module):
    """A cell: choice blocks that read earlier nodes, and the concatenation of those that its output reads.

    Where a block reads the cell's input, the input is projected for it. Where the output does, a projection of the
    input is added to each of the blocks that are concatenated, as in NAS-Bench-101.

    Attributes:
        features: channels of a block.
        pieces: how many images the input of a cell has at most in a discrete architecture.
        parents: for each block and the output the sets of nodes that it can read.
        choices: the architecture, or None to build all of them.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    pieces: int
    parents: tuple[tuple[tuple[int, ...], ...], ...]
    choices: Choices | None = None
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images: dict[str, jax.Array], weights: Weights | None = None) -> dict[str, jax.Array]:
        """Maps the blocks of the cell before to the blocks that the output reads, (batch, height, width, features)."""
        output = len(self.parents)
        read = self._read(weights)
        shared: dict[str, Any] = {"features": self.features, "style": self.style, "execution": self.execution}
        uses: dict[int, jax.Array | float] = {output: 1.0}
        for node in range(output, 0, -1):
            for parent, share in read.get(node, {}).items():
                uses[parent] = jnp.maximum(uses.get(parent, 0.0), share * uses[node])

        def project(name: str, uses: jax.Array | float) -> jax.Array:
            attributes = shared | {"names": tuple(images), "pieces": self.pieces}
            return as_block(self, Projection, name, attributes, [*images.values()], uses)

        nodes: dict[int, jax.Array] = {}
        for node in range(1, output):
            if node not in read:
                continue
            terms = []
            for parent, share in read[node].items():
                x = nodes[parent] if parent else project(f"input_to_{node}", share * uses[node])
                terms.append(x if self.choices else share * x)
            built = OPERATIONS if self.choices is None else (self.choices.operations[node - 1],)
            row = None if weights is None else weights["operations"][node - 1]
            attributes = shared | {"operations": built}
            nodes[node] = as_block(self, Block, f"block_{node}", attributes, sum(terms[1:], terms[0]), row, uses[node])
        found = {}
        for parent, share in read[output].items():
            if parent:
                y = nodes[parent]
                if 0 in read[output]:
                    whole = read[output][0]
                    projected = project(f"input_to_output_{parent}", share * whole)
                    y = y + (projected if self.choices else whole * projected)
                found[f"block_{parent}"] = y if self.choices else share * y
        return found

    def _read(self, weights: Weights | None) -> dict[int, dict[int, jax.Array | float]]:
        """Returns, for each node that is built, what it reads and with which weight."""
        if self.choices is not None:
            used = self.choices.used
            return {
                node: dict.fromkeys(parents, 1.0)
                for node, parents in enumerate(self.choices.parents, start=1)
                if node in used
            }
        read: dict[int, dict[int, jax.Array | float]] = {}
        for node, sets in enumerate(self.parents, start=1):
            contains = np.array([[parent in chosen for parent in range(node)] for chosen in sets])
            if weights is None or len(sets) == 1:
                shares = contains[0].astype(float).tolist()
            else:
                row = weights[parents_of(node, len(self.parents))][0]
                shares = row @ contains.astype(row.dtype)
            read[node] = {parent: shares[parent] for parent in range(node)}
        return read


def parents_of(node: int, output: int) -> str:
    """Returns the name of the choice of what a node reads."""
    return "parents of output" if node == output else f"parents of {node}"


@dataclasses.dataclass(frozen=True)
class NASBench1Shot1Size:
    """Size of a network.

    Attributes:
        channels: channels of a block in the first stack; they double in each later one.
        cells: cells in each of the three stacks.

    Raises:
        ValueError: one of them is no positive integer.
    """

    channels: int = 16
    cells: int = 3

    def __post_init__(self) -> None:
        """Checks both."""
        check_positive(self, channels=1, cells=1)


class NASBench1Shot1Network(Network):
    """Stem, three stacks of cells with 2x2 max-pooling between, projection, mean over the image, linear head.

    Every block has `channels` channels, which double from stack to stack. NAS-Bench-101 divides its channels among the
    blocks that an output reads instead; they depend on the architecture then, which a one-shot network cannot follow.

    Attributes:
        size: channels and cells.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        parents: for each block and the output the sets of nodes that it can read.
        choices: the architecture, or None for the one-shot network.
    """

    capabilities = frozenset({"blocks", "stages"})

    parents: tuple[tuple[tuple[int, ...], ...], ...] = ()
    choices: Choices | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weights: Weights | None = None) -> jax.Array:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours), height and width divisible by 4.
            weights: for the one-shot network, like the space's `alphas`; else None.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is not of that shape.
        """
        check_images(x, 4)
        size: NASBench1Shot1Size = self.size
        style, execution = self.style, self.execution
        images = {"stem": ConvNormReLU(size.channels, 3, style, name="stem")(x)}
        # the output reads as many nodes as its sets have, all of which may be blocks
        pieces = len(self.parents[-1][0])
        for stack in range(STACKS):
            features = size.channels * 2**stack
            if stack > 0:
                images = {name: max_pool(image, window=2, strides=2) for name, image in images.items()}
            for i in range(size.cells):
                read = 1 if "stem" in images else pieces
                name = f"stack_{stack}_cell_{i}"
                cell = Cell(features, read, self.parents, self.choices, style.in_cells, execution, name=name)
                images = cell(images, weights)
            observe_stage(self, stack, self._concatenated(images))
        features = size.channels * 2 ** (STACKS - 1)
        last = Projection(features, tuple(images), pieces, style, execution, name="last")([*images.values()], 1.0)
        return Dense(self.outputs, style, name="head")(last.mean(axis=(1, 2)))

    def _concatenated(self, images: dict[str, jax.Array]) -> jax.Array:
        """Joins all blocks of a cell along the channels, with zeros for those that its output does not read."""
        nothing = jnp.zeros_like(next(iter(images.values())))
        names = (f"block_{node}" for node in range(1, len(self.parents)))
        return jnp.concatenate([images.get(name, nothing) for name in names], axis=-1)
