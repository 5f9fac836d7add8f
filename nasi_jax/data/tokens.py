"""Token ids with padding: sentences with labels, or text of which words are masked out and predicted."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data.in_memory import InMemory
from nasi_jax.data.losses import Loss, cross_entropy, masked_cross_entropy
from nasi_jax.data.source import Batch

TokenLabels = Literal["true", "random", "masked"]
"""What a batch carries: labels of the data's own, uniformly random ones, or the ids of words that are masked out."""

MASKED_SHARE = 0.15
"""Share of the words that are predicted (Devlin et al., 2019); of these, 80 % are masked and 10 % become others."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Which ids there are; by default those of BERT's uncased WordPiece vocabulary.

    Attributes:
        size: number of ids, from 0 on.
        padding: id at places without a token.
        unknown: id of what the vocabulary lacks.
        begin: id before a sequence, by whose state it is classified.
        end: id after a sequence.
        mask: id in the place of words that are masked out.

    Raises:
        ValueError: an id is not among those of the vocabulary.
    """

    size: int = 30522
    padding: int = 0
    unknown: int = 100
    begin: int = 101
    end: int = 102
    mask: int = 103

    def __post_init__(self) -> None:
        """Checks the ids."""
        for name in ("padding", "unknown", "begin", "end", "mask"):
            if not 0 <= getattr(self, name) < self.size:
                raise ValueError(f"{name}: expected an id from 0 to {self.size - 1}, got {getattr(self, name)!r}")


@struct.dataclass
class TokenInput:
    """What a network of token ids reads.

    Attributes:
        ids: (batch, length) int32.
        mask: (batch, length) bool, which places are no padding.
        segments: (batch, length) int32, 0, and 1 for a second sentence.
        targets: (batch, predicted) int32, the places whose ids are predicted; None where sequences are classified.
        vocabulary: number of ids.
    """

    ids: jax.Array
    mask: jax.Array
    segments: jax.Array
    targets: jax.Array | None = None
    vocabulary: int = struct.field(pytree_node=False, default=Vocabulary.size)


@struct.dataclass
class TokenData(InMemory):
    """Sequences of token ids in memory, drawn in random batches; made by `from_tokens`.

    Where words are masked out, a training and every batch draw anew which ones; `prepare` and `y` have, for an
    evaluation, the same ones of each sequence at all times.

    Attributes:
        ids: all sequences, (sequences, length) int32.
        mask: (sequences, length) bool, which places are no padding.
        segments: (sequences, length) int32, see `TokenInput`.
        x: (examples,) int32, which sequences are the examples.
        y: labels (examples,) int32; or ids that are predicted (examples, predicted) int32, -1 where there are fewer.
        outputs: number of labels; or `predicted` times that of ids.
        vocabulary: which ids there are.
        labels: see `TokenLabels`.
        predicted: the most words of a sequence that are masked out.
        loss: see `nasi_jax.data.Source`; the cross-entropy, or its mean over the words that are masked out.
    """

    ids: jax.Array
    mask: jax.Array
    segments: jax.Array
    x: jax.Array
    y: jax.Array
    outputs: int = struct.field(pytree_node=False)
    vocabulary: Vocabulary = struct.field(pytree_node=False)
    labels: TokenLabels = struct.field(pytree_node=False, default="true")
    predicted: int = struct.field(pytree_node=False, default=0)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def prepare(self, x: jax.Array) -> TokenInput:
        """Returns what a network reads for some of `self.x`, with the words masked out that `self.y` has."""
        plain = TokenInput(self.ids[x], self.mask[x], self.segments[x], None, self.vocabulary.size)
        if self.labels != "masked":
            return plain
        return _masked(jax.vmap(_own_key)(x), plain, self.vocabulary, self.predicted)[0]

    def redrawn(self, key: jax.Array, x: jax.Array, y: jax.Array) -> Batch:
        """Returns a batch of a training: where words are masked out, others than the last time."""
        if self.labels != "masked":
            return super().redrawn(key, x, y)
        plain = TokenInput(self.ids[x], self.mask[x], self.segments[x], None, self.vocabulary.size)
        return Batch(*_masked(jax.random.split(key, len(x)), plain, self.vocabulary, self.predicted))

    def like(self, training: TokenData) -> TokenData:
        """Returns the examples with the labels of training examples; see `nasi_jax.data.Examples`."""
        if not isinstance(training, TokenData) or self.labels != training.labels:
            got = (f"{x.labels} labels" if isinstance(x, TokenData) else type(x).__name__ for x in (training, self))
            raise ValueError("x: expected token ids as for training, with {}, got {}".format(*got))
        if self.vocabulary != training.vocabulary:
            raise ValueError(f"x: expected ids of {training.vocabulary} as for training, got {self.vocabulary}")
        if self.outputs > training.outputs or self.predicted != training.predicted:
            raise ValueError(f"y: expected {training.outputs} outputs as for training, got {self.outputs}")
        return self.replace(outputs=training.outputs)  # type: ignore[attr-defined]


