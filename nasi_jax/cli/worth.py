"""What `nasi search` takes an architecture to be worth: scores, a table, or a short training."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import nasi_jax
from nasi_jax import data, spaces, train
from nasi_jax.runs import RunFolder
from nasi_jax.scores import Combination, Evaluator, Formula, ScoreEvaluator, Scorer, TableEvaluator, score
from nasi_jax.scores.cluster import evaluators
from nasi_jax.spaces.text import configured, unknown

if TYPE_CHECKING:
    from nasi_jax.cli.blackbox import BlackBoxOptions
    from nasi_jax.cli.search import Search

Value = Callable[[dict[str, float]], float]
_REFERENCE = "reference.json"
_REFERENCES = 100
_PARALLEL = 8


@dataclasses.dataclass
class Worth:
    """Where values come from.

    Attributes:
        label: what the value is.
        names: names of an evaluation's figures.
        outputs: number of outputs of the networks.
        parallel: how many architectures are best evaluated at once.
        at: makes the evaluator and the value of a search with a seed, whose run folder keeps what it needs again.
        random: mean best value of random search after each of some evaluations, or None where it is not known.
        random_from: where that is known from.
    """

    label: str
    names: tuple[str, ...]
    outputs: int
    parallel: int
    at: Callable[[int, RunFolder], tuple[Evaluator, Value]]
    random: Callable[[int], np.ndarray | None]
    random_from: str = ""


def opened(options: BlackBoxOptions, verb: Search, space: spaces.SearchSpace) -> Worth:
    """Opens what a command line names.

    Args:
        options: names a score, a table or a recipe.
        verb: names the data.
        space: the search space.

    Returns:
        Where values come from.

    Raises:
        ValueError: a name is unknown, or options do not go together.
    """
    if options.table is not None and options.recipe is not None:
        raise ValueError("recipe: expected one of --score, --table and --recipe, got --table too")
    if options.table is not None and options.ray is not None:
        raise ValueError(f"ray: expected with --score or --recipe, got {options.ray!r} with --table")
    if options.table is not None:
        return _of_table(options, space)
    if options.column is not None:
        raise ValueError(f"column: expected with --table, got {options.column!r} without")
    if options.recipe is not None:
        return _of_training(options, verb, space)
    return _of_scores(options, verb, space)


def _of_table(options: BlackBoxOptions, space: spaces.SearchSpace) -> Worth:
    if options.column is None:
        raise ValueError("column: expected the column of the table to maximise, got none")
    path = options.table or ""
    header = nasi_jax.tabular.header(path, "table")
    if options.column not in header:
        raise ValueError(unknown("column", options.column, [name for name in header if name != "arch"]))
    table = nasi_jax.tabular.Table.read(path, [options.column])
    if not any(_is_of(space, text) for text in table.rows):
        raise ValueError(f"table: expected architectures of {space.name}, none of the {len(table.rows)} rows is one")
    evaluator, column = TableEvaluator(space, table), options.column

    def random(evaluations: int) -> np.ndarray:
        values = table.columns[column]
        if isinstance(space, spaces.Restricted):
            values = values[list(table.rows_of(space).values())]
        return _best_of(values, evaluations)

    return Worth(column, (column,), 10, 1, lambda *_: (evaluator, lambda figures: figures[column]), random,
                 "in closed form from the table")  # fmt: skip


def _is_of(space: spaces.SearchSpace, text: str) -> bool:
    try:
        space.parse(text)
    except ValueError:
        return False
    return True


def _of_scores(options: BlackBoxOptions, verb: Search, space: spaces.SearchSpace) -> Worth:
    formula = Formula.parse(options.score)
    names = [*formula.weights]
    known = {name: score(name) for name in names}
    source = verb.data.source(space)
    Scorer(space, source, names, options.networks)  # says what does not go together

    def make() -> Callable[[int], Evaluator]:
        return functools.partial(ScoreEvaluator, Scorer(space, source, names, options.networks))

    scored = evaluators(options.ray, names, make)
    signs = {name: 1 if found.higher_is_better else -1 for name, found in known.items()}
    references: list[np.ndarray] = []

    def at(seed: int, folder: RunFolder) -> tuple[Evaluator, Value]:
        evaluator = scored(seed)
        sample = _reference(evaluator, space, seed, folder)
        value = Combination.fit(formula, signs, sample)
        references.append(np.array([value(row) for row in sample]))
        return evaluator, value

    def random(evaluations: int) -> np.ndarray:
        return np.mean([_best_of(values, evaluations) for values in references], axis=0)

    return Worth(options.score, tuple(names), source.outputs, _PARALLEL, at, random,
                 f"estimated from {_REFERENCES} random architectures, none better than the best of them")  # fmt: skip


def _reference(evaluator: Evaluator, space: spaces.SearchSpace, seed: int, folder: RunFolder) -> list[dict[str, float]]:
    """Returns the figures of random architectures, which the run folder keeps."""
    path = folder.path / _REFERENCE
    kept: dict[str, Any] = {}
    if path.exists():
        try:
            kept = json.loads(path.read_text())
            return [{name: math.nan if v is None else v for name, v in row.items()} for row in kept[str(seed)]]
        except (ValueError, KeyError, TypeError, AttributeError):
            kept = kept if isinstance(kept, dict) else {}
    drawn = jax.device_get(jax.vmap(space.sample)(jax.random.split(jax.random.key(seed), _REFERENCES)))
    genotypes = [jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(_REFERENCES)]
    rows = [dict(row) for row in evaluator.stream(genotypes)]
    kept[str(seed)] = [{name: v if math.isfinite(v) else None for name, v in row.items()} for row in rows]
    folder.write(_REFERENCE, json.dumps(kept) + "\n")
    return rows


def _of_training(options: BlackBoxOptions, verb: Search, space: spaces.SearchSpace) -> Worth:
    recipe = configured("recipe", options.recipe or "", train.RECIPES)
    if verb.data.name == "gaussian":
        raise ValueError("data: expected a data set with labels for --recipe, got 'gaussian'")
    source: Any = verb.data.source(space)
    training, held_out = data.hold_out(source, options.holdout)

    def make() -> Callable[[int], Evaluator]:
        return functools.partial(train.TrainingEvaluator, space, recipe, training, held_out)

    names, classified = ("accuracy", "loss"), training.loss is data.cross_entropy
    trained = evaluators(options.ray, names, make)

    def at(seed: int, _: RunFolder) -> tuple[Evaluator, Value]:
        return trained(seed), lambda figures: figures["accuracy"] if classified else -figures["loss"]

    label = "held-out accuracy" if classified else "minus the held-out error"
    return Worth(label, names, source.outputs, 1, at, lambda _: None)


def _best_of(values: np.ndarray, evaluations: int) -> np.ndarray:
    """Returns the mean of the best of 1, 2, ... uniform draws, (evaluations,)."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(evaluations, np.nan)
    values = np.where(finite, values, values[finite].min())
    counts = np.unique(np.geomspace(1, evaluations, 60).astype(int))
    means = [nasi_jax.tabular.best_of_random(values, values, int(n)).mean for n in counts]
    return np.interp(np.arange(1, evaluations + 1), counts, means)
