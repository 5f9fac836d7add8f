"""Token ids from an .npz file, and text by a WordPiece vocabulary."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nasi_jax.data.tokens import TokenData, TokenLabels, Vocabulary, from_tokens
from nasi_jax.data.wordpiece import WordPiece, read_lines

_LENGTH = 128
_ENDS = 2  # of a sequence, a token each
_TEXTS = (".txt", ".tsv")
_VOCABULARY = "vocab.txt"
_NAMES = ("ids", "mask", "lengths", "segments", "tokens", "offsets", "labels", "y")


def holds_tokens(name: str | pathlib.Path) -> bool:
    """Whether there is a text, or an .npz file of that name with an array `ids` or `tokens`."""
    path = pathlib.Path(name)
    if not path.is_file():
        return False
    if _ending(path) in _TEXTS:
        return True
    if path.suffix.lower() != ".npz":
        return False
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return any(known.lower().split("_")[0] in ("ids", "tokens") for known in file.files)
    except Exception:  # what is no such file is said by whoever reads it
        return False


def from_token_files(
    path: str | pathlib.Path,
    *,
    split: str = "train",
    labels: TokenLabels | None = None,
    classes: int | None = None,
    length: int | None = None,
    vocabulary: str | pathlib.Path | None = None,
) -> TokenData:
    """Reads token ids or text.

    An .npz file has `ids` (sequences, length) with, where there is padding, `mask` of that shape or `lengths`
    (sequences,), and `segments`; or `tokens` (count,) with `offsets` (sequences + 1,), which say where each sequence
    begins; or `tokens` alone, a running text. `labels` or `y` (sequences,) are integers. Names may end in _train and
    _test. Ids are those of BERT's uncased vocabulary, 30,522 of them, where no other is given.

    A text, also with .gz, is read by a WordPiece vocabulary: one that ends in .tsv has on each line a label and, behind
    a tab, a sentence; any other one is a running text. Sentences get a token before and one after them. A running text
    is cut into sequences of one length, which do likewise.

    Args:
        path: the file.
        split: "train", or another part whose name the arrays end in; a text is "train".
        labels: see `from_tokens`.
        classes: see `from_tokens`.
        length: tokens of a sequence, with those of its ends; sentences that are longer lose what is before the last.
            By default that of the longest sentence, or 128 of a running text.
        vocabulary: file with a piece on each line; of a text by default vocab.txt beside it.

    Returns:
        The source of batches.

    Raises:
        FileNotFoundError: there is no such file, or no vocabulary.
        ValueError: it cannot be read, an array is missing or does not fit, there is no such split, or see
            `from_tokens`.
        TypeError: an array has the wrong type.
    """
    path = pathlib.Path(path)
    if length is not None and length <= _ENDS:
        raise ValueError(f"length: expected at least {_ENDS + 1} tokens, got {length}")
    if not path.is_file():
        raise FileNotFoundError(f"data: expected a file of token ids or a text, there is none at {str(path)!r}")
    options: dict[str, Any] = {"labels": labels, "classes": classes}
    if _ending(path) in _TEXTS:
        if split != "train":
            raise ValueError(f"split: expected 'train' of a text, which is a single one, got {split!r}")
        tokenizer = WordPiece.read(_beside(path) if vocabulary is None else vocabulary)
        read = _sentences if _ending(path) == ".tsv" else _running
        arrays, known = read(read_lines(path, "data"), tokenizer), tokenizer.vocabulary
    else:
        known = Vocabulary() if vocabulary is None else WordPiece.read(vocabulary).vocabulary
        try:
            named = _arrays(path)
        except Exception as error:  # NumPy, zipfile and zlib raise a dozen types on what is no such file
            raise ValueError(f"data: expected plain arrays of token ids, cannot read {str(path)!r}: {error}") from error
        arrays = _part(named, split, path)
    try:
        return from_tokens(**_padded(arrays, known, length), **options, vocabulary=known)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} (in {str(path)!r})") from error


def _ending(path: pathlib.Path) -> str:
    """Returns how a file's name ends, apart from .gz."""
    return pathlib.Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _beside(path: pathlib.Path) -> pathlib.Path:
    found = path.parent / _VOCABULARY
    if not found.is_file():
        raise FileNotFoundError(
            f"vocabulary: expected a file with a piece on each line, there is no {_VOCABULARY} beside {str(path)!r}"
        )
    return found


