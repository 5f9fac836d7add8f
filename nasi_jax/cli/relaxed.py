"""Searches over relaxed architectures, as `nasi search` runs them."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import jax
import numpy as np
import tyro

import nasi_jax
from nasi_jax import data, runs, search, spaces
from nasi_jax.cli.reports import (
    cell_of,
    costs_section,
    data_name,
    drawn,
    searches_of,
    searches_section,
    section,
    training_section,
    write_report,
)
from nasi_jax.programs import member
from nasi_jax.runs import RunFolder, provenance
from nasi_jax.runs.progress import duration
from nasi_jax.scores import Costs
from nasi_jax.search import Relaxed, Supernet

if TYPE_CHECKING:
    from nasi_jax.cli.search import Search
    from nasi_jax.report import Section

RESULT = "genotype.json"
_LEAVES = (
    "alphas.npz", "alphas.png", "cell.png", "cells.png", "course.png", "histogram.png", "history.png", "latency.json",
    "moments.npz", "report.html",
)  # fmt: skip
_SECONDS_BETWEEN_CHECKPOINTS = {False: 5.0, True: 60.0}  # without weights, with weights
_DRAWN = 4
"""Moments whose cells are drawn."""
StrategyT = TypeVar("StrategyT", bound=Relaxed)


@dataclasses.dataclass(frozen=True)
class RelaxedOptions(Generic[StrategyT]):
    """Settings of a search over relaxed architectures.

    Attributes:
        strategy: how it moves the logits.
    """

    strategy: Annotated[StrategyT, tyro.conf.arg(name="settings of the strategy")]

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        return {"search": dataclasses.asdict(self.strategy)}  # type: ignore[call-overload]

    def fitted(self, source: data.Source) -> Relaxed:
        """Returns the strategy for the data."""
        return self.strategy

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
            NonFiniteError: a figure is NaN or infinite; the steps before it are kept.
        """
        source = verb.data.source(space, whiten=isinstance(self.strategy, search.NASI))
        strategy = self.fitted(source)
        search.check(space, source, strategy)
        limits = verb.limits.opened()
        limited = limits.bounds
        timed = "latency_ms" in (*limited, *getattr(strategy, "resource", ()))
        latency, own = verb.latency if timed else None, verb.data.cost_inputs(space)
        costs = Costs(space, source.outputs, x=own, latency=latency, file=verb.out / "latency.json")
        if not timed:  # said before there is a folder, which times are kept in
            search.most_likely(space, space.alphas(), limits, costs, costs.linear(limited))
        keys = jax.vmap(jax.random.key)(verb.seed + np.arange(verb.seeds, dtype=np.uint32))
        trains, whole = isinstance(strategy, Supernet), settings | {"search": dataclasses.asdict(strategy)}  # type: ignore[call-overload]
        if trains and verb.data.name == "gaussian":
            print(
                f"nasi search: {verb.strategy} trains weights, and the labels of random inputs are random; "
                "--data names labelled data",
                file=sys.stderr,
            )
        opened = RunFolder.open(
            verb.out, "nasi search", whole, results=(RESULT,), leaves=_LEAVES, growing=("seeds",),
            overwrite=verb.overwrite,
        )  # fmt: skip
        with opened as folder:
            linear = costs.linear(limited)
            bounds = [(linear[name], bound) for name, bound in limited.items()]
            states = search.init_states(keys, space, source, strategy, bounds, costs)

            def begin(stored: Any, rows: list[runs.Row]) -> Iterator[runs.Step[Any]]:
                begun = states if stored is None else _with_more(stored, states)
                if trains and stored is None:
                    _announce(keys[0], space, source, strategy, states)
                return _steps(verb.seed, space, source, strategy, keys, begun)

            try:
                ended = runs.run(
                    folder,
                    begin,
                    runs.SmallStore(folder, states),
                    total=strategy.steps,
                    label=f"nasi search {space.name}",
                    every=_SECONDS_BETWEEN_CHECKPOINTS[trains],
                )
            except search.NonFiniteError as error:
                print(
                    f"nasi: the last good checkpoint is of step {error.step}, in {str(folder.path)!r}", file=sys.stderr
                )
                raise

            def selected(alphas: spaces.Alphas) -> Any:
                return search.most_likely(space, alphas, limits, costs, linear)

            return _write_result(folder, space, strategy, whole, ended, verb, selected, costs)


