"""Searches over blocks that are valued apart, as `nasi search` runs them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args

import jax
import numpy as np
import tyro
from flax import serialization

import nasi_jax
from nasi_jax import data, runs, search, spaces, train
from nasi_jax.cli.reports import cell_of, drawn, section, training_section, write_report
from nasi_jax.runs import RunFolder, provenance
from nasi_jax.scores import BlockCosts, BlockNTK, InfeasibleError, Limits, block_costs
from nasi_jax.search import BlockEstimate, Blockwise, BlockwiseState, Chain, Selected

if TYPE_CHECKING:
    from nasi_jax.cli.search import Search

RESULT = "genotype.json"
_LEAVES = (
    "blocks.csv",
    "front.csv",
    "judged.csv",
    "cell.png",
    "history.png",
    "pareto.png",
    "latency.json",
    "report.html",
)
_SHOWN = ("best", "mean", "left")
_BEHIND = 500  # random architectures of what is left, drawn behind the front
_SECONDS_BETWEEN_CHECKPOINTS = {False: 5.0, True: 60.0}  # without weights, with weights
Estimate = Literal["ntk", "distillation"]
"""``"ntk"``: a score at initialisation, which needs neither teacher nor text, see `nasi_jax.scores.BlockNTK`.
``"distillation"``: minus the loss of shared weights that are trained to repeat a teacher's blocks."""
SizeT = TypeVar("SizeT")


