"""`nasi search --strategy blockwise`: run folder, front, limits, resume and errors."""

import csv
import functools
import json
import re

import numpy as np
import pytest

from nasi_jax import cli, data, scores, spaces
from nasi_jax.cli import blockwise

SPACE = spaces.get("nasbert")
FILES = {"config.json", "genotype.json", "history.jsonl", "blocks.csv", "front.csv", "cell.png", "history.png",
         "pareto.png", "report.html", "checkpoint.msgpack"}  # fmt: skip
SMALL = ["--bins", 4, "--pool", 12, "--kept", 3]


class Drawn:
    """Values without any network: larger candidates are better, by and large."""

    steps = 0

    def __init__(self, space, size, source, *, batch, seed):
        self.seed, self.size = seed, (space.candidates[1] > 0).sum(axis=1) + space.candidates[0]

    def init(self, seed):
        return ()

    def values(self, state, block, candidates):
        noise = np.array([np.random.default_rng([self.seed, block, i]).normal() for i in candidates])
        return self.size[candidates] + noise


@pytest.fixture(scope="module", autouse=True)
def patched():
    """Values that are drawn, and costs that are counted once."""
    counted = functools.cache(lambda: scores.block_costs(SPACE, SPACE.Size(), 10, data.shapes(SPACE.noise(10), 2).x))

    def costs(*arguments, latency=False, **options):
        return scores.block_costs(*arguments, latency=True, **options) if latency else counted()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "BlockNTK", Drawn)
        patch.setattr(blockwise, "block_costs", costs)
        yield


def run(out, *arguments, space="nasbert"):
    command = ["search", "--space", space, "--strategy", "blockwise", "--out", out, *arguments]
    return cli.main([str(part) for part in command])


def contents(path):
    record = json.loads((path / "genotype.json").read_text())
    record.pop("provenance")
    return record, (path / "history.jsonl").read_text(), (path / "blocks.csv").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    assert run(path, *SMALL) == 0
    return path


def test_a_run_leaves_a_front_of_sizes(finished):
    assert {path.name for path in finished.iterdir()} - {".lock"} == FILES
    record = json.loads((finished / "genotype.json").read_text())
    front = record["front"]
    sizes, values = ([row[name] for row in front] for name in ("params", "value"))
    assert len(front) >= 4
    assert sizes == sorted(sizes)
    assert values == sorted(values)
    assert (record["value"], record["genotype"]) == (values[-1], front[-1]["genotype"])
    assert spaces.from_json(SPACE, record) == SPACE.parse(record["genotype"])
    with (finished / "front.csv").open() as file:
        assert [row["genotype"] for row in csv.DictReader(file)] == [row["genotype"] for row in front]
    counter = scores.Counter(SPACE, data.shapes(SPACE.noise(10), 2).x, SPACE.Size(), 10)
    assert counter(SPACE.parse(front[0]["genotype"]))["params"] == front[0]["params"]
    assert front[-1]["genotype"] in (finished / "report.html").read_text()


def test_what_is_left_of_every_block_is_a_table(finished):
    with (finished / "blocks.csv").open() as file:
        rows = list(csv.DictReader(file))
    blocks = np.array([int(row["block"]) for row in rows])
    assert set(blocks) == {0, 1, 2, 3}
    assert all(3 <= (blocks == block).sum() <= 12 for block in range(4))
    widths = {width: place for place, width in enumerate(SPACE.widths)}
    for row in rows:
        width, names = row["candidate"].split(":")
        at_least = len(names.split(",")) + widths[int(width)]
        assert abs(float(row["value"]) - at_least) < 6


def test_limits_hold_down_to_small_networks(finished, tmp_path):
    """A search without limits keeps nothing so small; with them, bins are those of what may be within them."""
    smallest = json.loads((finished / "genotype.json").read_text())["front"][0]["params"]
    limit = 2.13415e6 + 0.3 * (smallest - 2.13415e6)
    assert run(tmp_path / "run", *SMALL, "--max-params", limit) == 0
    record = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert record["costs"]["params"] <= limit
    assert record["front"][-1]["genotype"] == record["genotype"]