def _sentences(lines: list[str], tokenizer: WordPiece) -> dict[str, np.ndarray]:
    """Returns the arrays of lines with a label and a sentence."""
    rows, labels, known = [], [], tokenizer.vocabulary
    for number, line in enumerate(lines, start=1):
        label, tab, sentence = line.partition("\t")
        if not tab or not label.strip().isdecimal():
            raise ValueError(f"data: expected a label, a tab and a sentence on line {number}, got {line[:80]!r}")
        labels.append(int(label))
        rows.append([known.begin, *tokenizer.ids(sentence), known.end])
    return _joined(rows) | {"labels": np.array(labels)}


def _running(lines: list[str], tokenizer: WordPiece) -> dict[str, np.ndarray]:
    """Returns the tokens of a running text."""
    return {"tokens": np.array([i for line in lines for i in tokenizer.ids(line)])}


def _joined(rows: list[list[int]]) -> dict[str, np.ndarray]:
    return {"tokens": np.concatenate(rows), "offsets": np.cumsum([0, *map(len, rows)])}


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name.lower(): file[name] for name in file.files}


def _part(named: Mapping[str, np.ndarray], split: str, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a split, by their names without its own."""
    for ending in ("", "_train") if split == "train" else (f"_{split.lower()}",):
        if f"ids{ending}" in named or f"tokens{ending}" in named:
            return {name: named[name + ending] for name in _NAMES if name + ending in named}
    ending = "" if split == "train" else f"_{split.lower()}"
    raise ValueError(
        f"split: expected an array 'ids{ending}' or 'tokens{ending}', found {sorted(named)} in {str(path)!r}"
    )


def _padded(arrays: Mapping[str, np.ndarray], vocabulary: Vocabulary, length: int | None) -> dict[str, Any]:
    """Returns what `from_tokens` takes."""
    y = arrays.get("labels", arrays.get("y"))
    if "ids" in arrays:
        ids, mask = arrays["ids"], arrays.get("mask")
        if ids.ndim != 2:
            raise ValueError(f"ids: expected (sequences, length), got shape {ids.shape}")
        if "lengths" in arrays:
            lengths = arrays["lengths"]
            if lengths.shape != ids.shape[:1] or (lengths < 0).any() or (lengths > ids.shape[1]).any():
                raise ValueError(f"lengths: expected 0 to {ids.shape[1]} of {len(ids)} sequences, got {lengths}")
            mask = np.arange(ids.shape[1])[None] < lengths[:, None]
        cut = slice(length)
        parts = {"mask": mask, "segments": arrays.get("segments")}
        return {"ids": ids[:, cut], "y": y} | {n: None if part is None else part[:, cut] for n, part in parts.items()}
    tokens = arrays["tokens"]
    if tokens.ndim != 1 or not len(tokens) or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens: expected integers (count,), got {tokens.dtype} of shape {tokens.shape}")
    if "offsets" not in arrays:
        inner = (_LENGTH if length is None else length) - _ENDS
        pieces = [tokens[start : start + inner] for start in range(0, len(tokens), inner)]
        rows = [np.concatenate([[vocabulary.begin], piece, [vocabulary.end]]) for piece in pieces]
        return _rows(rows, vocabulary) | {"y": y}
    offsets = arrays["offsets"].astype(np.int64)
    if (
        offsets.ndim != 1
        or len(offsets) < 2
        or offsets[0]
        or offsets[-1] != len(tokens)
        or (np.diff(offsets) < 1).any()
    ):
        raise ValueError(f"offsets: expected rising places from 0 to {len(tokens)}, got {offsets[:8]}")
    rows = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
    if length is not None:
        rows = [row if len(row) <= length else np.append(row[: length - 1], row[-1]) for row in rows]
    return _rows(rows, vocabulary) | {"y": y}


def _rows(rows: list[np.ndarray], vocabulary: Vocabulary) -> dict[str, Any]:
    ids = np.full((len(rows), max(map(len, rows))), vocabulary.padding, np.int64)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return {"ids": ids, "mask": mask}