@dataclasses.dataclass(frozen=True)
class BlockwiseOptions(Generic[SizeT]):
    """Settings of a search over blocks that are valued apart.

    Attributes:
        strategy: how bins of candidates shrink.
        estimate: what a block is worth: ntk, or distillation from a teacher that is trained on the data first.
        batch: examples in a batch.
        teacher: architecture of the teacher; by default attention and feed-forward in turn at the largest width.
        teacher_steps: steps of its training.
        round_steps: steps that the shared weights of a block are trained in each round.
        judged: by distillation, how many networks of the best sums within the limits are judged as a whole, with the
            shared weights; the best of them is selected. 0 selects the best sum.
        size: size of the networks whose blocks are valued.
    """

    strategy: Annotated[Blockwise, tyro.conf.arg(name="")] = search.BLOCKWISE["default"]
    estimate: Estimate = "ntk"
    batch: int = 16
    teacher: str | None = None
    teacher_steps: int = 2000
    round_steps: int = 200
    judged: int = 100
    size: Annotated[SizeT, tyro.conf.arg(name="")] = None  # type: ignore[assignment]

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        names = ("estimate", "batch")
        if self.estimate == "distillation":
            names = (*names, "teacher", "teacher_steps", "round_steps", "judged")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names}
        own: Any = self.size
        return settings | {"search": dataclasses.asdict(self.strategy), "network": own and dataclasses.asdict(own)}

    def run(self, verb: Search, space: spaces.SearchSpace, settings: dict[str, Any]) -> str:
        """Runs the search, writes the run folder, and returns the chosen genotype's text form.

        Args:
            verb: the options that all strategies have.
            space: the search space.
            settings: what decides the result.

        Returns:
            The text form.

        Raises:
            ValueError: an option is out of range, the space has no blocks, the run folder cannot be used, or nothing
                meets the limits.
            FloatingPointError: the loss of the teacher is not finite.
        """
        if not isinstance(space, spaces.BlockSpace):
            known = [name for name, one in spaces.SPACES.items() if isinstance(one, spaces.BlockSpace)]
            left_out = ", of which choices are left out" if isinstance(space, spaces.Restricted) else ""
            raise ValueError(
                f"space: expected a whole one of blocks in a row, {' or '.join(known)}, got {space.name!r}{left_out}"
            )
        if verb.seeds != 1:
            raise ValueError(f"seeds: expected 1, because blocks of other weights do not compare, got {verb.seeds}")
        if self.estimate not in get_args(Estimate):
            raise ValueError(f"estimate: expected one of {get_args(Estimate)}, got {self.estimate!r}")
        for name in ("teacher_steps", "round_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a positive integer, got {getattr(self, name)}")
        if self.judged < 0:
            raise ValueError(f"judged: expected 0 or a positive integer, got {self.judged}")
        source = verb.data.source(space)
        source.check_batch(self.batch)
        if self.estimate == "distillation" and source.loss is not data.masked_cross_entropy:
            raise ValueError(
                "data: expected text whose words are masked out (--data FILE --labels masked), on which the teacher is "
                "trained, got others"
            )
        teacher = space.joined([space.reference] * space.blocks) if self.teacher is None else space.parse(self.teacher)
        x, limits = data.shapes(source, 2).x, verb.limits.opened()
        counts = block_costs(space, space.evaluation_size, source.outputs, x)
        timed = "latency_ms" in limits.bounds
        if not timed:  # said before there is a folder, which times are kept in
            _check_limits(space, counts, limits)
        opened = RunFolder.open(
            verb.out, "nasi search", settings, results=(RESULT,), leaves=_LEAVES, overwrite=verb.overwrite
        )
        with opened as folder:
            costs = counts
            if timed:
                file = verb.out / "latency.json"
                costs = block_costs(space, space.evaluation_size, source.outputs, x, latency=True, file=file)
                _check_limits(space, costs, limits)
            sizes = {name: costs.candidates[name] for name in dict.fromkeys(("params", *limits.bounds))}
            binned = self.strategy.binned(sizes, costs.within(limits))

            judges: list[train.Distillation] = []

            def begin(stored: Any, rows: list[runs.Row]) -> Iterator[runs.Step[Any]]:
                estimate, kept = self._estimate(verb.seed, space, source, teacher, stored)
                judges.extend([estimate] if self.judged and isinstance(estimate, train.Distillation) else [])
                state: Any = self.strategy.init(verb.seed, space.blocks, binned, estimate)
                if stored is not None:
                    state = serialization.from_state_dict(state, stored["state"])
                for latest, info in self.strategy.run(verb.seed, binned, estimate, state):
                    done = int(latest.done)
                    row = _without_nan({"seed": verb.seed, "step": done - 1} | info._asdict())
                    figures = {name: getattr(info, name) for name in ("best", "left")}
                    yield runs.Step(done, {"state": latest, "teacher": kept}, [row], figures)

            trains = self.estimate == "distillation"
            ended = runs.run(
                folder,
                begin,
                runs.SmallStore(folder, None),
                total=space.blocks * (self.strategy.rounds(binned) + 1),
                label=f"nasi search {space.name}",
                every=_SECONDS_BETWEEN_CHECKPOINTS[trains],
            )
            state = ended.state["state"]
            state = state if isinstance(state, BlockwiseState) else BlockwiseState(**state)
            chain, left = search.table(state, costs.ports, costs.candidates, costs.joints)
            judged = None
            for judge in judges:
                best = chain.best(limits, self.judged)
                numbers = [[own[place] for own, place in zip(left, one.places, strict=True)] for one in best]
                judged = best, judge.whole(state.estimate, np.array(numbers))
            return _write_result(folder, space, settings, limits, chain, left, judged, ended, verb)

    def _estimate(
        self, seed: int, space: spaces.BlockSpace, source: data.Source, teacher: Any, stored: Any
    ) -> tuple[BlockEstimate, Any]:
        """Returns what values blocks, and the teacher's parameters, trained where they are not stored."""
        if self.estimate == "ntk":
            return BlockNTK(space, self.size, source, batch=self.batch, seed=seed), {}
        if stored is None:
            key = jax.random.key(seed)
            params, loss = train.train_teacher(key, space, teacher, self.size, source, self.teacher_steps, self.batch)
            print(f"nasi search: the teacher's loss is {loss:.4g} after {self.teacher_steps} steps", file=sys.stderr)
        else:
            params = jax.tree.map(jax.numpy.asarray, stored["teacher"])
        found = train.Distillation(
            space, self.size, source, train.as_teacher(space, teacher, self.size, params),
            steps=self.round_steps, batch=self.batch, seed=seed,
        )  # fmt: skip
        return found, params


class _Named(NamedTuple):
    genotype: Any
    text: str
    selected: Selected


