"""Searches over relaxed architectures, as `nasi search` runs them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import jax
import numpy as np
import tyro

import nasi_jax
from nasi_jax import data, runs, search, spaces
from nasi_jax.cli.reports import write_report
from nasi_jax.programs import member, stack
from nasi_jax.runs import RunFolder, provenance
from nasi_jax.scores import Costs
from nasi_jax.search import NASI, NASIState

if TYPE_CHECKING:
    from nasi_jax.cli.search import Search

RESULT = "genotype.json"
_SHOWN = ("objective", "trace", "penalty", "nu")
_FIGURES = (*_SHOWN, "gradient_norm", "excess")
_LEAVES = ("alphas.npz", "alphas.png", "cell.png", "histogram.png", "history.png", "latency.json", "report.html")
SizeT = TypeVar("SizeT")


@dataclasses.dataclass(frozen=True)
class RelaxedOptions(Generic[SizeT]):
    """Settings of a search over relaxed architectures.

    Attributes:
        strategy: the settings.
    """

    strategy: Annotated[NASI[SizeT], tyro.conf.arg(name="")]

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        return {"search": dataclasses.asdict(self.strategy)}

    def run(self, verb: Search, space: spaces.SearchSpace, settings: dict[str, Any]) -> str:
        """Runs the searches, writes the run folder, and returns the chosen genotype's text form.

        Args:
            verb: the options that all strategies have.
            space: the search space.
            settings: what decides the result.

        Returns:
            The text form.

        Raises:
            ValueError: an option is out of range, the run folder cannot be used, or nothing meets the limits.
        """
        source = verb.data.source(space)
        search.check(space, source, self.strategy)
        limits = verb.limits.opened()
        limited = limits.bounds
        latency = verb.latency if "latency_ms" in limited else None
        costs = Costs(space, source.outputs, latency=latency, file=verb.out / "latency.json")
        if latency is None:  # said before there is a folder, which times are kept in
            search.most_likely(space, space.alphas(), limits, costs, costs.linear(limited))
        keys = jax.vmap(jax.random.key)(verb.seed + np.arange(verb.seeds, dtype=np.uint32))
        opened = RunFolder.open(
            verb.out, "nasi search", settings, results=(RESULT,), leaves=_LEAVES, overwrite=verb.overwrite
        )
        with opened as folder:
            linear = costs.linear(limited)
            start = self.strategy.init(space, limits=[(linear[name], bound) for name, bound in limited.items()])
            states = stack([start] * verb.seeds)
            ended = runs.run(
                folder,
                lambda stored, _: self._steps(verb.seed, space, source, keys, states if stored is None else stored),
                runs.SmallStore(folder, states),
                total=self.strategy.steps,
                label=f"nasi search {space.name}",
            )

            def selected(alphas: spaces.Alphas) -> Any:
                return search.most_likely(space, alphas, limits, costs, linear)

            text = _write_result(folder, space, settings, ended, verb.seed, selected, costs)
            folder.remove_checkpoint()
        return text

    def _steps(
        self, seed: int, space: spaces.SearchSpace, source: data.Source, keys: jax.Array, states: NASIState
    ) -> Iterator[runs.Step[NASIState]]:
        done = int(states.step[0])
        for latest, infos in search.iterate(keys, space, source, self.strategy, states):
            figures = infos._asdict()
            steps = infos.trace.shape[1]
            rows = [
                {"seed": seed + i, "step": done + offset} | {name: float(figures[name][i, offset]) for name in _FIGURES}
                for offset in range(steps)
                for i in range(len(keys))
            ]
            done += steps
            yield runs.Step(done, latest, rows, {name: float(np.mean(figures[name][:, -1])) for name in _SHOWN})


def _write_result(
    folder: RunFolder,
    space: spaces.SearchSpace,
    settings: dict[str, Any],
    ended: runs.Ended[NASIState],
    seed: int,
    selected: Any,
    costs: Costs,
) -> str:
    """Writes everything that a finished run leaves, the result file last, and returns the genotype's text form."""
    states = ended.state
    alphas = {name: np.asarray(values) for name, values in states.alphas.items()}
    mean = {name: values.mean(axis=0) for name, values in alphas.items()}
    genotype = selected(mean)
    found = [selected(member(alphas, i)) for i in range(len(states.step))]
    searches = [
        {"seed": seed + i, "genotype": space.format(g)} | (costs(g) if settings["limits"] else {})
        for i, g in enumerate(found)
    ]
    origin = provenance(settings["precision"]) | {"seconds": round(ended.seconds, 1)}
    record = spaces.to_json(space, genotype) | {"searches": searches, "settings": settings, "provenance": origin}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **alphas)
    folder.write("alphas.npz", buffer.getvalue())

    text = space.format(genotype)
    history = {name: np.reshape([row[name] for row in ended.rows], (-1, len(found))).T for name in _SHOWN}
    chosen = {name: np.stack([np.asarray(space.encode(g)[name]) for g in found]) for name in alphas}
    rows = {name: np.where(values.any(axis=-1), values.argmax(axis=-1), -1) for name, values in chosen.items()}
    pictures = {
        "Selected cell": ("cell.png", text, nasi_jax.report.cell_figure(space.graph(genotype), space.operations)),
        "Architecture logits": (
            "alphas.png",
            "Mean of alpha* over the searches; what its largest logits select is framed.",
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
            nasi_jax.report.histogram_figure(space, rows),
        ),
    }
    title = f"NASI on {space.name}: {len(found)} search{'es' if len(found) > 1 else ''}"
    columns = tuple(searches[0])
    tables = {"Searches": (columns, [tuple(entry.values()) for entry in searches])}
    write_report(folder, title, text, pictures, tables, {"Settings": settings, "Provenance": origin})
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
    return text
