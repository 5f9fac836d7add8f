"""Searches by values alone, as `nasi search` runs them."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import jax
import numpy as np
import tyro

import nasi_jax
from nasi_jax import runs, search, spaces
from nasi_jax.cli.inputs import data_identity
from nasi_jax.cli.reports import (
    COST_NAMES,
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
from nasi_jax.cli.worth import Worth, opened
from nasi_jax.runs import RunFolder, provenance
from nasi_jax.scores import Costs, ScoreConfig
from nasi_jax.scores.costs import COSTS
from nasi_jax.search import BlackBox, Evaluation, Strategy, Unique

if TYPE_CHECKING:
    from nasi_jax.cli.search import Search
    from nasi_jax.report import Section

RESULT = "genotype.json"
_BEST = 5  # architectures that the report lists
_LEAVES = ("cell.png", "history.png", "pareto.png", "latency.json", "reference.json", "report.html")
StrategyT = TypeVar("StrategyT", bound=Strategy)
SizeT = TypeVar("SizeT")


@dataclasses.dataclass(frozen=True)
class BlackBoxOptions(Generic[StrategyT, SizeT]):
    """Settings of a search by values alone.

    Attributes:
        strategy: how it chooses.
        score: training-free scores that are the value, joined by + where their ranks are added: a+b, 2*a+b, or
            log(a+b) for the logarithms of ranks; or transfer, transfer-ratio or ratio-zico, formulas that have a name.
        table: CSV file of a benchmark, plain or gzipped, whose figures are the values instead.
        column: the column of the table that is maximised.
        recipe: short training whose accuracy on held-out data is the value instead, and settings of its own, as
            in "nasbench201-12(epochs=3,batch=64)"; see nasi train.
        holdout: share of the data that is held out from it.
        evaluations: number of architectures that are evaluated, for each search.
        unique: whether an architecture that was evaluated is left out when it is chosen again; by default in grid
            search alone.
        parallel: architectures that are chosen at once; by default 8 for scores, otherwise 1.
        ray: address of a Ray cluster whose nodes share those that are chosen at once, or "local"; needs the extra of
            that name.
        networks: their size, and the batch that they are scored on.
    """

    strategy: Annotated[StrategyT, tyro.conf.arg(name="settings of the strategy")]
    score: str = "ratio-zico"
    table: pathlib.Path | None = None
    column: str | None = None
    recipe: str | None = None
    holdout: float = 0.2
    evaluations: int = 1000
    unique: Unique | None = None
    parallel: int | None = None
    ray: str | None = None
    networks: Annotated[ScoreConfig[SizeT], tyro.conf.arg(name="networks that are scored")] = ScoreConfig()  # noqa: RUF009

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        names = ("column", "recipe", "evaluations", "unique", "parallel")
        chosen = {name: getattr(self, name) for name in names}
        if self.table is not None:
            chosen["table"] = data_identity(str(self.table), None)
        elif self.recipe is not None:
            chosen["holdout"] = self.holdout
        else:
            chosen |= {"score": self.score, "network": dataclasses.asdict(self.networks)}
        return chosen | {"search": {"class": type(self.strategy).__name__} | dataclasses.asdict(self.strategy)}  # type: ignore[call-overload]

    def run(self, verb: Search, space: spaces.SearchSpace, settings: dict[str, Any]) -> str:
        """Runs the searches, writes the run folder, and returns the chosen genotype's text form.

        Args:
            verb: the options that all strategies have.
            space: the search space.
            settings: what decides the result.

        Returns:
            The text form.

        Raises:
            ValueError: an option is out of range, the run folder cannot be used, nothing meets the limits, or nothing
                has a value.
        """
        if self.evaluations < 1:
            raise ValueError(f"evaluations: expected a positive integer, got {self.evaluations}")
        if self.parallel is not None and self.parallel < 1:
            raise ValueError(f"parallel: expected a positive integer, got {self.parallel}")
        population = getattr(self.strategy, "population", 1)
        if population > self.evaluations:
            raise ValueError(
                f"population: expected at most the {self.evaluations} evaluations, got {population}; pass a smaller"
                " --population"
            )
        worth = opened(self, verb, space)
        self.strategy.init(jax.random.key(0), space)  # what does not fit is said before the folder is made
        folder = RunFolder.open(
            verb.out, "nasi search", settings, results=(RESULT,), leaves=_LEAVES, growing=("seeds", "evaluations"),
            overwrite=verb.overwrite,
        )  # fmt: skip
        with folder:
            latency = verb.latency if "latency_ms" in verb.limits.opened().bounds else None
            costs = Costs(
                space, worth.outputs, x=verb.data.cost_inputs(space), latency=latency, file=verb.out / "latency.json"
            )
            searches: dict[int, BlackBox] = {}
            ended = runs.run(
                folder,
                lambda _, rows: self._evaluations(verb, space, worth, costs, folder, rows, searches),
                total=self.evaluations * verb.seeds,
                label=f"nasi search {space.name}",
                unit="evaluation",
            )
            return self._write_result(folder, space, settings, searches, ended, worth, verb, costs)

    def _evaluations(
        self,
        verb: Search,
        space: spaces.SearchSpace,
        worth: Worth,
        costs: Costs,
        folder: RunFolder,
        rows: list[dict[str, Any]],
        searches: dict[int, BlackBox],
    ) -> Iterator[runs.Step[None]]:
        unique = self.unique or ("equal" if isinstance(self.strategy, search.GridSearch) else "no")
        done, best = len(rows), -math.inf
        for seed in range(verb.seed, verb.seed + verb.seeds):
            evaluator, value = worth.at(seed, folder)
            searches[seed] = BlackBox(
                jax.random.key(seed), self.strategy, space, evaluator, value, costs=costs,
                limits=verb.limits.opened(), unique=unique, parallel=self.parallel or worth.parallel,
            )  # fmt: skip
            told = [_evaluation(space, row, worth.names) for row in rows if row["seed"] == seed]
            best = max([best, *(e.value for e in told if not math.isnan(e.value))])
            for evaluation in searches[seed].run(self.evaluations, told):
                step = len(searches[seed].evaluations) - 1
                done, best = done + 1, max(best, evaluation.value) if not math.isnan(evaluation.value) else best
                row = {"seed": seed, "step": step} | _row(space, evaluation)
                yield runs.Step(done, None, [row], {"value": evaluation.value, "best": best})

    def _write_result(
        self,
        folder: RunFolder,
        space: spaces.SearchSpace,
        settings: dict[str, Any],
        searches: dict[int, BlackBox],
        ended: runs.Ended[None],
        worth: Worth,
        verb: Search,
        costs: Costs,
    ) -> str:
        """Writes everything that a finished run leaves, the result file last, and returns the genotype's text form."""
        found = {seed: one.best for seed, one in searches.items()}
        valued = {seed: best for seed, best in found.items() if best is not None}
        if not valued:
            reasons = {e.reason for one in searches.values() for e in one.evaluations}
            raise ValueError(f"value: no architecture has one; reasons: {'; '.join(sorted(reasons))[:500]}")
        best = max(valued.values(), key=lambda one: one.value)
        summaries = [
            {"seed": s, "genotype": space.format(b.genotype), "value": b.value} | b.costs | _course(space, searches[s])
            for s, b in valued.items()
        ]
        origin = provenance(settings["precision"]) | {"seconds": round(ended.seconds, 1)}
        record = spaces.to_json(space, best.genotype) | {
            "value": best.value, "figures": best.figures, "costs": best.costs, "searches": summaries,
            "settings": settings, "provenance": origin,
        }  # fmt: skip
        text = space.format(best.genotype)
        curves = [search.incumbents([e.value for e in one.evaluations]) for one in searches.values()]
        random = worth.random(max(map(len, curves)))
        everything = [e for one in searches.values() for e in one.evaluations]
        cost = next(iter(settings["limits"]), "params")
        place = next(i for i, e in enumerate(everything) if e is best)
        pareto = nasi_jax.report.pareto_figure(
            np.array([e.costs[cost] for e in everything]), np.array([e.value for e in everything]), cost, worth.label,
            place, settings["limits"].get(cost),
        )  # fmt: skip
        beside = "" if random is None else f" Random search at the same budget: {worth.random_from}."
        sections = [
            section("Selected architecture", drawn(folder, "cell.png", cell_of(space, best.genotype))),
            costs_section(space, best.genotype, costs),
            _sureness(space, everything, summaries, worth.label, None if random is None else float(random[-1]), cost),
            training_section(verb, space),
            section(
                "Best value over evaluations",
                drawn(folder, "history.png", nasi_jax.report.incumbent_figure(curves, worth.label, random)),
                f"The best {worth.label} after each evaluation.{beside}",
            ),
            section(
                "Value over cost",
                drawn(folder, "pareto.png", pareto),
                "Every architecture that was evaluated, and those that no other beats in both.",
            ),
            searches_section(summaries),
        ]
        data = "" if self.table is not None else f", on {data_name(settings['data'])}"
        of, count = searches_of(len(searches), space), f"{len(everything):,} evaluations"
        title = f"{of} by {verb.strategy}: {count} of {worth.label}{data}"
        write_report(folder, title, text, sections, {"Settings": settings, "Provenance": origin})
        folder.write(RESULT, json.dumps(_without_nan(record), indent=2) + "\n")
        return text


