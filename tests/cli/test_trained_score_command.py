"""`nasi score` and `nasi search` with a score that trains, on a space of three stages that compiles in a second."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import pytest
import ray_stand_in

from nasi_jax import cli, spaces
from nasi_jax.nn import Dense, Style, observe_stage
from nasi_jax.programs import Execution

NAMES = ["gennas(task=combo,steps=3,batch=2)", "gennas(task=darts,steps=2,batch=3)"]
SETTINGS = ["--space", "staged", "--channels", "3", "--cells", "1", "--batch", "4", "--image-size", "8"]
OPTIONS = [*SETTINGS, "--score", *NAMES]


class Network(spaces.Network):
    """Two edges a stage, each a weighted sum of nothing, the pixels, one or two layers on them, and their overflow."""

    capabilities = frozenset({"stages"})

    genotype: Any = None

    @flax.linen.compact
    def __call__(self, x, weights=None):
        rows = jax.nn.one_hot(self.genotype.operations, 5) if weights is None else weights["cell"]
        for stage in range(3):
            x = Dense(self.size.channels, self.style)(x[:, :: 1 + (stage > 0), :: 1 + (stage > 0)])
            for row in rows[2 * stage : 2 * stage + 2]:
                one, two = (Dense(self.size.channels, self.style)(jnp.tanh(x)) for _ in range(2))
                x = x + row[2] * one + row[3] * (one + two) + row[4] * 1e30 * x
            observe_stage(self, stage, x)
        return Dense(self.outputs, self.style)(x.mean(axis=(1, 2)))


@dataclasses.dataclass(frozen=True)
class Space(spaces.NASBench201):
    """NAS-Bench-201's choices with `Network` behind them."""

    name = "staged"

    def network(self, genotype, size, outputs, style=Style(), execution=Execution()):
        return Network(size, outputs, style, execution, genotype)


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setitem(spaces.SPACES, "staged", Space())
    monkeypatch.chdir(tmp_path)


def score(out, *options):
    assert cli.main(["score", "--out", out, *OPTIONS, *options]) == 0
    with pathlib.Path(out).open(newline="") as file:
        return list(csv.DictReader(file))


def test_killed_shared_among_jobs_or_on_a_cluster_a_command_writes_the_same_rows(tmp_path, monkeypatch):
    options = ["--sample", "4", "--seeds", "2", "--score", NAMES[0]]
    rows = score("whole.csv", *options)
    whole = (tmp_path / "whole.csv").read_bytes()
    values = [float(row[NAMES[0]]) for row in rows if row["reason"] == ""]
    assert len(set(values)) > 3
    assert -50 < min(values) <= max(values) < 0
    for out in ("cut.csv", "cut.csv.json"):
        (tmp_path / out).write_bytes((tmp_path / out.replace("cut", "whole")).read_bytes())
    (tmp_path / "cut.csv").write_bytes(whole[: len(whole) // 2])
    score("cut.csv", *options)
    assert (tmp_path / "cut.csv").read_bytes() == whole
    parts = [row for i in range(2) for row in score(f"part{i}.csv", *options, "--shard", f"{i}/2")]
    assert sorted(map(str, parts)) == sorted(map(str, rows))
    ray = ray_stand_in.installed(monkeypatch, 2)
    score("cluster.csv", *options, "--ray", "auto")
    assert (tmp_path / "cluster.csv").read_bytes() == whole
    assert sum(map(sum, ray.asked)) == 8


def test_a_training_that_diverges_leaves_a_row_with_the_reason(tmp_path):
    """Its neighbours are scored as ever."""
    (tmp_path / "cells.txt").write_text(
        "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|\n"
        "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|\n"
    )
    diverged, fitted = score("scores.csv", "--genotypes", "cells.txt")
    assert [diverged[name] for name in NAMES] == ["nan", "nan"]
    assert diverged["reason"] == f"not finite: {' '.join(NAMES)}"
    assert fitted["reason"] == ""
    assert all(float(fitted[name]) < 0 for name in NAMES)


@pytest.mark.slow
def test_a_search_maximises_it(tmp_path):
    strategy = ["--strategy", "evolution", "--population", "3", "--contenders", "2", "--evaluations", "5"]
    assert cli.main(["search", *strategy, *SETTINGS, "--score", NAMES[0], "--out", "run"]) == 0
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    best = max((row for row in history if row[NAMES[0]] is not None), key=lambda row: row[NAMES[0]])
    chosen = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert best["genotype"] in json.dumps(chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "4"], "x: expected images of which the last stage leaves at least 2x2 pixels, got 1x1"),
        (["--batch", "1"], "batch: expected at least 2, got 1"),
        (["--batch", "2"], "score: expected at most the batch of 2 examples, got gennas(task=darts,steps=2,batch=3)"),
        (["--score", "gennas(batch=1)"], "score: expected an integer of at least 2 for batch of gennas, got 1"),
        (["--score", "gennas(task=cifar)"], "score: task of gennas: expected one of"),
        (["--space", "transnas-micro", "--channels", "4"], "networks of three stages, transnas-micro has others"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path, capsys, options, message):
    assert cli.main(["score", "--out", "scores.csv", "--sample", "2", *OPTIONS, *options]) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert not (tmp_path / "scores.csv").exists() or len((tmp_path / "scores.csv").read_text().splitlines()) == 1
