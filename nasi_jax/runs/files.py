"""Files that are never half written, and readers that say which file is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

_PARTIAL = ".partial"
_PIECE = 2**20


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Gives the errors of writing, such as that of a full disk, the name of the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_atomic(path: pathlib.Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or all of the new, whatever happens in between.

    Raises:
        OSError: the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with _naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            pathlib.Path(name).chmod(0o644)
            pathlib.Path(name).replace(path)
        except BaseException:
            pathlib.Path(name).unlink(missing_ok=True)
            raise


def remove_partial(folder: pathlib.Path, name: str = "*") -> None:
    """Removes what `write_atomic` left of a file where its process was killed; the caller holds the lock."""
    for path in folder.glob(f".{name}.*{_PARTIAL}"):
        path.unlink(missing_ok=True)


class Appended:
    """A file that grows at its end. What a failure leaves beyond the last whole addition is dropped by the next one.

    Attributes:
        path: the file.
        size: bytes of the whole additions.
        checksum: CRC-32 of these bytes.
    """

    def __init__(self, path: pathlib.Path, content: bytes = b""):
        self.path, self.size, self.checksum = path, len(content), zlib.crc32(content)

    def append(self, data: bytes, sync: bool = True) -> None:
        """Adds bytes.

        Args:
            data: what is added.
            sync: whether to wait until it is on the disk, so that it outlasts a crash of the machine.

        Raises:
            OSError: they cannot be written; the additions before stand.
        """
        with _naming(self.path), self.path.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self.size, self.checksum = self.size + len(data), zlib.crc32(data, self.checksum)


def read_text(path: str | pathlib.Path, argument: str) -> str:
    """Reads a text file in UTF-8, with a byte order mark or without.

    Args:
        path: the file.
        argument: name of the option or argument that names it, for messages.

    Returns:
        The text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is not such text.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        there = "a folder" if pathlib.Path(path).is_dir() else "none"
        raise FileNotFoundError(f"{argument}: expected a file, there is {there} at {str(path)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: expected text in UTF-8, {str(path)!r} is something else: {error}") from error
    except OSError as error:
        raise ValueError(f"{argument}: cannot read {str(path)!r}: {error.strerror or error}") from error


def read_json(path: str | pathlib.Path, argument: str) -> Any:
    """Reads a JSON file.

    Args:
        path: the file.
        argument: see `read_text`.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    text = read_text(path, argument)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{argument}: {str(path)!r} is not JSON: {error}") from error


def read_object(path: str | pathlib.Path, argument: str) -> dict[str, Any]:
    """Reads a JSON file that holds an object; see `read_json`.

    Returns:
        The object.

    Raises:
        ValueError: the file holds something else.
    """
    record = read_json(path, argument)
    if not isinstance(record, dict):
        raise ValueError(f"{argument}: expected a JSON object in {str(path)!r}, got {type(record).__name__}")
    return record


def identity(path: str | pathlib.Path) -> dict[str, Any]:
    """Says what an input of a run is by what it holds, so that a run continues with the same input wherever it lies.

    Args:
        path: a file or a folder. Of files in a folder that are longer than 2 MiB, the first and the last MiB count,
            beside their names and sizes: image data sets take minutes to read whole.

    Returns:
        Its `path`, which runs do not compare, and its `size` in bytes and `sha256`, which they do.

    Raises:
        OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return {"path": str(path), "size": path.stat().st_size, "sha256": digest.hexdigest()}
    digest, total = hashlib.sha256(), 0
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        size = file.stat().st_size
        total += size
        digest.update(f"{file.relative_to(path).as_posix()}\0{size}\0".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(2 * _PIECE if size <= 2 * _PIECE else _PIECE))
            if size > 2 * _PIECE:
                opened.seek(size - _PIECE)
                digest.update(opened.read())
    return {"path": str(path), "size": total, "sha256": digest.hexdigest()}


def text_identity(path: str, text: str) -> dict[str, Any]:
    """Returns the `identity` of a text that was read already, as from standard input."""
    data = text.encode()
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