def _own_key(place: jax.Array) -> jax.Array:
    """Returns the key by which words of a sequence are masked out for an evaluation."""
    return jax.random.fold_in(jax.random.key(0), place)


def _words(ids: Any, mask: Any, vocabulary: Vocabulary) -> Any:
    """Returns which places have a word, and neither padding nor the beginning or end of a sequence."""
    return mask & (ids != vocabulary.begin) & (ids != vocabulary.end) & (ids != vocabulary.padding)


def _count(words: Any) -> Any:
    """Returns how many of so many words are predicted: at least one."""
    return jnp.maximum(1, (MASKED_SHARE * jnp.asarray(words) + 0.5).astype(jnp.int32))


def _masked(keys: jax.Array, plain: TokenInput, vocabulary: Vocabulary, predicted: int) -> tuple[TokenInput, jax.Array]:
    """Masks words out.

    Args:
        keys: typed random keys, (batch,).
        plain: the sequences as they are.
        vocabulary: which ids there are.
        predicted: the most words of a sequence that are masked out.

    Returns:
        The sequences without these words, and the ids of these, (batch, predicted), -1 where there is none.

    References:
        Devlin, Chang, Lee and Toutanova, "BERT: pre-training of deep bidirectional transformers for language
        understanding", NAACL 2019, section 3.1.
    """

    def one(key: jax.Array, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        place_key, action_key, id_key = jax.random.split(key, 3)
        words = _words(ids, mask, vocabulary)
        order = jnp.argsort(jnp.where(words, jax.random.uniform(place_key, ids.shape), 2.0))
        places = order[:predicted].astype(jnp.int32)
        there = jnp.arange(predicted) < _count(jnp.sum(words))
        original, action = ids[places], jax.random.uniform(action_key, (predicted,))
        others = jax.random.randint(id_key, (predicted,), 0, vocabulary.size, ids.dtype)
        changed = jnp.where(action < 0.8, vocabulary.mask, jnp.where(action < 0.9, others, original))
        return ids.at[places].set(jnp.where(there, changed, original)), places, jnp.where(there, original, -1)

    ids, places, y = jax.vmap(one)(keys, plain.ids, plain.mask)
    return plain.replace(ids=ids, targets=places), y  # type: ignore[attr-defined]


def from_tokens(
    ids: np.ndarray,
    y: np.ndarray | None = None,
    *,
    mask: np.ndarray | None = None,
    segments: np.ndarray | None = None,
    labels: TokenLabels | None = None,
    classes: int | None = None,
    vocabulary: Vocabulary = Vocabulary(),
) -> TokenData:
    """Makes a source of batches from token ids.

    Args:
        ids: (sequences, length) integers; the padding's where there is no token.
        y: labels, (sequences,) integers from 0.
        mask: (sequences, length), true where there is a token; by default where the id is not the padding's.
        segments: (sequences, length), 0 and 1, see `TokenInput`; 0 by default.
        labels: "true" for `y`, "random" for labels drawn anew with every batch, "masked" for the ids of words that are
            masked out; by default "true" where there are labels, else "masked".
        classes: number of labels; by default the largest of `y` plus one, or 10 for random ones.
        vocabulary: which ids there are.

    Returns:
        The source.

    Raises:
        ValueError: arrays do not fit each other, an id is not of the vocabulary, a sequence is all padding or has no
            word that could be masked out, or a label is missing or out of range.
        TypeError: an array has the wrong type.
    """
    labels = ("masked" if y is None else "true") if labels is None else labels
    if labels not in get_args(TokenLabels):
        raise ValueError(f"labels: expected one of {get_args(TokenLabels)}, got {labels!r}")
    ids = _integers("ids", ids)
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"ids: expected integers (sequences, length), none empty, got shape {ids.shape}")
    outside = (ids < 0) | (ids >= vocabulary.size)
    if outside.any():
        row, place = np.argwhere(outside)[0]
        raise ValueError(
            f"ids: expected ids from 0 to {vocabulary.size - 1}, those of the vocabulary, got {ids[row, place]} in "
            f"sequence {row}"
        )
    mask = ids != vocabulary.padding if mask is None else mask
    segments = np.zeros_like(ids) if segments is None else _integers("segments", segments)
    mask, segments = np.asarray(mask), np.asarray(segments)
    for name, array in (("mask", mask), ("segments", segments)):
        if array.shape != ids.shape:
            raise ValueError(f"{name}: expected the shape of the ids, {ids.shape}, got {array.shape}")
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(f"mask: expected true and false or 1 and 0, got {mask.dtype} with other values")
    if not np.isin(segments, (0, 1)).all():
        raise ValueError(f"segments: expected 0 and 1, got {segments[~np.isin(segments, (0, 1))][0]}")
    mask = mask.astype(bool)
    if not mask.any(axis=1).all():
        raise ValueError(f"mask: expected a token in every sequence, sequence {mask.any(axis=1).argmin()} is padding")
    arrays = [jnp.asarray(array, jnp.int32) for array in (ids, segments)]
    source = TokenData(
        ids=arrays[0],
        mask=jnp.asarray(mask),
        segments=arrays[1],
        x=jnp.arange(len(ids), dtype=jnp.int32),
        y=jnp.zeros(len(ids), jnp.int32),
        outputs=1,
        vocabulary=vocabulary,
        labels=labels,
    )
    if labels == "masked":
        return _predicting(source, _words(ids, mask, vocabulary))
    values, outputs = _classes(y, len(ids), labels, classes)
    return source.replace(y=jnp.asarray(values), outputs=outputs)  # type: ignore[attr-defined]


