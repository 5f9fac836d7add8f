"""TransNAS-Bench-101's micro space (Duan et al., CVPR 2021): NAS-Bench-201's cell with four operations, 4,096 cells."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from nasi_jax.data import Gaussian
from nasi_jax.nn import BatchNorm, Conv, Dense, ReLUConvNorm, Style, handed_on
from nasi_jax.programs import Execution
from nasi_jax.spaces import text as text_form
from nasi_jax.spaces.base import Genotype, Network, Weights, check_images, check_positive
from nasi_jax.spaces.nasbench201 import SixEdges
from nasi_jax.spaces.nasbench201_network import Cell
from nasi_jax.spaces.nasbench201_text import EDGES, OPERATIONS

_OPERATIONS = OPERATIONS[:4]  # all but the average pool, in TransNAS's order
_MODULES = (2, 1, 2, 1, 2)
"""How far each module halves the image and doubles the channels: 4, 1, 4, 1 and 4 in the benchmark's words."""
_SKELETON = "64-41414"
_TEXT = re.compile(rf"\b{_SKELETON}-(\d)_(\d\d)_(\d\d\d)\b")
_EXPECTED = f"genotype: expected a cell such as '{_SKELETON}-1_02_333' or a tuple of six numbers from 0 to 3"


@struct.dataclass(eq=False)
class TransNASGenotype(Genotype):
    """A cell of TransNAS-Bench-101's micro space.

    Attributes:
        operations: (6,) int32, for each edge an index into none, skip, 1x1 and 3x3 convolution.
    """

    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class TransNASSize:
    """Size of a network; the defaults are the benchmark's.

    Attributes:
        channels: channels behind the stem, even; the first, third and last module double them.
        cells: cells in each of the five modules.

    Raises:
        ValueError: one of them is out of range.
    """

    channels: int = 64
    cells: int = 2

    def __post_init__(self) -> None:
        """Checks both."""
        check_positive(self, channels=2, cells=1)
        if self.channels % 2:
            raise ValueError(f"channels: expected an even number, got {self.channels}")


@dataclasses.dataclass(frozen=True)
class TransNASMicro(SixEdges):
    """The micro space of TransNAS-Bench-101; see `nasi_jax.spaces.SearchSpace` for the contract.

    The text form is the benchmark's, ``64-41414-1_02_333``: operations 0 none, 1 skip, 2 and 3 ReLU, a convolution of
    1x1 or 3x3 and batch normalisation, of the edges into each node in turn.

    References:
        Duan et al., "TransNAS-Bench-101: Improving transferability and generalizability of cross-task neural
        architecture search", CVPR 2021.
    """

    Size: ClassVar[type] = TransNASSize
    search_size: ClassVar[TransNASSize] = TransNASSize(channels=8, cells=1)
    evaluation_size: ClassVar[TransNASSize] = TransNASSize()
    Genotype: ClassVar[type] = TransNASGenotype
    identities: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "transnas-micro"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations, those of NAS-Bench-201."""
        return _OPERATIONS

    def format(self, genotype: TransNASGenotype) -> str:
        """Writes the benchmark's text."""
        first, *rest = (str(_OPERATIONS.index(name)) for name in self.names(genotype))
        return f"{_SKELETON}-{first}_{''.join(rest[:2])}_{''.join(rest[2:])}"

    @property
    def notations(self) -> dict[str, Callable[[TransNASGenotype], str]]:
        """NASLib's tuple of numbers, "naslib"."""
        return {"naslib": lambda g: str(tuple(_OPERATIONS.index(name) for name in self.names(g)))}

    def parse(self, text: str) -> TransNASGenotype:
        """Reads the benchmark's text, or NASLib's tuple of six numbers, whose edges are in the same order.

        Args:
            text: see the class.

        Returns:
            The cell.

        Raises:
            ValueError: `text` is malformed, or names an unknown operation.
        """
        found = _TEXT.search(text_form.unquoted(text))
        if found:
            numbers: Any = [int(digit) for digit in "".join(found.groups())]
        else:
            expression = text_form.expression(text, "Structure")
            if not isinstance(expression, ast.Tuple | ast.List):
                raise ValueError(f"{_EXPECTED}, got {text!r}")
            numbers = text_form.literal("a cell", expression, "as a tuple of six numbers")
        known = isinstance(numbers, list | tuple) and len(numbers) == len(EDGES)
        if not known or any(type(n) is not int or not 0 <= n < len(_OPERATIONS) for n in numbers):
            raise ValueError(f"{_EXPECTED}, got {text!r}")
        return TransNASGenotype(jnp.array(numbers, jnp.int32))

    def noise(self, outputs: int = 10) -> Gaussian:
        """Returns Gaussian images of the benchmark's size."""
        return Gaussian((256, 256, 3), outputs)

    def network(
        self,
        genotype: TransNASGenotype | None,
        size: TransNASSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> TransNASNetwork:
        """Returns the classification network of one cell, or of all operations.

        Args:
            genotype: a concrete cell, or None for the one-shot network.
            size: channels and cells.
            outputs: number of outputs; the benchmark has 100 for objects and 47 for scenes.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else tuple(_OPERATIONS.index(name) for name in self.names(genotype))
        return TransNASNetwork(size, outputs, style, execution, choices)


class TransNASNetwork(Network):
    """Stem, five modules of cells, mean over the image, linear head.

    In the first cell of the first, third and last module the edges that leave the input halve the image.

    Attributes:
        size: channels and cells.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`. Where weights are one-hot, an edge's two convolutions are one.
        choices: for each edge the index of its only operation, or None for the one-shot network.
    """

    capabilities = frozenset({"blocks", "features"})

    choices: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weights: Weights | None = None) -> jax.Array:
        """Computes the logits.

        Args:
            x: images, (batch, height, width, colours); 32 divides the sides of the benchmark's.
            weights: ``{"cell": (6, 4)}`` for the one-shot network, None for a derived one.

        Returns:
            Logits, (batch, outputs).

        Raises:
            ValueError: `x` is not of that shape.
        """
        check_images(x, 1)
        size: TransNASSize = self.size
        discrete = "no" if self.execution.discrete == "no" else "one-hot"
        execution, features = dataclasses.replace(self.execution, discrete=discrete), size.channels
        x = Conv(features // 2, 3, style=self.style, strides=2, name="stem_conv")(x)
        x = BatchNorm(self.style, name="stem_norm")(x)
        x = ReLUConvNorm(features, 3, 2, self.style, execution=execution, name="stem_last")(x)
        x, count = handed_on(self, 0, x), 0
        for module, factor in enumerate(_MODULES):
            features *= factor
            for i in range(size.cells):
                strides = factor if i == 0 else 1
                name = f"module_{module}_cell_{i}"
                cell = Cell(features, self.choices, self.style, execution, _OPERATIONS, strides, name=name)
                count += 1
                x = handed_on(self, count, cell(x, None if weights is None else weights["cell"]))
        return Dense(self.outputs, self.style, name="head")(x.mean(axis=(1, 2)))
