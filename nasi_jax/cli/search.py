"""`nasi search`: from a configuration to a run folder with genotype, figures and report."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import sys
import time
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from flax import serialization

import nasi_jax
from nasi_jax import data, search, spaces
from nasi_jax.cli.options import DataOptions, named_in
from nasi_jax.cli.reports import write_report
from nasi_jax.runs.folder import CHECKPOINT, RunFolder, RunFolderError, interruptible, provenance
from nasi_jax.runs.progress import Progress
from nasi_jax.search import PRESETS, NASIConfig, NASIState

RESULT = "genotype.json"
_SHOWN = ("objective", "trace", "penalty", "nu")
_FIGURES = (*_SHOWN, "gradient_norm")
_SECONDS_BETWEEN_CHECKPOINTS = 5.0


@dataclasses.dataclass(frozen=True)
class Search(DataOptions):
    """Select an architecture at initialisation; write genotype, figures and a report into a run folder.

    A run that was interrupted continues when the same command is given again.

    Attributes:
        out: run folder.
        preset: settings to start from: the default, or the paper's with its fixed or its adaptive constraint.
        space: search space.
        seeds: number of independent searches; the selected genotype is that of their mean logits.
        seed: seed of the first search; the others count up from it.
        precision: floating-point type of the search.
        overwrite: replace a run that the folder holds.
        config: settings of the search.
    """

    out: pathlib.Path = pathlib.Path("runs/search")
    preset: Literal["default", "nasi-fix", "nasi-ada"] = "default"
    space: str = "nasbench201"
    seeds: int = 1
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    overwrite: bool = False
    config: Annotated[NASIConfig, tyro.conf.arg(name="")] = PRESETS["default"]

    def run(self) -> int:
        """Runs the search.

        Returns:
            The exit status: 0, or 130 after an interruption.

        Raises:
            ValueError: an option is out of range, or the run folder cannot be used.
            NonFiniteTraceError: a trace is NaN or infinite; the steps before it are kept.
        """
        if self.seeds < 1:
            raise ValueError(f"seeds: expected a positive integer, got {self.seeds}")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - seeds, got {self.seed}")
        with jax.enable_x64(self.precision == "float64"):
            return self._run()

    def _run(self) -> int:
        space = spaces.get(self.space)
        source = self.source()
        search.check(space, source, self.config)
        settings = self._settings()
        folder = RunFolder.open(self.out, settings, result=RESULT, overwrite=self.overwrite)
        keys = jax.vmap(jax.random.key)(self.seed + np.arange(self.seeds, dtype=np.uint32))
        states, seconds = search.init_states(self.seeds, space, self.config), 0.0
        stored = folder.checkpoint()
        if stored is not None:
            try:
                states, seconds = _restore(stored, states)
            except Exception as error:  # msgpack and flax raise many types on damaged bytes
                raise RunFolderError(
                    f"out: cannot read the checkpoint in {str(self.out)!r}; pass --overwrite to start the run anew"
                ) from error
        rows = folder.history(before=int(states.step[0]))
        start = time.monotonic() - seconds
        try:
            states = self._advance(folder, space, source, keys, states, rows, start)
        except KeyboardInterrupt:
            print(f"\nnasi: interrupted; the same command continues the run in {self.out}", file=sys.stderr)
            return 130
        genotype = _write_result(folder, space, settings, states, rows, self.seed, time.monotonic() - start)
        folder.remove_checkpoint()
        print(f"{genotype}\n{self.out / 'report.html'}")
        return 0

    def _settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        settings = dataclasses.asdict(self)
        for name in ("out", "overwrite", "download", "data_dir", "preset"):
            settings.pop(name)
        return settings | {"search": settings.pop("config")}

    def _advance(
        self,
        folder: RunFolder,
        space: spaces.SearchSpace,
        source: data.Source,
        keys: jax.Array,
        states: NASIState,
        rows: list[dict[str, Any]],
        start: float,
    ) -> NASIState:
        done = int(states.step[0])
        fresh: list[dict[str, Any]] = []
        saved = time.monotonic()

        def save() -> None:
            folder.append_history(fresh)
            folder.write(CHECKPOINT, _pack(states, time.monotonic() - start))
            fresh.clear()

        try:
            label = f"nasi search {self.space}"
            with interruptible() as check, Progress(label, self.config.steps, done) as progress:
                for latest, infos in search.iterate(keys, space, source, self.config, states):
                    figures = infos._asdict()
                    steps = infos.trace.shape[1]
                    for offset in range(steps):
                        for i in range(self.seeds):
                            row: dict[str, Any] = {"seed": self.seed + i, "step": done + offset}
                            row |= {name: float(figures[name][i, offset]) for name in _FIGURES}
                            fresh.append(row)
                            rows.append(row)
                    states = latest  # what `save` writes; not before the steps' rows are there
                    done += steps
                    progress.advance(steps, {name: float(np.mean(figures[name][:, -1])) for name in _SHOWN})
                    if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                        save()
                        saved = time.monotonic()
                    check()
        finally:
            save()
        return states


def with_preset(arguments: list[str]) -> Search:
    """Returns the options' defaults, with the settings of `--preset` for `--space` where a command line names them."""
    named = named_in(arguments, {"--preset": "default", "--space": Search.space})
    if named["--preset"] not in PRESETS or named["--space"] not in spaces.SPACES:
        return Search()  # what is wrong with them is said where they are used
    return Search(config=search.preset(named["--preset"], spaces.get(named["--space"])))