def _check_limits(space: spaces.BlockSpace, costs: BlockCosts, limits: Limits) -> None:
    """Raises InfeasibleError where no architecture at all meets the limits."""
    if not limits.bounds:
        return
    # of candidates of one width and all costs alike, one is enough
    rows = np.column_stack([costs.ports, *costs.candidates.values()])
    places = np.unique(rows, axis=0, return_index=True)[1]
    candidates = {name: [own[places]] * space.blocks for name, own in costs.candidates.items()}
    same = [np.zeros(len(places))] * space.blocks, [costs.ports[places]] * space.blocks
    try:
        Chain(*same, candidates, costs.joints).best(limits)
    except InfeasibleError as error:
        raise InfeasibleError(limits, error.smallest, space.cardinality) from None


def _write_result(
    folder: RunFolder,
    space: spaces.BlockSpace,
    settings: dict[str, Any],
    limits: Limits,
    chain: Chain,
    left: list[np.ndarray],
    judged: tuple[list[Selected], np.ndarray] | None,
    ended: runs.Ended[Any],
    verb: Search,
) -> str:
    """Writes everything that a finished run leaves, the result file last, and returns the genotype's text form."""

    def named(selected: Selected) -> _Named:
        genotype = space.joined([int(numbers[place]) for numbers, place in zip(left, selected.places, strict=True)])
        return _Named(genotype, space.format(genotype), selected)

    best = named(chain.best(limits)[0])
    if judged is not None:
        of_whole = [
            {"genotype": named(one).text, "value": one.value, "whole": whole}
            for one, whole in zip(*judged, strict=True)
        ]
        folder.write("judged.csv", _csv(of_whole))
        best = named(judged[0][int(np.argmax(judged[1]))])
    cost = next(iter(settings["limits"]), "params")
    front = [named(selected) for selected in chain.front(cost, limits)]
    rows = [{"genotype": one.text, "value": one.selected.value} | one.selected.costs for one in front]
    origin = provenance(settings["precision"]) | {"seconds": round(ended.seconds, 1)}
    record = spaces.to_json(space, best.genotype) | {
        "value": best.selected.value, "costs": best.selected.costs, "front": rows, "settings": settings,
        "provenance": origin,
    }  # fmt: skip
    folder.write("front.csv", _csv(rows))
    folder.write(
        "blocks.csv",
        _csv([
            {"block": block, "candidate": space.block_text(int(number)), "value": chain.values[block][place]}
            | {name: own[block][place] for name, own in chain.costs.items()}
            for block, numbers in enumerate(left)
            for place, number in enumerate(numbers)
        ]),
    )
    generator = np.random.default_rng(0)
    behind = [chain.at([int(generator.integers(len(numbers))) for numbers in left]) for _ in range(_BEHIND)]
    shown = [best.selected, *(one.selected for one in front), *behind]
    label = f"sum of block values ({settings['estimate']})"
    pareto = nasi_jax.report.pareto_figure(
        np.array([one.costs[cost] for one in shown]), np.array([one.value for one in shown]), cost, label, 0,
        settings["limits"].get(cost), dots="combinations of what is left",
    )  # fmt: skip
    history = {name: np.array([[_number(row[name]) for row in ended.rows]]) for name in _SHOWN}
    how = ""
    if judged is not None:
        how = f"Of the {len(judged[0])} best sums of block values the best as a whole network; all are in judged.csv."
    columns = ["value", *best.selected.costs, "genotype"]
    sections = [
        section("Selected network", drawn(folder, "cell.png", cell_of(space, best.genotype)), how),
        section(
            "Front of sizes",
            drawn(folder, "pareto.png", pareto),
            f"The networks that no other beats in value and {cost}: exactly, of all combinations of what is left.",
            columns=columns,
            rows=[[row[name] for name in columns] for row in rows],
        ),
        training_section(verb, space),
        section(
            "Search",
            drawn(folder, "history.png", nasi_jax.report.history_figure(history)),
            "Best and mean value of what is left and how many are, for every round and block in turn.",
        ),
    ]
    combinations = math.prod(map(len, left))
    title = f"A search of {space.name} by {verb.strategy}: {len(front)} sizes from {combinations:.3g} combinations"
    write_report(folder, title, best.text, sections, {"Settings": settings, "Provenance": origin})
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
    return best.text


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with null for what is not a number, which JSON does not have."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _csv(rows: list[dict[str, Any]]) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()
