"""`nasi score`: training-free scores of many architectures, as rows of a CSV file."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import jax
import tyro

from nasi_jax import runs, spaces
from nasi_jax.cli.options import DataOptions, SpaceOptions, load_settings
from nasi_jax.runs import ScoreSheet
from nasi_jax.runs.files import read_text, text_identity
from nasi_jax.scores.catalogue import FORMULAS, SCORES
from nasi_jax.scores.cluster import evaluators
from nasi_jax.scores.evaluator import Evaluator, ScoreEvaluator
from nasi_jax.scores.scorer import Compilation, ScoreConfig, Scorer, is_derived

_LARGEST_WHOLE = 10**6
_DRAWN_AT_ONCE = 1024
SizeT = TypeVar("SizeT")


class Row(NamedTuple):
    """One row to be: an architecture and a seed, or what is wrong with its text."""

    text: str
    genotype: Any
    seed: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class ScoreVerb(Generic[SizeT]):
    """Score architectures at initialisation; append a row for each and seed to a CSV file.

    Rows that the file has already are not computed again, so that an interrupted command continues when it is given
    again, and one that asks for more architectures, seeds or scores adds them. Settings stand beside the file, in one
    of its name and .json.

    Attributes:
        out: CSV file; columns genotype, seed, the scores, and a reason where a score is not a finite number.
        score: names of the scores; --list explains them.
        list: print what every score computes and needs, and stop.
        genotypes: file with an architecture in text form on each line, or - for standard input.
        sample: number of architectures drawn at random, without repetition, instead of a file.
        sample_seed: seed of that draw.
        all: take every architecture of the space instead of a file.
        shard: I/N takes every N-th architecture from the I-th on, I from 0, for N jobs with a file each.
        seeds: number of seeds, each with its own parameters and batch.
        seed: first seed.
        compilation: one program for the whole "space", which takes several architectures and devices at once, or one
            for each of the "blocks" that networks are made of, the default for other spaces than nasbench201 where
            there is a single CPU device.
        per_device: architectures that a device takes at once; more than 1 may pay on accelerators.
        ray: address of a Ray cluster whose nodes share the work, or "local"; needs the extra of that name.
        format: notation of the architectures in the file, such as naslib, or index for nasbench201; by default that of
            the space.
        keep_going: leave out duplicates and record malformed lines as rows, instead of stopping.
        overwrite: drop the file that is there.
        load: Python files of yours that register spaces, scores or strategies.
        space: which architectures there are.
        data: where batches come from.
        networks: the networks that are scored, and on how many examples.
    """

    out: pathlib.Path = pathlib.Path("scores.csv")
    score: tuple[str, ...] = ("ntk-one-batch",)
    list: bool = False
    genotypes: str | None = None
    sample: int | None = None
    sample_seed: int = 0
    all: bool = False
    shard: str = "0/1"
    seeds: int = 1
    seed: int = 0
    compilation: Compilation | None = None
    per_device: int = 1
    ray: str | None = None
    format: str | None = None
    keep_going: bool = False
    overwrite: bool = False
    load: tuple[pathlib.Path, ...] = ()
    space: SpaceOptions = SpaceOptions()
    data: DataOptions = DataOptions()
    networks: Annotated[ScoreConfig[SizeT], tyro.conf.arg(name="networks that are scored")] = ScoreConfig()  # noqa: RUF009

    def run(self) -> int:
        """Runs the command.

        Returns:
            The exit status.

        Raises:
            ValueError: an option is out of range, a genotype is malformed, or the file cannot be used.
            Interrupted: a signal came; the rows before it are kept.
        """
        if self.list:
            print("\n".join(_explained()))
            return 0
        if self.seeds < 1:
            raise ValueError(f"seeds: expected a positive integer, got {self.seeds}")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - seeds, got {self.seed}")
        index, count = self._shard()
        space = self.space.opened()
        devices = jax.devices()
        several = len(devices) > 1 and self.compilation != "blocks" and space.one_shot
        several = several and not any(is_derived(space, name) for name in self.score)
        mesh = jax.make_mesh((len(devices),), ("architectures",)) if several else None
        options: dict[str, Any] = {"compilation": self.compilation, "per_device": self.per_device, "mesh": mesh}
        source = self.data.source(space)
        compilation = Scorer(space, source, self.score, self.networks, **options).compilation
        chosen, given = self._architectures(space)
        rows = [
            row._replace(seed=seed) for seed in range(self.seed, self.seed + self.seeds) for row in chosen[index::count]
        ]
        if self.ray is not None:
            options |= {"compilation": compilation, "mesh": None}

        def scored(names: tuple[str, ...]) -> Callable[[int], Evaluator]:
            def make() -> Callable[[int], Evaluator]:
                return functools.partial(ScoreEvaluator, Scorer(space, source, names, self.networks, **options))

            return evaluators(self.ray, names, make)

        with ScoreSheet(self.out, self.score) as sheet:
            keys = [(row.text, row.seed) for row in rows]
            sheet.open(self._settings(compilation), self._choice(given), keys, overwrite=self.overwrite)
            runs.run(
                sheet,
                lambda _, there: self._steps(scored, rows, there),
                total=len(rows),
                label=f"nasi score {space.name}",
                unit="row",
                covered=lambda there: sum("" not in map(row.get, self.score) for row in there),
            )
        print(self.out)
        return 0

    def _steps(
        self,
        scored: Callable[[tuple[str, ...]], Callable[[int], Evaluator]],
        rows: Sequence[Row],
        there: Sequence[runs.Row],
    ) -> Iterator[runs.Step[None]]:
        """Computes what the rows lack: first scores of those that are there, then those that are not."""
        known = {(row["genotype"], row["seed"]): row for row in there}
        lacking = []
        for row in rows:
            found = known.get((row.text, row.seed), {})
            names = tuple(name for name in self.score if found.get(name, "") == "")
            if names:
                lacking.append((row, names))
        done = len(rows) - len(lacking)
        # in the order of the file, and where rows are there already, before more are added
        lacking.sort(key=lambda pair: (pair[0].text, pair[0].seed) not in known)
        at: dict[tuple[str, ...], Callable[[int], Evaluator]] = {}
        for (seed, names), group in itertools.groupby(lacking, lambda pair: (pair[0].seed, pair[1])):
            if names not in at:
                at[names] = scored(names)
            waiting = [row for row, _ in group]
            scores = at[names](seed).stream(row.genotype for row in waiting if not row.reason)
            for row in waiting:
                found = known.get((row.text, row.seed))
                figures = dict.fromkeys(names, math.nan) if row.reason else next(scores)
                values = {name: (found or {}).get(name, "") for name in self.score} | figures
                bad = [name for name, value in values.items() if not math.isfinite(value)]
                reason = row.reason or (f"not finite: {' '.join(bad)}" if bad else "")
                done += 1
                line = {"genotype": row.text, "seed": row.seed, **values, "reason": reason}
                yield runs.Step(done, None, [line], figures, save=found is None)

    def _shard(self) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard: expected I/N with I from 0 to N - 1, got {self.shard!r}")
        return int(match[1]), int(match[2])

    def _architectures(self, space: spaces.SearchSpace) -> tuple[Sequence[Row], Any]:
        """Returns the architectures asked for, each once and always in one order, and the identity of their file."""
        given = [name for name in ("genotypes", "sample") if getattr(self, name) is not None] + ["all"] * self.all
        if len(given) != 1:
            raise ValueError(f"genotypes: expected one of --genotypes, --sample and --all, got {given or 'none'}")
        if self.all:
            if space.cardinality > _LARGEST_WHOLE:
                raise ValueError(
                    f"all: expected at most {_LARGEST_WHOLE} architectures, {space.name} has {space.cardinality}"
                )
            return [Row(self._write(space, genotype), genotype, 0) for genotype in space.enumerate()], None
        if self.genotypes is None:
            return self._sampled(space, self.sample or 0), None
        if self.genotypes == "-":
            try:
                text = sys.stdin.read().removeprefix("\ufeff")
            except ValueError as error:
                raise ValueError(f"genotypes: expected text on standard input: {error}") from error
        else:
            text = read_text(self.genotypes, "genotypes")
        rows = list(self._parsed(space, text.splitlines()))
        if not rows:
            raise ValueError(f"genotypes: expected architectures in {self.genotypes!r}, there are none")
        return rows, text_identity(self.genotypes, text)

    def _sampled(self, space: spaces.SearchSpace, size: int) -> Sequence[Row]:
        """Draws architectures; a larger sample begins with the smaller ones."""
        if not 1 <= size <= space.cardinality:
            raise ValueError(f"sample: expected 1 to {space.cardinality} architectures of {space.name}, got {size}")
        found: dict[str, Any] = {}
        for number in itertools.count():
            keys = jax.random.split(jax.random.fold_in(jax.random.key(self.sample_seed), number), _DRAWN_AT_ONCE)
            drawn = jax.device_get(jax.vmap(space.sample)(keys))
            for i in range(_DRAWN_AT_ONCE):
                genotype = jax.tree.map(lambda leaf, i=i: leaf[i], drawn)
                found.setdefault(self._write(space, genotype), genotype)
                if len(found) == size:
                    return [Row(text, genotype, 0) for text, genotype in found.items()]
        raise AssertionError

    def _parsed(self, space: spaces.SearchSpace, lines: Iterable[str]) -> Iterator[Row]:
        first: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            try:
                genotype = space.parse(text)
            except ValueError as error:
                if not self.keep_going:
                    raise ValueError(f"genotypes: line {number}: {error} (in {self.genotypes!r})") from error
                if first.setdefault(text, number) == number:
                    yield Row(text, None, 0, f"line {number}: {error}")
                continue
            text = self._write(space, genotype)
            if first.setdefault(text, number) == number:
                yield Row(text, genotype, 0)
            elif not self.keep_going:
                raise ValueError(
                    f"genotypes: line {number} repeats line {first[text]}: {text!r} (in {self.genotypes!r})"
                )

    def _write(self, space: spaces.SearchSpace, genotype: Any) -> str:
        return space.writer(self.format)(genotype)

    def _settings(self, compilation: Compilation) -> dict[str, Any]:
        """Returns what decides a row's scores, as JSON values."""
        own = {"network": dataclasses.asdict(self.networks), "compilation": compilation}
        return {"space": self.space.name} | self.data.settings() | own | load_settings(self.load)

    def _choice(self, given: Any) -> dict[str, Any]:
        """Returns what decides which rows there are, as JSON values."""
        names = ("sample", "sample_seed", "all", "shard", "seeds", "seed", "format")
        return self.space.settings() | {"genotypes": given} | {name: getattr(self, name) for name in names}


def with_size(space: spaces.SearchSpace) -> ScoreVerb[Any]:
    """Returns the options' defaults, with the published size of the networks of a space."""
    return ScoreVerb(networks=ScoreConfig(space.Size()))


def _explained() -> list[str]:
    lines = []
    for name, score in SCORES.items():
        needs = [word for word, needed in (("data", score.data), ("labels", score.labels)) if needed]
        better = "higher" if score.higher_is_better else "lower"
        lines += [f"{name}: {score.formula}", f"    {better} is better; needs {' and '.join(needs) or 'no data'}"]
        lines += [f"    {score.paper}"] if score.paper else []
        for option, about in score.options.items():
            more = f", one of {', '.join(about.choices)}" if about.choices else ""
            lines.append(f"    option, as {name}({option}={about.default}){more}")
    return lines + [f"{name}: {formula}\n    a formula, for nasi search --score" for name, formula in FORMULAS.items()]