def _pack(states: NASIState, seconds: float) -> bytes:
    return serialization.msgpack_serialize({"states": serialization.to_state_dict(states), "seconds": seconds})


def _restore(stored: bytes, like: NASIState) -> tuple[NASIState, float]:
    record: Any = serialization.msgpack_restore(stored)
    states: Any = serialization.from_state_dict(like, record["states"])
    return states, float(record["seconds"])


def _write_result(
    folder: RunFolder,
    space: spaces.SearchSpace,
    settings: dict[str, Any],
    states: NASIState,
    rows: list[dict[str, Any]],
    seed: int,
    seconds: float,
) -> str:
    """Writes everything that a finished run leaves, the result file last, and returns the genotype's text form."""
    alphas = {name: np.asarray(values) for name, values in states.alphas.items()}
    mean = {name: values.mean(axis=0) for name, values in alphas.items()}
    genotype = space.decode(mean)
    found = [space.decode({name: values[i] for name, values in alphas.items()}) for i in range(len(states.step))]
    searches = [{"seed": seed + i, "genotype": space.format(g)} for i, g in enumerate(found)]
    origin = provenance(settings["precision"]) | {"seconds": round(seconds, 1)}
    record = spaces.to_json(space, genotype) | {"searches": searches, "settings": settings, "provenance": origin}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **alphas)
    folder.write("alphas.npz", buffer.getvalue())

    text = space.format(genotype)
    history = {name: np.reshape([row[name] for row in rows], (-1, len(found))).T for name in _SHOWN}
    chosen = {name: np.stack([np.asarray(space.encode(g)[name]) for g in found]) for name in alphas}
    selected = {name: np.where(values.any(axis=-1), values.argmax(axis=-1), -1) for name, values in chosen.items()}
    pictures = {
        "Selected cell": ("cell.png", text, nasi_jax.report.cell_figure(space.graph(genotype), space.operations)),
        "Architecture logits": (
            "alphas.png",
            "Mean of alpha* over the searches; what it selects is framed.",
            nasi_jax.report.alphas_figure(space, mean),
        ),
        "Search": (
            "history.png",
            "Objective before the penalty, trace norm estimate, penalty and constraint nu at every step.",
            nasi_jax.report.history_figure(history),
        ),
        "Operations over searches": (
            "histogram.png",
            "How many of the searches selected each operation on each edge.",
            nasi_jax.report.histogram_figure(space, selected),
        ),
    }
    searched = [(entry["seed"], entry["genotype"]) for entry in searches]
    title = f"NASI on {space.name}: {len(found)} search{'es' if len(found) > 1 else ''}"
    tables = {"Searches": (("seed", "genotype"), searched)}
    write_report(folder, title, text, pictures, tables, {"Settings": settings, "Provenance": origin})
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
    return text