def _sureness(
    space: spaces.SearchSpace,
    evaluations: list[Evaluation],
    searches: list[dict[str, Any]],
    label: str,
    random: float | None,
    cost: str,
) -> Section:
    """Returns how far the best architecture is ahead of others, of other searches and of random search."""
    distinct: dict[str, Evaluation] = {}
    for evaluation in sorted((e for e in evaluations if not math.isnan(e.value)), key=lambda e: -e.value):
        distinct.setdefault(space.canonical(evaluation.genotype), evaluation)
    rows = [
        (number, e.value, e.costs[cost], space.format(e.genotype))
        for number, e in enumerate(list(distinct.values())[:_BEST], start=1)
    ]
    values = np.array([one["value"] for one in searches])
    text = f"The best {len(rows)} of {len(distinct)} architectures that differ in what they compute and have a value."
    if len(values) > 1:
        text += f" The best of a search is {values.mean():.6g} ± {values.std():.2g} over {len(values)} searches."
    else:
        text += " One search does not tell how much the choice depends on the seed: --seeds 3 adds two to this run."
    if random is not None:
        text += f" Random search at the same budget comes to {random:.6g} on average."
    columns = ("place", label, COST_NAMES[cost], "architecture")
    return section("How sure the choice is", text=text, columns=columns, rows=rows)


