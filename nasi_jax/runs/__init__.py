"""What a run leaves: folders, checkpoints, progress, interruption; for commands and for users of the library alike."""

from nasi_jax.runs.folder import RunFolder, RunFolderError, interruptible, provenance, write_atomic
from nasi_jax.runs.progress import Progress

__all__ = ["Progress", "RunFolder", "RunFolderError", "interruptible", "provenance", "write_atomic"]