@dataclasses.dataclass(frozen=True)
class TrainedOptions(RelaxedOptions[StrategyT], Generic[StrategyT]):
    """Settings of a search that trains the weights of a one-shot network.

    Attributes:
        epochs: steps as passes over the training part of the data, instead of --steps.
    """

    epochs: float | None = None

    def fitted(self, source: data.Source) -> Relaxed:
        """Returns the strategy, with the steps of the epochs."""
        if self.epochs is None:
            return self.strategy
        strategy: Any = self.strategy
        training = strategy.prepared(source).training
        if not hasattr(training, "__len__"):
            raise ValueError(f"epochs: expected --steps instead with data that have no end, got {self.epochs}")
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs: expected a positive number, got {self.epochs}")
        steps = max(1, round(self.epochs * (len(training) // strategy.batch)))
        return dataclasses.replace(strategy, steps=steps)


def _with_more(stored: Any, states: Any) -> Any:
    """Returns stored states, followed by the initial ones of searches that were not asked for then."""
    count = len(stored.step)
    if count == len(states.step):
        return stored
    return jax.tree.map(lambda kept, initial: np.concatenate([kept, initial[count:]]), stored, states)


def _steps(
    seed: int, space: spaces.SearchSpace, source: data.Source, strategy: Relaxed, keys: jax.Array, states: Any
) -> Iterator[runs.Step[Any]]:
    """Takes the steps of all searches: those that are equally far side by side, the furthest first."""
    steps = np.asarray(states.step)
    for done in sorted(set(steps.tolist()), reverse=True):
        group = np.flatnonzero(steps == done)
        current = states if len(group) == len(steps) else jax.tree.map(lambda leaf, g=group: leaf[g], states)
        if done == strategy.steps or all(strategy.ended(member(current, i)) for i in range(len(group))):
            continue
        for latest, infos in search.iterate(keys[group], space, source, strategy, current):
            figures = infos._asdict()
            taken = len(figures[strategy.shown[0]][0])
            rows = [
                {"seed": seed + int(which), "step": done + offset}
                | {name: float(values[i, offset]) for name, values in figures.items()}
                for offset in range(taken)
                for i, which in enumerate(group)
            ]
            done += taken
            if isinstance(strategy, Supernet) and done in strategy.moments_at:
                place = strategy.moments_at.index(done)
                looks = {name: np.asarray(values)[:, place] for name, values in latest.looks.items()}
                for i, row in enumerate(rows[-len(group) :]):
                    row |= {name: float(values[i]) for name, values in looks.items() if np.isfinite(values[i])}
            states = latest if len(group) == len(steps) else _placed(states, group, latest)
            shown = {name: float(np.mean(figures[name][:, -1])) for name in strategy.shown}
            yield runs.Step(int(np.mean(states.step)), states, rows, shown)


def _placed(states: Any, group: np.ndarray, latest: Any) -> Any:
    """Returns the states of all searches with those of a group replaced."""

    def placed(whole: Any, part: Any) -> np.ndarray:
        whole = np.array(whole)
        whole[group] = part
        return whole

    return jax.tree.map(placed, states, latest)


def _announce(key: jax.Array, space: spaces.SearchSpace, source: data.Source, strategy: Any, states: Any) -> None:
    """Says what the search will take, before its first step."""
    trial = search.trial(key, space, source, strategy, member(states, 0))
    count, weights = len(states.step), sum(leaf[0].size for leaf in jax.tree.leaves(states.params))
    seconds = count * (strategy.warmup_steps * trial.warm_step + (strategy.steps - strategy.warmup_steps) * trial.step)
    print(
        f"nasi search: {weights / 1e6:.3f} million weights in the one-shot network; compiled in "
        f"{trial.compilation:.0f} s, {trial.step:.3g} s a step, {strategy.steps} steps, about {duration(seconds)}; "
        f"peak memory {trial.memory / 2**30:.1f} GB",
        file=sys.stderr,
        flush=True,
    )


def _write_result(
    folder: RunFolder,
    space: spaces.SearchSpace,
    strategy: Relaxed,
    settings: dict[str, Any],
    ended: runs.Ended[Any],
    verb: Search,
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
        {"seed": verb.seed + i, "genotype": space.format(g)} | (costs(g) if settings["limits"] else {})
        for i, g in enumerate(found)
    ]
    origin = provenance(settings["precision"]) | {"seconds": round(ended.seconds, 1)}
    record = spaces.to_json(space, genotype) | {"searches": searches, "settings": settings, "provenance": origin}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **alphas)
    folder.write("alphas.npz", buffer.getvalue())

    text = space.format(genotype)
    names = (*strategy.shown, *(strategy.measured if isinstance(strategy, Supernet) else ()))
    history = {name: np.full((len(found), int(np.max(states.step))), math.nan) for name in names}
    for row in ended.rows:
        for name in names:
            history[name][row["seed"] - verb.seed, row["step"]] = row.get(name, math.nan)
    # a penalty of weight 0 and a fixed constraint say nothing
    history = {
        name: values
        for name, values in history.items()
        if values.shape[1] == 1 or len(np.unique(values[np.isfinite(values)])) != 1
    }
    chosen = {name: np.stack([np.asarray(space.encode(g)[name]) for g in found]) for name in alphas}
    rows = {name: np.where(values.any(axis=-1), values.argmax(axis=-1), -1) for name, values in chosen.items()}
    several = len(found) > 1
    sections = [
        section("Selected architecture", drawn(folder, "cell.png", cell_of(space, genotype))),
        costs_section(space, genotype, costs),
        _sureness(space, genotype, mean, rows, found),
        training_section(verb, space),
        section(
            "Architecture logits",
            drawn(folder, "alphas.png", nasi_jax.report.alphas_figure(space, mean)),
            f"{'Mean over the searches' if several else 'At the end'}; what the largest logits select is framed.",
        ),
        section(
            "Course of the search",
            drawn(folder, "history.png", nasi_jax.report.history_figure(history)),
            f"At every step: {', '.join(name.replace('_', ' ') for name in history)}.",
        ),
        section(
            "Operations over searches",
            drawn(folder, "histogram.png", nasi_jax.report.histogram_figure(space, rows)),
            "How many of the searches selected each operation on each edge.",
        ),
        *(_over_time(folder, space, strategy, states) if isinstance(strategy, Supernet) else ()),
        searches_section(searches),
    ]
    settled = "" if verb.preset == "default" else f" with settings {verb.preset}"
    title = f"{searches_of(len(found), space)} by {verb.strategy}{settled}, on {data_name(settings['data'])}"
    write_report(folder, title, text, sections, {"Settings": settings, "Provenance": origin})
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
    return text


def _sureness(
    space: spaces.SearchSpace, genotype: Any, mean: Any, selected: dict[str, np.ndarray], found: list[Any]
) -> Section:
    """Returns how far each choice is ahead of the next, and how many of the searches made it."""
    searches, rows = len(found), []
    weights = {kind: np.asarray(values) for kind, values in space.encode(genotype).items()}
    for kind, logits in mean.items():
        probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        for row in np.flatnonzero(weights[kind].any(axis=-1)):
            chosen = int(weights[kind][row].argmax())
            others = np.where(np.arange(len(logits[row])) == chosen, -1.0, probabilities[row])
            following = int(others.argmax())
            label = space.edges[kind][row] if len(mean) == 1 else f"{kind}, {space.edges[kind][row]}"
            agree = int((selected[kind][:, row] == chosen).sum())
            names = space.choices[kind]
            rows.append(
                (label, names[chosen], f"{probabilities[row, chosen]:.2f}", names[following],
                 f"{others[following]:.2f}", f"{agree} of {searches}")
            )  # fmt: skip
    same = sum(space.canonical(one) == space.canonical(genotype) for one in found)
    text = (
        f"The mean logits select the architecture; {same} of {searches} searches select one that computes the same."
        if searches > 1
        else "One search does not tell how much the choice depends on the seed: --seeds 3 adds two to this run."
    )
    columns = ("edge", "chosen", "probability", "next", "its probability", "searches that agree")
    return section("How sure the choice is", text=text, columns=columns, rows=rows)


def _over_time(folder: RunFolder, space: spaces.SearchSpace, strategy: Supernet[Any], states: Any) -> list[Section]:
    """Writes the logits of all moments, and returns what shows them."""
    done = int(np.min(states.step))
    kept = [i for i, at in enumerate(strategy.moments_at) if at <= done]
    steps = np.array(strategy.moments_at)[kept]
    moments = {kind: np.asarray(values)[:, kept] for kind, values in states.moments.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **moments, steps=steps, stopped=np.asarray(states.stopped))
    folder.write("moments.npz", buffer.getvalue())
    mean = {kind: values.mean(axis=0) for kind, values in moments.items()}
    shown = np.unique(np.linspace(0, len(kept) - 1, min(_DRAWN, len(kept))).round().astype(int))
    cells = {
        f"after step {steps[i]}": space.graph(space.decode({kind: values[i] for kind, values in mean.items()}))
        for i in shown
    }
    return [
        section(
            "Probabilities over time",
            drawn(folder, "course.png", nasi_jax.report.course_figure(space, steps, mean)),
            "Probability of every choice, mean logits of the searches.",
        ),
        section(
            "Cells over time",
            drawn(folder, "cells.png", nasi_jax.report.cells_figure(cells, space.operations)),
            "What the largest mean logits select after some of the steps.",
        ),
    ]
