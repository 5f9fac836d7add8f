"""`nasi score`: training-free scores of many architectures, as rows of a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from nasi_jax import spaces
from nasi_jax.cli.options import DataOptions
from nasi_jax.runs.folder import RunFolderError, interruptible, provenance, write_atomic
from nasi_jax.runs.progress import Progress
from nasi_jax.scores.catalogue import SCORES
from nasi_jax.scores.cluster import ClusterScorer
from nasi_jax.scores.scorer import Compilation, ScoreConfig, Scorer

_CONFIG = ScoreConfig()
_LARGEST_WHOLE = 10**6


class Row(NamedTuple):
    """One row to be: an architecture and a seed, or what is wrong with its text."""

    text: str
    genotype: Any
    seed: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class ScoreVerb(DataOptions):
    """Score architectures at initialisation; append a row for each and seed to a CSV file.

    Rows that the file has already are not computed again, so that an interrupted command continues when it is given
    again. Settings stand in a file of the same name that ends in .json.

    Attributes:
        out: CSV file; columns genotype, seed, the scores, and a reason where a score is not a finite number.
        score: names of the scores; --list explains them.
        list: print what every score computes and needs, and stop.
        space: search space.
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
        keep_going: leave out duplicates and record malformed lines as rows, instead of stopping.
        overwrite: drop the file that is there.
        config: size of the networks.
    """

    out: pathlib.Path = pathlib.Path("scores.csv")
    score: tuple[str, ...] = ("ntk-one-batch",)
    list: bool = False
    space: str = "nasbench201"
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
    keep_going: bool = False
    overwrite: bool = False
    config: Annotated[ScoreConfig, tyro.conf.arg(name="")] = _CONFIG

    def run(self) -> int:
        """Runs the command.

        Returns:
            The exit status: 0, or 130 after an interruption.

        Raises:
            ValueError: an option is out of range, a genotype is malformed, or the file cannot be used.
        """
        if self.list:
            print("\n".join(_explained()))
            return 0
        if self.seeds < 1:
            raise ValueError(f"seeds: expected a positive integer, got {self.seeds}")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - seeds, got {self.seed}")
        index, count = self._shard()
        space = spaces.get(self.space)
        devices = jax.devices()
        several = len(devices) > 1 and self.compilation != "blocks"
        mesh = jax.make_mesh((len(devices),), ("architectures",)) if several else None
        options: dict[str, Any] = {"compilation": self.compilation, "per_device": self.per_device, "mesh": mesh}
        source = self.source()
        scorer: Any = Scorer(space, source, self.score, self.config, **options)
        compilation = scorer.compilation
        chosen = list(self._architectures(space))[index::count]
        rows = [row._replace(seed=seed) for seed in range(self.seed, self.seed + self.seeds) for row in chosen]
        done = self._open(compilation)
        if self.ray is not None:
            options |= {"compilation": compilation, "mesh": None}
            scorer = ClusterScorer(self.ray, (space, source, self.score, self.config), options)
        missing = [row for row in rows if (row.text, row.seed) not in done]
        try:
            self._append(scorer, missing, len(rows))
        except KeyboardInterrupt:
            print(f"\nnasi: interrupted; the same command continues {self.out}", file=sys.stderr)
            return 130
        print(self.out)
        return 0

    def _append(self, scorer: Any, rows: list[Row], total: int) -> None:
        progress = Progress(f"nasi score {self.space}", total, total - len(rows), unit="row")
        with interruptible() as check, progress, self.out.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for seed, same_seed in itertools.groupby(rows, lambda row: row.seed):
                waiting = list(same_seed)
                scores = scorer.stream(scorer.draw(seed), (row.genotype for row in waiting if not row.reason))
                for row in waiting:
                    figures = dict.fromkeys(scorer.names, math.nan) if row.reason else next(scores)
                    bad = [name for name, value in figures.items() if not math.isfinite(value)]
                    reason = row.reason or (f"not finite: {' '.join(bad)}" if bad else "")
                    writer.writerow([row.text, row.seed, *figures.values(), reason])
                    file.flush()
                    progress.advance(1, figures)
                    check()

    def _shard(self) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard: expected I/N with I from 0 to N - 1, got {self.shard!r}")
        return int(match[1]), int(match[2])

    def _architectures(self, space: spaces.SearchSpace) -> Iterator[Row]:
        """Yields the architectures asked for, each once, in an order that is always the same."""
        given = [name for name in ("genotypes", "sample") if getattr(self, name) is not None] + ["all"] * self.all
        if len(given) != 1:
            raise ValueError(f"genotypes: expected one of --genotypes, --sample and --all, got {given or 'none'}")
        if self.all:
            if space.size > _LARGEST_WHOLE:
                raise ValueError(f"all: expected a space of at most {_LARGEST_WHOLE} architectures, got {space.size}")
            return (Row(space.format(genotype), genotype, 0) for genotype in space.enumerate())
        if self.sample is not None:
            return self._sampled(space, self.sample)
        if self.genotypes == "-":
            return self._parsed(space, sys.stdin)
        path = pathlib.Path(self.genotypes or "")
        if not path.is_file():
            raise FileNotFoundError(f"genotypes: expected a file, there is none at {str(path)!r}")
        return self._parsed(space, path.read_text().splitlines())

    def _sampled(self, space: spaces.SearchSpace, size: int) -> Iterator[Row]:
        if not 1 <= size <= space.size:
            raise ValueError(f"sample: expected 1 to {space.size} architectures of {space.name}, got {size}")
        found: dict[str, Any] = {}
        for number in itertools.count():
            keys = jax.random.split(jax.random.fold_in(jax.random.key(self.sample_seed), number), size)
            drawn = jax.device_get(jax.vmap(space.sample)(keys))
            for i in range(size):
                genotype = jax.tree.map(lambda leaf, i=i: leaf[i], drawn)
                found.setdefault(space.format(genotype), genotype)
            if len(found) >= size:
                return (Row(text, genotype, 0) for text, genotype in itertools.islice(found.items(), size))
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
                    raise ValueError(f"genotypes: line {number}: {error}") from error
                if first.setdefault(text, number) == number:
                    yield Row(text, None, 0, f"line {number}: {error}")
                continue
            text = space.format(genotype)
            if first.setdefault(text, number) == number:
                yield Row(text, genotype, 0)
            elif not self.keep_going:
                raise ValueError(f"genotypes: line {number} repeats line {first[text]}: {text!r}")

    def _open(self, compilation: Compilation) -> set[tuple[str, int]]:
        """Creates the file, or drops the last row of one where it was torn; returns the rows that are there."""
        settings = dataclasses.asdict(self)
        for name in ("out", "overwrite", "download", "data_dir", "list", "keep_going", "per_device", "ray"):
            settings.pop(name)
        settings |= {"network": settings.pop("config"), "score": list(self.score), "compilation": compilation}
        columns = ["genotype", "seed", *self.score, "reason"]
        beside = self.out.with_suffix(".json")
        if self.out.exists() and not self.overwrite:
            try:
                before = json.loads(beside.read_text())["settings"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RunFolderError(
                    f"out: expected the settings of {str(self.out)!r} in {str(beside)!r}; choose another file, or pass "
                    "--overwrite"
                ) from error
            if before != settings:
                names = sorted(name for name in settings | before if settings.get(name) != before.get(name))
                raise RunFolderError(
                    f"out: {str(self.out)!r} is of another configuration, which differs in {names}; choose another "
                    "file, or pass --overwrite"
                )
            content = self.out.read_text()
            whole = content[: content.rfind("\n") + 1]
            if whole != content:
                write_atomic(self.out, whole)
            rows = list(csv.reader(whole.splitlines()))
            if rows and rows[0] == columns:
                return {(row[0], int(row[1])) for row in rows[1:]}
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(beside, json.dumps({"settings": settings, "provenance": provenance("float32")}, indent=2))
            write_atomic(self.out, ",".join(columns) + "\n")
        except OSError as error:
            raise RunFolderError(f"out: cannot write {str(self.out)!r}: {error.strerror or error}") from error
        return set()


def _explained() -> list[str]:
    lines = []
    for name, score in SCORES.items():
        needs = [word for word, needed in (("data", score.data), ("labels", score.labels)) if needed]
        better = "higher" if score.higher_is_better else "lower"
        lines += [f"{name}: {score.formula}", f"    {better} is better; needs {' and '.join(needs) or 'no data'}"]
        lines += [f"    {score.paper}"] if score.paper else []
    return lines
