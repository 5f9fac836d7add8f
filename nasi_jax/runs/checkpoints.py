"""Checkpoints of a training: written in the background, atomic, the last two and the best kept."""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from nasi_jax.runs.folder import RunFolderError

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints in a run folder, each under the number of steps that it covers."""

    def __init__(self, run: pathlib.Path):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._path = run / FOLDER
        best = preservation_policy.BestN(get_metric_fn=lambda metrics: metrics["accuracy"], n=1)
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best])
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._path.absolute(), options=options)

    def save(self, step: int, tree: Any, accuracy: float) -> None:
        """Writes a checkpoint in the background.

        Args:
            step: number of steps done.
            tree: pytree of arrays.
            accuracy: that of the last evaluation, by which the best one is known.

        Raises:
            RunFolderError: this one or the one before cannot be written.
        """
        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(step, args=ocp.args.StandardSave(tree), metrics={"accuracy": accuracy})
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def restore(self, like: Any) -> Any:
        """Reads the last checkpoint that can be read, and removes those that cannot.

        Args:
            like: pytree of the same structure, shapes and types; its leaves may be `jax.ShapeDtypeStruct`.

        Returns:
            The tree, or None where there is no checkpoint.

        Raises:
            RunFolderError: there are checkpoints, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
        for step in steps:
            try:
                found = self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
            except Exception as error:  # orbax and tensorstore raise many types on damaged files
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                print(f"nasi: the checkpoint of step {step} cannot be read ({reason[:200]})", file=sys.stderr)
                continue
            for damaged in (other for other in steps if other > step):
                print(f"nasi: continues from the checkpoint of step {step}", file=sys.stderr)
                self._manager.delete(damaged)
            return jax.tree.map(lambda leaf, old: np.asarray(leaf, old.dtype), found, like)
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
