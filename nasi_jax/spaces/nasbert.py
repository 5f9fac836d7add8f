"""NAS-BERT (Xu et al., KDD 2021): encoders of four blocks, each of one width and of up to six sub-layers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data import RandomTokens
from nasi_jax.nn import Dense, Style
from nasi_jax.nn.transformer import TokenHead
from nasi_jax.programs import Execution
from nasi_jax.spaces.base import Alphas, Edge, Genotype, Weights, checked, no_one_shot
from nasi_jax.spaces.blocks import BlockSpace, Piece
from nasi_jax.spaces.nasbert_blocks import NASBERTBlock
from nasi_jax.spaces.nasbert_network import (
    BLOCKS,
    HEADS,
    LAYERS,
    OPERATIONS,
    WIDTHS,
    NASBERTNetwork,
    NASBERTOperation,
    NASBERTSize,
    NASBERTStem,
)
from nasi_jax.spaces.text import unknown, unquoted

_NEXT = ("none", *(",".join(names) for n in (1, 2) for names in itertools.product(OPERATIONS, repeat=n)))
_REST = ("none", *(",".join(names) for names in itertools.product(OPERATIONS, repeat=3)))
_KINDS: dict[str, tuple[str, ...]] = {
    "width": tuple(map(str, WIDTHS)),
    "first": OPERATIONS,
    "next": _NEXT,
    "rest": _REST,
}
"""What is decided of each block. One to six operations are one, none to two more, and three more or none: each sequence
in one way, 5 * 31 * 126 of them."""
_COUNTS = tuple(map(len, _KINDS.values()))
_BLOCK = re.compile(r"\s*(\d{1,9})\s*:([^:]*)")


@struct.dataclass(eq=False)
class NASBERTGenotype(Genotype):
    """The blocks of an encoder.

    Attributes:
        widths: (4,) int32, the width of each block, as a place among `nasi_jax.spaces.NASBERT.widths`.
        operations: (4, 6) int32, the operations of each block, from 1 on their place among the operations of the space
            plus one; 0 for identities, which stand at the end of a block and do not fill it.
    """

    widths: jax.Array
    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBERT(BlockSpace):
    """The space of NAS-BERT; see `nasi_jax.spaces.BlockSpace` for the contract.

    An encoder is four blocks in a row. A block has a width and one to six sub-layers of it: self-attention "M",
    feed-forward "F", and separable convolution over 3, 5 or 7 tokens, "S3", "S5" and "S7". These are 97,650 candidates
    of each block, and 9.1e19 encoders. With the identity a layer has 26 candidates, 5 of each width and one of all.

    The text form has for each block its width and its operations, ``192:S3,S7,M|192:S7,S7,M|192:S3,M,S7|192:S5,M,S3``,
    which is the published network of 5 million parameters. Widths are those of the published size.

    Widths change the shapes of everything around them, which no one-shot network follows: there is none. The candidates
    of one block and width share their weights, see `block`.

    References:
        Xu, Tan, Luo, Song, Li, Qin and Liu, "NAS-BERT: Task-agnostic and adaptive-size BERT compression with neural
        architecture search", KDD 2021.
    """

    Size: ClassVar[type] = NASBERTSize
    search_size: ClassVar[NASBERTSize] = NASBERTSize(width=64, embedding=16, positions=64)
    evaluation_size: ClassVar[NASBERTSize] = NASBERTSize()
    one_shot: ClassVar[bool] = False
    blocks: ClassVar[int] = BLOCKS
    widths: ClassVar[tuple[int, ...]] = WIDTHS

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbert"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations."""
        return OPERATIONS

    @property
    def additive(self) -> bool:
        """False: what an operation costs depends on the width, and maps between blocks on two of them."""
        return False

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`: the blocks."""
        return dict.fromkeys(_KINDS, tuple(f"block {block}" for block in range(BLOCKS)))

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`: widths, the first operation, none to two next, and three more or none."""
        return dict(_KINDS)

    @property
    def decisions(self) -> tuple[int, ...]:
        """For each block its width, its first operation, the next ones and the rest: (5, 5, 31, 126) four times."""
        return _COUNTS * BLOCKS

    def to_decisions(self, genotype: NASBERTGenotype) -> jax.Array:
        """Returns the options, (16,)."""
        operations = genotype.operations - 1
        length = jnp.sum(genotype.operations > 0, axis=1)
        after, more = (length - 1) % 3, (length - 1) // 3
        places = jnp.clip(1 + after[:, None] + jnp.arange(3)[None], 0, LAYERS - 1)
        three = jnp.sum(jnp.take_along_axis(operations, places, axis=1) * jnp.array([[25, 5, 1]]), axis=1)
        one, two = 1 + operations[:, 1], 6 + 5 * operations[:, 1] + operations[:, 2]
        following = jnp.where(after == 0, 0, jnp.where(after == 1, one, two))
        rest = jnp.where(more == 0, 0, 1 + three)
        rows = (genotype.widths, operations[:, 0], following, rest)
        return jnp.stack([row.astype(jnp.int32) for row in rows], axis=1).ravel()

    def from_decisions(self, options: jax.Array) -> NASBERTGenotype:
        """Returns the blocks of (16,) options."""
        by_block = jnp.asarray(options).reshape(BLOCKS, len(_KINDS))
        return NASBERTGenotype(by_block[:, 0], _operations(by_block[:, 1:]))

    @functools.cached_property
    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Every candidate of a block: its width (97650,) and its operations (97650, 6), as in a genotype."""
        options = np.stack(np.unravel_index(np.arange(np.prod(_COUNTS)), _COUNTS), axis=1)
        return options[:, 0], np.asarray(_operations(jnp.asarray(options[:, 1:], jnp.int32)))

    @property
    def reference(self) -> int:
        """The largest width with attention and feed-forward in turn, as of BERT."""
        widths, operations = self.candidates
        attention, forward = OPERATIONS.index("M") + 1, OPERATIONS.index("F") + 1
        alternating = (operations == np.array([attention, forward] * (LAYERS // 2))).all(axis=1)
        return int(np.flatnonzero((widths == len(WIDTHS) - 1) & alternating)[0])

    def joined(self, candidates: Sequence[int]) -> NASBERTGenotype:
        """Returns the encoder of four blocks by their numbers among `candidates`."""
        widths, operations = (values[np.asarray(candidates)] for values in self.candidates)
        return NASBERTGenotype(np.asarray(widths, np.int32), np.asarray(operations, np.int32))  # type: ignore[arg-type]

    def block_text(self, candidate: int) -> str:
        """Writes a candidate, ``192:S3,S7,M``."""
        return self.format(self.joined([candidate] * BLOCKS)).partition("|")[0]

    def block(self, size: NASBERTSize, port: int) -> NASBERTBlock:
        """Returns all candidates of a block of a width; see `nasi_jax.spaces.BlockSpace`."""
        return NASBERTBlock(size, port)

    def operation_piece(self, size: NASBERTSize, port: int, operation: int, x: Any) -> Piece:
        """Returns an operation; see `nasi_jax.spaces.BlockSpace`."""
        module = NASBERTOperation(OPERATIONS[operation - 1], HEADS[port], size.convolutions)
        return module, (_states(size, port, x), x.mask)

    def joint_piece(
        self, size: NASBERTSize, outputs: int, before: int | None, after: int | None, x: Any
    ) -> Piece | None:
        """Returns the embedding, a map or the head; see `nasi_jax.spaces.BlockSpace`."""
        if before is None:
            assert after is not None
            return NASBERTStem(size, size.widths[after]), (x,)
        if after is None:
            table = jax.ShapeDtypeStruct((x.vocabulary, size.embedding), jnp.result_type(float))
            return TokenHead(outputs), (_states(size, before, x), x, table)
        return None if before == after else (Dense(size.widths[after]), (_states(size, before, x),))

    def alphas(self) -> Alphas:
        """Returns zeros, (4, 5), (4, 5), (4, 31) and (4, 126)."""
        return {kind: jnp.zeros((BLOCKS, len(names))) for kind, names in _KINDS.items()}

    def canonical(self, genotype: NASBERTGenotype) -> str:
        """Writes the text form: no two genotypes are one function."""
        return self.format(genotype)

    def encode(self, genotype: NASBERTGenotype) -> Weights:
        """Returns a one in each row."""
        options = self.to_decisions(self._checked(genotype)).reshape(BLOCKS, len(_KINDS))
        return {kind: jax.nn.one_hot(options[:, i], _COUNTS[i]) for i, kind in enumerate(_KINDS)}

    def decode(self, alphas: Alphas) -> NASBERTGenotype:
        """Takes the largest logit of each row."""
        return self.from_decisions(jnp.stack([jnp.argmax(alphas[kind], axis=-1) for kind in _KINDS], axis=1).ravel())

    def graph(self, genotype: NASBERTGenotype) -> dict[str, list[Edge]]:
        """Returns each block as a row of its operations."""
        found = {}
        for block, (width, names) in enumerate(self.described(genotype)):
            nodes = ["input", *map(str, range(1, len(names))), "output"]
            edges = [Edge(nodes[i], nodes[i + 1], name) for i, name in enumerate(names)]
            found[f"block {block}, width {width}"] = edges
        return found

    def described(self, genotype: NASBERTGenotype) -> list[tuple[int, tuple[str, ...]]]:
        """Returns the width, at the published size, and the operations of each block of a concrete genotype."""
        genotype = self._checked(genotype)
        return [
            (WIDTHS[width], tuple(OPERATIONS[i - 1] for i in row if i))
            for width, row in zip(np.asarray(genotype.widths), np.asarray(genotype.operations), strict=True)
        ]

    def format(self, genotype: NASBERTGenotype) -> str:
        """Writes the text form."""
        return "|".join(f"{width}:{','.join(names)}" for width, names in self.described(genotype))

    def parse(self, text: str) -> NASBERTGenotype:
        """Reads the text form; identities, "I", may stand at the end of a block.

        Args:
            text: see the class.

        Returns:
            The encoder.

        Raises:
            ValueError: `text` is malformed, or a block is not one of this space.
        """
        parts = unquoted(text).split("|")
        if len(parts) != BLOCKS:
            raise ValueError(
                f"genotype: expected {BLOCKS} blocks with | between them, got {len(parts)}: {text[:200]!r}"
            )
        widths, rows = np.zeros(BLOCKS, np.int32), np.zeros((BLOCKS, LAYERS), np.int32)
        for block, part in enumerate(parts):
            match = _BLOCK.fullmatch(part)
            if match is None:
                raise ValueError(f"genotype: expected blocks 'width:S3,M,...', got {part[:200]!r}")
            width, names = int(match[1]), [name.strip() for name in match[2].split(",")]
            if width not in WIDTHS:
                raise ValueError(f"genotype: expected a width of {WIDTHS}, got {width} of block {block}")
            strange = next((name for name in names if name not in (*OPERATIONS, "I")), None)
            if strange is not None:
                raise ValueError(unknown(f"genotype: operation of block {block}", strange, (*OPERATIONS, "I")))
            if len(names) > LAYERS:
                raise ValueError(f"genotype: expected at most {LAYERS} operations, got {len(names)} in block {block}")
            widths[block] = WIDTHS.index(width)
            rows[block, : len(names)] = [0 if name == "I" else OPERATIONS.index(name) + 1 for name in names]
        return self._checked(NASBERTGenotype(jnp.asarray(widths), jnp.asarray(rows)))

    def noise(self, outputs: int = 10) -> RandomTokens:
        """Returns random ids of BERT's vocabulary."""
        return RandomTokens(outputs=outputs)

    def network(
        self,
        genotype: NASBERTGenotype | None,
        size: NASBERTSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBERTNetwork:
        """Returns the network of an encoder, with a head for what the input asks for.

        Args:
            genotype: a concrete encoder.
            size: widths and what is around the blocks.
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
        blocks = tuple((WIDTHS.index(width), names) for width, names in self.described(genotype))
        return NASBERTNetwork(size, outputs, style, execution, blocks)

    def _checked(self, genotype: NASBERTGenotype) -> NASBERTGenotype:
        """Checks a concrete genotype, its identities too."""
        genotype = checked(self, genotype)
        if isinstance(genotype.operations, np.ndarray):
            there = genotype.operations > 0
            for block in np.flatnonzero(~there[:, 0] | (there[:, 1:] > there[:, :-1]).any(axis=1)):
                raise ValueError(
                    "operations: expected an operation first and identities at the end alone, got "
                    f"{genotype.operations[block].tolist()} in block {block}"
                )
        return genotype


def _operations(options: jax.Array) -> jax.Array:
    """Returns the operations of blocks, (blocks, 6), from options (blocks, 3): the first, the next and the rest."""
    first, following, rest = options.T
    two, three = following - 6, rest - 1
    columns = [
        1 + first,
        jnp.where(following > 5, 1 + two // 5, following),
        jnp.where(following > 5, 1 + two % 5, 0),
        *(jnp.where(rest > 0, 1 + three // step % 5, 0) for step in (25, 5, 1)),
    ]
    rows = jnp.stack(columns, axis=1).astype(jnp.int32)
    return jnp.take_along_axis(rows, jnp.argsort(rows == 0, axis=1, stable=True), axis=1)


def _states(size: NASBERTSize, port: int, x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*x.ids.shape, size.widths[port]), jnp.result_type(float))
