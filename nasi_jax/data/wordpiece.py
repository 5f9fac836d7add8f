"""Words and their pieces as ids, by a vocabulary file: the tokenisation of BERT's uncased models."""

from __future__ import annotations

import functools
import gzip
import pathlib
import re
import unicodedata
from collections.abc import Iterator

from nasi_jax.data.tokens import Vocabulary

_LONGEST = 100  # characters of a word, beyond which it is unknown
_SPECIAL = {"padding": "[PAD]", "unknown": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
_KEPT = re.compile("|".join(re.escape(token) for token in _SPECIAL.values()))
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


class WordPiece:
    """Text to ids, and ids to text.

    Text is made lower-case, loses its accents, and is split at spaces and punctuation; a word becomes the longest
    pieces that the vocabulary has, from its beginning on, those after the first marked by ``##``. The vocabulary's
    tokens in brackets, such as ``[UNK]``, stay as they are.

    Attributes:
        pieces: the vocabulary, in the order of the ids.
        vocabulary: which ids there are.

    References:
        Wu et al., "Google's neural machine translation system", 2016, section 4.1; Devlin et al., NAACL 2019.
    """

    def __init__(self, pieces: list[str]):
        """Checks the vocabulary.

        Args:
            pieces: the vocabulary, in the order of the ids.

        Raises:
            ValueError: a piece is there twice, or [PAD], [UNK], [CLS], [SEP] or [MASK] is missing.
        """
        self.pieces = pieces
        self._ids = {piece: i for i, piece in enumerate(pieces)}
        if len(self._ids) < len(pieces):
            repeated = next(piece for i, piece in enumerate(pieces) if self._ids[piece] != i)
            raise ValueError(f"vocabulary: expected every piece once, {repeated!r} is there twice")
        missing = [token for token in _SPECIAL.values() if token not in self._ids]
        if missing:
            raise ValueError(f"vocabulary: expected [PAD], [UNK], [CLS], [SEP] and [MASK], lacks {missing}")
        self.vocabulary = Vocabulary(len(pieces), **{name: self._ids[token] for name, token in _SPECIAL.items()})
        self._of_part = functools.lru_cache(maxsize=100_000)(self._ids_of)

    @classmethod
    def read(cls, path: str | pathlib.Path) -> WordPiece:
        """Reads a vocabulary file, a piece on each line; it may be compressed, with a name that ends in .gz.

        Args:
            path: the file.

        Returns:
            What makes ids of text.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no text, or see `WordPiece`.
        """
        lines = read_lines(path, "vocabulary")
        try:
            return cls([line.rstrip("\r") for line in lines])
        except ValueError as error:
            raise ValueError(f"{error} (in {str(path)!r})") from error

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text, without those of its beginning and end."""
        found, at = [], 0
        for match in _KEPT.finditer(text):
            found += self._plain(text[at : match.start()])
            found.append(self._ids[match.group()])
            at = match.end()
        return found + self._plain(text[at:])

    def text(self, ids: list[int]) -> str:
        """Returns the text of ids: pieces joined to words, words by spaces."""
        return " ".join(self.pieces[i] for i in ids).replace(" ##", "")

    def _plain(self, text: str) -> list[int]:
        # most parts between spaces come again and again
        return [i for part in re.split(r"[ \t\n\r]+", text) for i in self._of_part(part)]

    def _ids_of(self, part: str) -> tuple[int, ...]:
        return tuple(i for word in _words(part) for i in self._split(word))

    def _split(self, word: str) -> tuple[int, ...]:
        """Returns the ids of the longest pieces of a word."""
        if len(word) > _LONGEST:
            return (self.vocabulary.unknown,)
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self._ids:
                    found.append(self._ids[piece])
                    start = end
                    break
            else:
                return (self.vocabulary.unknown,)
        return tuple(found)


def _words(text: str) -> Iterator[str]:
    """Yields words and punctuation marks, lower-case and without accents."""
    word = ""
    for character in unicodedata.normalize("NFD", "".join(map(_cleaned, text)).lower()):
        category = unicodedata.category(character)
        if category == "Mn":
            continue
        alone = _is_punctuation(character, category) or any(a <= ord(character) <= b for a, b in _IDEOGRAPHS)
        if character == " " or alone:
            if word:
                yield word
            word = ""
            if alone:
                yield character
        else:
            word += character
    if word:
        yield word


def _cleaned(character: str) -> str:
    """Returns a space for every kind of one, and nothing for control characters."""
    if character in " \t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    return "" if character in "\0\ufffd" or unicodedata.category(character).startswith("C") else character


def _is_punctuation(character: str, category: str) -> bool:
    # of ASCII all that is neither letter, number nor space, also where Unicode calls it a symbol
    code = ord(character)
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_mark or category.startswith("P")


def read_lines(path: str | pathlib.Path, name: str) -> list[str]:
    """Reads a text file, which may be compressed, with a name that ends in .gz.

    Args:
        path: the file.
        name: of the argument, for errors.

    Returns:
        Its lines, without their ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, or no text in UTF-8.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: expected a text file, there is none at {str(path)!r}")
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{name}: expected text in UTF-8, cannot read {str(path)!r}: {error}") from error
    lines = text.removeprefix("\ufeff").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if not lines:
        raise ValueError(f"{name}: expected a text, {str(path)!r} is empty")
    return lines