def _predicting(source: TokenData, words: np.ndarray) -> TokenData:
    """Returns a source of words that are masked out."""
    counts = words.sum(axis=1)
    if not counts.all():
        raise ValueError(f"ids: expected a word to mask out in every sequence, sequence {counts.argmin()} has none")
    predicted = int(_count(counts).max())
    drawn = source.replace(  # type: ignore[attr-defined]
        predicted=predicted, outputs=predicted * source.vocabulary.size, loss=masked_cross_entropy
    )

    @jax.jit
    def own(x: jax.Array) -> jax.Array:
        plain = TokenInput(drawn.ids[x], drawn.mask[x], drawn.segments[x])
        return _masked(jax.vmap(_own_key)(x), plain, drawn.vocabulary, predicted)[1]

    return drawn.replace(y=own(drawn.x))


def _classes(y: np.ndarray | None, count: int, labels: str, classes: int | None) -> tuple[np.ndarray, int]:
    """Returns labels (sequences,) int32 and their number."""
    if classes is not None and classes < 1:
        raise ValueError(f"classes: expected a positive integer, got {classes}")
    if y is None:
        if labels == "true":
            raise ValueError("y: expected labels, because labels='true', got none; 'random' and 'masked' need none")
        return np.zeros(count, np.int32), 10 if classes is None else classes
    y = _integers("y", y)
    if y.shape != (count,):
        raise ValueError(f"y: expected one label for each of the {count} sequences, got shape {y.shape}")
    classes = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y: expected labels from 0 to {classes - 1}, got {y.min()} to {y.max()}")
    return y, classes


def _integers(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name}: expected integers, got {values.dtype}")
    return values.astype(np.int64)