def test_a_latency_limit_measures_the_operations(tmp_path, monkeypatch):
    monkeypatch.setattr("nasi_jax.scores.blocks.timed", lambda module, *_: 1.0 if "norm_" not in str(module) else 2.0)
    assert run(tmp_path / "run", *SMALL, "--max-latency-ms", 12) == 0
    record = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert record["costs"]["latency_ms"] <= 12
    assert len(json.loads((tmp_path / "run" / "latency.json").read_text())["milliseconds"]) == 25 + 10 + 20


def test_a_run_that_was_interrupted_continues(finished, tmp_path, monkeypatch):
    first = Drawn.values
    calls = []

    def some(self, state, block, candidates):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return first(self, state, block, candidates)

    monkeypatch.setattr(Drawn, "values", some)
    assert run(tmp_path / "run", *SMALL) == 130
    monkeypatch.setattr(Drawn, "values", first)
    assert not (tmp_path / "run" / "genotype.json").exists()
    assert run(tmp_path / "run", *SMALL) == 0
    assert contents(tmp_path / "run") == contents(finished)


def test_a_finished_run_stays(finished, capsys):
    assert run(finished, *SMALL) == 2
    assert "finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--max-params", "1e5"],
            "meets them, of 90926189348006250000: .*params at most 100000, the smallest seen is",
        ),
        (["--max-params", "3e6", "--max-flops", 10], "flops at most 10, the smallest seen is"),
        (["--positions", 16], "x: expected at most 16 tokens, the network's positions, got 64"),
        (["--seeds", 2], "seeds: expected 1"),
        (["--width", 100], "width: expected a multiple of 8, the number of heads, got 100"),
        (["--judged", -1], "judged: expected 0 or a positive integer, got -1"),
        (["--kept", 0], "kept: expected an integer of at least 1, got 0"),
        (["--estimate", "distillation"], "data: expected text whose words are masked out"),
        (["--population", 5], "population: an option of --strategy evolution, not of blockwise"),
        (["--max-params", 0], "max_params: expected a positive number"),
    ],
)
def test_bad_options_are_refused_before_there_is_a_folder(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(blockwise, "BlockNTK", scores.BlockNTK)
    assert run(tmp_path / "run", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run" / "genotype.json").exists()


def test_a_space_without_blocks_is_refused(tmp_path, capsys):
    assert run(tmp_path / "run", space="nasbench201") == 2
    assert "space: expected a whole one of blocks in a row, nasbert, got 'nasbench201'" in capsys.readouterr().err
    assert run(tmp_path / "run", "--forbid", "128") == 2
    assert "got 'nasbert', of which choices are left out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("estimate", ["ntk", "distillation"])
def test_a_run_of_every_estimate(tmp_path, monkeypatch, estimate):
    """With a checkpoint of weights between, for the one that trains."""
    monkeypatch.setattr(blockwise, "BlockNTK", scores.BlockNTK)
    monkeypatch.setattr(blockwise, "block_costs", scores.block_costs)
    ids = np.random.default_rng(0).integers(5, 30, (64, 8))
    np.savez(tmp_path / "text.npz", ids=ids)
    few = ["--bins", 2, "--pool", 3, "--kept", 1, "--batch", 4, "--width", 16, "--embedding", 4, "--positions", 8]
    few += ["--data", tmp_path / "text.npz", "--labels", "masked"]
    if estimate == "distillation":
        few += [
            "--estimate",
            "distillation",
            "--teacher-steps",
            3,
            "--round-steps",
            2,
            "--teacher",
            "|".join(["512:F"] * 4),
        ]
    assert run(tmp_path / "run", *few) == 0
    whole = contents(tmp_path / "run")
    (tmp_path / "run" / "genotype.json").unlink()
    assert run(tmp_path / "run", *few) == 0
    assert contents(tmp_path / "run") == whole
    if estimate == "distillation":
        with (tmp_path / "run" / "judged.csv").open() as file:
            judged = list(csv.DictReader(file))
        assert len(judged) == 16  # two bins of one in each of four blocks
        assert max(judged, key=lambda row: float(row["whole"]))["genotype"] == whole[0]["genotype"]
