"""A lock on what a run writes, held by the process, so that none is left where the process was killed."""

from __future__ import annotations

import errno
import os
import pathlib
import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class Lock:
    """An exclusive lock on a file that exists while it is held. The system releases it when the process ends."""

    def __init__(self, path: pathlib.Path):
        """Takes the lock.

        Args:
            path: the file; created where it is missing.

        Raises:
            BlockingIOError: another process, or another run of this one, holds it.
            OSError: the file cannot be made or locked.
        """
        while True:
            file = path.open("ab")
            try:
                _lock(file)
                # whoever held it before may have removed the file after it was opened here
                current = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
            except OSError as error:
                file.close()
                if error.errno in _HELD:
                    raise BlockingIOError(error.errno, "in use", str(path)) from error
                raise
            if current:
                break
            file.close()
        self._path, self._file = path, file

    def release(self) -> None:
        """Gives the lock back and removes its file; does nothing the second time."""
        if self._file.closed:
            return
        if sys.platform == "win32":  # where open files cannot be removed
            self._file.close()
        self._path.unlink(missing_ok=True)
        self._file.close()
