import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nasi_jax import cli, spaces
from nasi_jax.scores import scorer

SIZE = ["--channels", "1", "--cells", "1", "--batch", "2", "--image-size", "4", "--classes", "2"]
CELLS = [
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    "|none~0|+|avg_pool_3x3~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
]


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Runs the command with a score that costs nothing, so that files and options are what is tested."""
    monkeypatch.chdir(tmp_path)

    def compute(self, draw, genotypes):
        for c in (np.asarray(g.operations) for g in genotypes):
            yield {name: float(np.sum(c == 3)) if c.any() else float("nan") for name in self.names}

    monkeypatch.setattr(scorer.Scorer, "stream", compute)
    monkeypatch.setattr(scorer.Scorer, "draw", lambda self, seed: None)

    def run(*options, out="scores.csv"):
        return cli.main(["score", "--out", out, "--score", "snip", *SIZE, *options])

    run.rows = lambda out="scores.csv": list(csv.DictReader((tmp_path / out).open(newline="")))
    (tmp_path / "cells.txt").write_text("\n".join(CELLS) + "\n\n")
    return run


def test_a_row_for_each_architecture_and_seed(score, tmp_path):
    assert score("--genotypes", "cells.txt", "--seeds", "2", "--seed", "5") == 0
    rows = score.rows()
    assert [(row["genotype"], row["seed"]) for row in rows] == [(cell, seed) for seed in "56" for cell in CELLS]
    assert [row["snip"] for row in rows[:3]] == ["2.0", "1.0", "nan"]
    assert [row["reason"] for row in rows[:3]] == ["", "", "not finite: snip"]
    settings = json.loads((tmp_path / "scores.json").read_text())
    assert settings["settings"]["network"]["channels"] == 1
    assert "jax" in settings["provenance"]["versions"]


def test_from_standard_input(score, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(CELLS[1]))
    assert score("--genotypes", "-") == 0
    assert [row["genotype"] for row in score.rows()] == [CELLS[1]]


@pytest.mark.parametrize("cut", [0, 1, 40, 150, 400])
def test_killed_anywhere_and_started_again_the_file_is_the_same(score, tmp_path, cut):
    options = ["--sample", "9", "--seeds", "2"]
    score(*options)
    whole = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "scores.csv").write_bytes(whole[: len(whole) - cut])
    assert score(*options) == 0
    assert (tmp_path / "scores.csv").read_bytes() == whole


@pytest.mark.parametrize("compilation", ["space", "blocks"])
def test_a_real_signal_loses_nothing(tmp_path, compilation):
    options = ["--sample", "40", "--score", "ntk-one-batch", "naswot", "--compilation", compilation, *SIZE]
    # one device, whose cores score side by side
    env = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")}

    def command(out):
        return [sys.executable, "-m", "nasi_jax.cli", "score", *options, "--out", str(tmp_path / out)]

    subprocess.run(command("whole.csv"), check=True, capture_output=True, env=env)
    rows = 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command("cut.csv"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        while not (tmp_path / "cut.csv").exists() or (tmp_path / "cut.csv").read_bytes().count(b"\n") < rows + 5:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=60) == (-number if number == signal.SIGKILL else 130)
        rows = (tmp_path / "cut.csv").read_bytes().count(b"\n")
        assert rows < 41
    subprocess.run(command("cut.csv"), check=True, capture_output=True, env=env)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_shards_make_the_whole_without_repetition(score):
    score("--sample", "11")
    parts = []
    for i in range(3):
        score("--sample", "11", "--shard", f"{i}/3", out=f"part{i}.csv")
        parts += score.rows(f"part{i}.csv")
    together = sorted(row["genotype"] for row in parts)
    assert together == sorted(row["genotype"] for row in score.rows())
    assert len(set(together)) == 11


def test_the_whole_space(score, monkeypatch):
    monkeypatch.setattr(spaces.NASBench201, "enumerate", lambda self: map(self.parse, CELLS))
    assert score("--all") == 0
    assert len(score.rows()) == 3


def test_malformed_and_repeated_lines(score, tmp_path, capsys):
    (tmp_path / "bad.txt").write_text(f"{CELLS[0]}\n|nonsense~0|\n{CELLS[0]}\n{CELLS[1]}\n")
    assert score("--genotypes", "bad.txt") == 2
    assert "genotypes: line 2: arch string: expected" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()
    assert score("--genotypes", "bad.txt", "--keep-going") == 0
    rows = score.rows()
    assert [row["genotype"] for row in rows] == [CELLS[0], "|nonsense~0|", CELLS[1]]
    assert rows[1]["reason"].startswith("line 2: arch string")
    (tmp_path / "twice.txt").write_text(f"{CELLS[0]}\n{CELLS[0]}\n")
    assert score("--genotypes", "twice.txt", out="other.csv") == 2
    assert "line 2 repeats line 1" in capsys.readouterr().err


def test_files_of_other_settings_are_left_alone(score, tmp_path, capsys):
    score("--sample", "3")
    before = (tmp_path / "scores.csv").read_bytes()
    assert score("--sample", "4") == 2
    assert "differs in ['sample']" in capsys.readouterr().err
    assert (tmp_path / "scores.csv").read_bytes() == before
    assert score("--sample", "4", "--overwrite") == 0
    assert len(score.rows()) == 4
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    assert score("--sample", "3", out="mine.csv") == 2
    assert "expected the settings" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "genotypes: expected one of"),
        (["--sample", "2", "--all"], "genotypes: expected one of"),
        (["--sample", "0"], "sample: expected 1 to"),
        (["--sample", "20000"], "sample: expected 1 to 15625"),
        (["--sample", "2", "--shard", "2/2"], "shard: expected I/N"),
        (["--sample", "2", "--seeds", "0"], "seeds: expected"),
        (["--genotypes", "absent.txt"], "there is none at 'absent.txt'"),
        (["--sample", "2", "--score", "guess"], "scores: expected some of"),
    ],
)
def test_bad_options(score, options, message, capsys):
    assert score(*options) == 2
    assert message in capsys.readouterr().err


def test_list_explains_every_score(score, capsys):
    from nasi_jax.scores import SCORES

    assert score("--list") == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: {value.formula}" in printed for name, value in SCORES.items())
    assert "lower is better" in printed


def test_for_real(tmp_path):
    command = [sys.executable, "-m", "nasi_jax.cli", "score", "--out", tmp_path / "s.csv", "--sample", "3", *SIZE]
    subprocess.run([*command, "--score", "ntk-one-batch", "params"], check=True, capture_output=True)
    rows = list(csv.DictReader((tmp_path / "s.csv").open(newline="")))
    assert len(rows) == 3
    assert all(float(row["ntk-one-batch"]) > 0 and float(row["params"]) > 10 for row in rows)


@pytest.mark.slow
def test_two_nodes_of_a_ray_cluster_write_the_same_file(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        options = ["--sample", "20", "--seeds", "2", "--score", "ntk-one-batch", "naswot", *SIZE]
        assert cli.main(["score", "--out", "alone.csv", *options]) == 0
        assert cli.main(["score", "--out", "cluster.csv", "--ray", cluster.address, *options]) == 0
        assert len(ray.nodes()) == 2
        assert (tmp_path / "cluster.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
        whole = (tmp_path / "cluster.csv").read_bytes()
        (tmp_path / "cluster.csv").write_bytes(whole[: len(whole) // 2])
        assert cli.main(["score", "--out", "cluster.csv", "--ray", cluster.address, *options]) == 0
        assert (tmp_path / "cluster.csv").read_bytes() == whole
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_ray_that_is_not_there(score, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert score("--sample", "2", "--ray", "local") == 2
    assert "pip install 'nasi_jax[ray]'" in capsys.readouterr().err