def _course(space: spaces.SearchSpace, one: BlackBox) -> dict[str, Any]:
    """Returns figures of how a search went."""
    texts = [space.format(e.genotype) for e in one.evaluations]
    return {
        "evaluations": len(texts),
        "distinct": f"{len(set(texts)) / len(texts):.0%}",
        "without_value": sum(math.isnan(e.value) for e in one.evaluations),
        "looked_at": one.looked_at,
    }


def _row(space: spaces.SearchSpace, evaluation: Evaluation) -> dict[str, Any]:
    row = {"genotype": space.format(evaluation.genotype), "value": evaluation.value}
    return _without_nan(row | evaluation.figures | evaluation.costs) | {"reason": evaluation.reason}


def _evaluation(space: spaces.SearchSpace, row: dict[str, Any], names: tuple[str, ...]) -> Evaluation:
    """Reads what `_row` wrote."""
    try:
        known = {name: math.nan if value is None else value for name, value in row.items()}
        costs = {name: known[name] for name in COSTS if name in known and name not in names}
        figures = {name: float(known[name]) for name in names}
        genotype = space.parse(row["genotype"])
        return Evaluation(genotype, float(known["value"]), figures, costs, row["reason"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"history: a row is not one of this search: {error}; pass --overwrite to start anew"
        ) from error


def _without_nan(tree: Any) -> Any:
    """Returns JSON values with null for what is not a number, which JSON does not have."""
    if isinstance(tree, dict):
        return {name: _without_nan(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
