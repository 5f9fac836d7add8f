"""Checkpoints of a training: written in the background, atomic, the last two and the best kept."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from nasi_jax.runs.folder import Mark, RunFolderError
from nasi_jax.runs.stores import Stored

FOLDER = "checkpoints"


class Checkpoints:
    """A `Store` for large states: the checkpoints in a run folder, each under the number of steps that it covers."""

    def __init__(self, run: pathlib.Path, like: Any, merit: Callable[[Any], float]):
        """Opens the checkpoints of a run.

        Args:
            run: the run folder.
            like: pytree with the structure, shapes and types of the states; leaves may be `jax.ShapeDtypeStruct`.
            merit: a number of a state; the state of the highest one is kept beside the last two.
        """
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._path, self._like, self._merit = run / FOLDER, like, merit
        best = preservation_policy.BestN(get_metric_fn=lambda metrics: metrics["merit"], n=1)
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best])
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._path.absolute(), options=options)

    def save(self, stored: Stored[Any]) -> None:
        """Writes a checkpoint in the background.

        Args:
            stored: the state, and what belongs to it.

        Raises:
            RunFolderError: this one or the one before cannot be written.
        """
        if stored.done in self._manager.all_steps():
            return
        beside = {"seconds": stored.seconds, "size": stored.mark.size, "checksum": stored.mark.checksum}
        items = ocp.args.Composite(state=ocp.args.StandardSave(stored.state), beside=ocp.args.JsonSave(beside))
        try:
            self._manager.save(stored.done, args=items, metrics={"merit": self._merit(stored.state)})
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def load(self) -> Stored[Any] | None:
        """Reads the last checkpoint that can be read, and removes those that cannot.

        Returns:
            The state and what belongs to it, or None where there is no checkpoint.

        Raises:
            RunFolderError: there are checkpoints, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(shapes), beside=ocp.args.JsonRestore())
        for step in steps:
            try:
                found: Any = self._manager.restore(step, args=items)
                beside = found.beside
                mark = Mark(int(beside["size"]), int(beside["checksum"]))
                seconds = float(beside["seconds"])
            except Exception as error:  # orbax and tensorstore raise many types on damaged files
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                print(f"nasi: the checkpoint of step {step} cannot be read ({reason[:200]})", file=sys.stderr)
                continue
            for damaged in (other for other in steps if other > step):
                print(f"nasi: continues from the checkpoint of step {step}", file=sys.stderr)
                self._manager.delete(damaged)
            state = jax.tree.map(lambda leaf, old: np.asarray(leaf, old.dtype), found.state, self._like)
            return Stored(step, state, seconds, mark)
        if steps:
            raise RunFolderError(
                f"out: no checkpoint in {str(self._path)!r} can be read; pass --overwrite to start anew"
            )
        return None

    def last(self) -> int | None:
        """Returns the steps that the last written checkpoint covers, or None."""
        return self._manager.latest_step()

    def close(self) -> None:
        """Waits until all is written.

        Raises:
            RunFolderError: a checkpoint cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            self._manager.close()

    def _failed(self, error: Exception) -> RunFolderError:
        return RunFolderError(
            f"out: cannot write to {str(self._path)!r}: {error}. The last good checkpoint is of step {self.last()}; "
            "the same command continues from there"
        )


def last_state(run: pathlib.Path) -> Any:
    """Reads the state of the last checkpoint of a run.

    Args:
        run: the run folder.

    Returns:
        The state as it was saved, with dictionaries in the place of other nodes.

    Raises:
        FileNotFoundError: the folder has no checkpoints.
        RunFolderError: the last one cannot be read.
    """
    path = run / FOLDER
    if not path.is_dir():
        raise FileNotFoundError(f"run: expected a run folder with checkpoints, there is none at {str(run)!r}")
    logging.getLogger("absl").setLevel(logging.ERROR)
    with ocp.CheckpointManager(path.absolute(), options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        try:
            restored = manager.restore(None, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        except Exception as error:  # orbax and tensorstore raise many types on damaged files
            raise RunFolderError(f"run: cannot read the last checkpoint in {str(path)!r}: {error}") from error
    return restored["state"]
