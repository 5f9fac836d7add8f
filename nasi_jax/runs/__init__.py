"""What a run leaves: folders, checkpoints, progress, interruption; for commands and for users of the library alike.

A run is an iterator of `Step`s and a folder; `run` saves, takes signals, and continues. Orbax, for the large states of
a training, loads with `nasi_jax.runs.checkpoints`.
"""

from nasi_jax.runs.files import identity, write_atomic
from nasi_jax.runs.folder import Row, RunFolder, RunFolderError
from nasi_jax.runs.interruption import Interrupted
from nasi_jax.runs.loop import Ended, Step, run
from nasi_jax.runs.progress import Progress
from nasi_jax.runs.provenance import provenance
from nasi_jax.runs.sheet import ScoreSheet
from nasi_jax.runs.stores import SmallStore, Store, Stored

__all__ = [
    "Ended",
    "Interrupted",
    "Progress",
    "Row",
    "RunFolder",
    "RunFolderError",
    "ScoreSheet",
    "SmallStore",
    "Step",
    "Store",
    "Stored",
    "identity",
    "provenance",
    "run",
    "write_atomic",
]
