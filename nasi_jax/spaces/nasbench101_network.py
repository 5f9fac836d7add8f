"""The network of NAS-Bench-101: a stem, three stacks of cells that divide their channels among vertices, a head."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.nn import ConvNormReLU, Dense, Style, as_block, handed_on, observe_stage
from nasi_jax.programs import Execution, max_pool
from nasi_jax.spaces.base import Network, check_images, check_positive

STACKS = 3
_MOST_READ = 5  # inner vertices that an output reads, each of which has a channel at least
_WINDOWS = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}
_PROJECTION = "conv1x1-bn-relu"


def vertex_channels(matrix: np.ndarray, before: int, features: int) -> list[int]:
    """Returns the channels of each vertex of a cell.

    Vertices that the output reads share its channels evenly, the first ones with one more where there is a rest. Every
    other one has as many as the largest of those that read it.

    Args:
        matrix: of a cell whose vertices are all on a path from input to output, (vertices, vertices).
        before: channels of the input.
        features: channels of the output.

    References:
        Ying et al., ICML 2019, section 2.2 of the supplement and `compute_vertex_channels` of the authors' code.
    """
    last = len(matrix) - 1
    channels = [before, *[0] * (last - 1), features]
    read = [vertex for vertex in range(1, last) if matrix[vertex, last]]
    for place, vertex in enumerate(read):
        channels[vertex] = features // len(read) + (place < features % len(read))
    for vertex in range(last - 1, 0, -1):
        if vertex not in read:
            channels[vertex] = max(channels[reader] for reader in np.flatnonzero(matrix[vertex]))
    return channels


class Operation(nn.Module):
    """An operation of a vertex, or the projection of a cell's input to its channels.

    Attributes:
        features: channels of its output.
        operation: by NAS-Bench-101's name.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    operation: str
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, features)."""
        if self.operation not in _WINDOWS:
            return max_pool(x)
        return ConvNormReLU(self.features, _WINDOWS[self.operation], self.style, name="conv")(x)


class Cell(nn.Module):
    """A cell: vertices that apply an operation to the sum of what they read, and the concatenation of the last ones.

    Where a vertex reads the cell's input, the input is projected to its channels. Where it reads a vertex of more
    channels, the first of these are taken. Where the output reads the input, its projection is added.

    Attributes:
        features: channels of the output.
        matrix: rows of zeros and ones, of a cell whose vertices are all on a path from input to output.
        operations: the operation of each vertex, from "input" to "output".
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    features: int
    matrix: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, features)."""
        matrix, last = np.array(self.matrix), len(self.matrix) - 1
        channels = vertex_channels(matrix, x.shape[-1], self.features)

        def applied(name: str, operation: str, features: int, images: jax.Array) -> jax.Array:
            attributes: dict[str, Any] = {"features": features, "operation": operation}
            attributes |= {"style": self.style, "execution": self.execution}
            return as_block(self, Operation, name, attributes, images)

        nodes: dict[int, jax.Array] = {}
        for vertex in range(1, last):
            terms = [nodes[source][..., : channels[vertex]] for source in range(1, vertex) if matrix[source, vertex]]
            if matrix[0, vertex]:
                terms.append(applied(f"input_to_{vertex}", _PROJECTION, channels[vertex], x))
            total = sum(terms[1:], terms[0])
            nodes[vertex] = applied(f"vertex_{vertex}", self.operations[vertex], channels[vertex], total)
        read = [nodes[source] for source in range(1, last) if matrix[source, last]]
        outputs = [jnp.concatenate(read, axis=-1)] if read else []
        if matrix[0, last]:
            outputs.append(applied("input_to_output", _PROJECTION, self.features, x))
        return sum(outputs[1:], outputs[0])


@dataclasses.dataclass(frozen=True)
class NASBench101Size:
    """Size of a network; the defaults are the benchmark's.

    Attributes:
        channels: channels of a cell in the first stack, one for each vertex that can share them at least; they double
            in each later one.
        cells: cells in each of the three stacks.

    Raises:
        ValueError: one of them is no integer or too small.
    """

    channels: int = 128
    cells: int = 3

    def __post_init__(self) -> None:
        """Checks both."""
        check_positive(self, channels=_MOST_READ, cells=1)


class NASBench101Network(Network):
    """Stem, three stacks of cells with 2x2 max-pooling between, mean over the image, linear head.

    Attributes:
        size: channels and cells.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        matrix: see `Cell`.
        operations: see `Cell`.
    """

    capabilities = frozenset({"blocks", "features", "stages"})

    matrix: tuple[tuple[int, ...], ...] = ()
    operations: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours), height and width divisible by 4.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is not of that shape.
        """
        check_images(x, 4)
        size: NASBench101Size = self.size
        x, count = handed_on(self, 0, ConvNormReLU(size.channels, 3, self.style, name="stem")(x)), 0
        for stack in range(STACKS):
            features = size.channels * 2**stack
            if stack > 0:
                x = max_pool(x, window=2, strides=2)
            for i in range(size.cells):
                name = f"stack_{stack}_cell_{i}"
                count += 1
                cell = Cell(features, self.matrix, self.operations, self.style.in_cells, self.execution, name=name)
                x = handed_on(self, count, cell(x))
            observe_stage(self, stack, x)
        return Dense(self.outputs, self.style, name="head")(x.mean(axis=(1, 2)))
