import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from nasi_jax import cli, runs, spaces
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
    settings = json.loads((tmp_path / "scores.csv.json").read_text())
    assert settings["settings"]["network"]["size"]["channels"] == 1
    assert "jax" in settings["provenance"]["versions"]


def test_architectures_are_written_in_the_notation_that_is_asked_for(score, capsys):
    assert score("--genotypes", "cells.txt", "--format", "index") == 0
    space = spaces.NASBench201()
    written = [row["genotype"] for row in score.rows()]
    assert all(text.isdecimal() for text in written)
    assert [space.format(space.parse(text)) for text in written] == CELLS
    assert score("--genotypes", "cells.txt", "--format", "morse", out="other.csv") == 2
    assert "format: expected one of ('index', 'naslib') of nasbench201's notations" in capsys.readouterr().err


def test_from_standard_input(score, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(CELLS[1]))
    assert score("--genotypes", "-") == 0
    assert [row["genotype"] for row in score.rows()] == [CELLS[1]]


@pytest.mark.parametrize("cut", [0, 1, 40, 150, 400, 2000])
@pytest.mark.parametrize("name", ["snip", "gennas(task=combo,batch=2)"])
def test_killed_anywhere_and_started_again_the_file_is_the_same(score, tmp_path, name, cut):
    options = ["--sample", "9", "--seeds", "2", "--score", name]
    score(*options)
    whole = (tmp_path / "scores.csv").read_bytes()
    assert name in score.rows()[0]
    header = whole.index(b"\n") + 1
    (tmp_path / "scores.csv").write_bytes(whole[: max(header - 3, len(whole) - cut)])
    assert score(*options) == 0
    assert (tmp_path / "scores.csv").read_bytes() == whole


@pytest.mark.slow
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
        assert process.wait(timeout=60) == (-number if number == signal.SIGKILL else 143)
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


def test_what_is_left_of_a_space(score, tmp_path, capsys):
    left_out = ["--forbid", "none", "avg_pool_3x3", "--fix", "0→1=skip_connect", "1→3=nor_conv_3x3"]
    assert score("--all", *left_out) == 0
    texts = {row["genotype"] for row in score.rows()}
    assert len(texts) == 3**4
    assert all(text.startswith("|skip_connect~0|") and "none" not in text and "avg" not in text for text in texts)
    assert json.loads((tmp_path / "scores.csv.json").read_text())["choice"]["forbid"] == ["none", "avg_pool_3x3"]
    assert score("--genotypes", "cells.txt", *left_out, out="other.csv") == 2
    assert "line 1: genotype: expected skip_connect for 0→1" in capsys.readouterr().err


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
    capsys.readouterr()
    for options, message in (
        (["--sample", "3", "--batch", "3"], "network.batch: 2 there, 3 now"),
        (["--sample", "2"], "sample: 3 there, 2 now"),
        (["--sample", "3", "--sample-seed", "1"], "sample_seed: 0 there, 1 now"),
        (["--sample", "3", "--seed", "1"], "seed: 0 there, 1 now"),
        (["--sample", "3", "--score", "synflow"], "score: ['snip'] there, ['synflow'] now"),
    ):
        assert score(*options) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert (tmp_path / "scores.csv").read_bytes() == before
    assert score("--sample", "2", "--overwrite") == 0
    assert len(score.rows()) == 2


def test_numbers_under_other_options_of_jax_are_not_mixed(score, capsys):
    score("--sample", "2")
    with jax.enable_x64(True):
        assert score("--sample", "3") == 2
    assert "numerics.enable_x64: False there, True now" in capsys.readouterr().err


def test_more_of_the_same_is_added(score, tmp_path):
    """The file of more architectures, seeds and scores holds the rows of the one before."""
    for i, options in enumerate([
        ["--sample", "2"],
        ["--sample", "3"],
        ["--sample", "3", "--seeds", "2"],
        ["--sample", "3", "--seeds", "2", "--score", "grad_norm", "snip"],
        ["--sample", "5", "--seeds", "3", "--score", "grad_norm", "snip", "synflow"],
    ]):
        before = score.rows() if i else []
        assert score(*options) == 0
        after = score.rows()
        assert [{name: row[name] for name in old} for old, row in zip(before, after, strict=False)] == before
        assert "" not in {value for row in after for name, value in row.items() if name != "reason"}
    assert list(after[0]) == ["genotype", "seed", "grad_norm", "snip", "synflow", "reason"]
    assert score(*options, out="at_once.csv") == 0
    assert sorted(map(str, score.rows("at_once.csv"))) == sorted(map(str, after))


def test_added_columns_survive_an_interruption(score, tmp_path, monkeypatch):
    options = ["--genotypes", "cells.txt", "--score", "snip", "synflow"]
    assert score(*options, out="whole.csv") == 0
    assert score("--genotypes", "cells.txt") == 0
    whole, left = scorer.Scorer.stream, [2]

    def stream(self, draw, genotypes):
        for figures in whole(self, draw, genotypes):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            yield figures

    with monkeypatch.context() as patch:
        patch.setattr(scorer.Scorer, "stream", stream)
        assert score(*options) == 130
    assert [row["synflow"] == "" for row in score.rows()] == [False, False, True]
    assert score(*options) == 0
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("name", ["results.csv", "results.tsv", "genotype.csv", "s.json"])
def test_other_peoples_files_stay(score, tmp_path, name):
    others = {other: f"mine: {other}" for other in ("results.json", "genotype.json", "results.txt", "s.csv")}
    for other, content in others.items():
        (tmp_path / other).write_text(content)
    assert score("--sample", "2", out=name) == 0
    assert score("--sample", "3", out=name) == 0
    assert len(score.rows(name)) == 3
    assert json.loads((tmp_path / f"{name}.json").read_text())["choice"]["sample"] == 3
    assert {other: (tmp_path / other).read_text() for other in others} == others
    assert {path.name for path in tmp_path.iterdir()} == {*others, name, f"{name}.json", "cells.txt"}


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_file_that_is_not_ours_is_refused(score, tmp_path, capsys, more):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    assert score("--sample", "3", *more, out="mine.csv") == 2
    assert "expected the settings of 'mine.csv' in 'mine.csv.json'" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"
    (tmp_path / "own.csv.json").write_text('{"mine": 1}')
    assert score("--sample", "3", *more, out="own.csv") == 2
    assert "'own.csv.json', where settings would go, is another file" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"mine.csv", "own.csv.json", "cells.txt"}


def test_inputs_are_what_they_hold(score, tmp_path, capsys):
    assert score("--genotypes", "cells.txt") == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "list").write_text((tmp_path / "cells.txt").read_text())
    assert score("--genotypes", "elsewhere/list") == 0
    (tmp_path / "cells.txt").write_text("\n".join(CELLS[:2]))
    assert score("--genotypes", "cells.txt") == 2
    assert "genotypes.sha256: " in capsys.readouterr().err
    x = np.zeros((4, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(4) % 2)
    assert score("--sample", "2", "--data", "own.npz", out="own.csv") == 0
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    assert score("--sample", "3", "--data", "moved.npz", out="own.csv") == 0
    np.savez(tmp_path / "moved.npz", x=x + 1, y=np.arange(4) % 2)
    assert score("--sample", "4", "--data", "moved.npz", out="own.csv") == 2
    assert "data.sha256: " in capsys.readouterr().err
    assert len(score.rows("own.csv")) == 3


def test_a_file_that_was_edited(score, tmp_path, capsys):
    """Repaired where nothing is lost; otherwise one line that names the file and the line."""
    options = ["--genotypes", "cells.txt"]
    score(*options)
    path = tmp_path / "scores.csv"
    whole = path.read_text()
    lines = whole.splitlines()
    for same in (whole.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + whole.encode(), whole.rstrip().encode(), b""):
        path.write_bytes(same)
        assert score(*options) == 0
        assert path.read_text() == whole
    for damaged, message in (
        (whole.encode("utf-16"), "expected text in UTF-8"),
        (("\n".join(lines[:2] + lines[1:]) + "\n").encode(), "line 3 of 'scores.csv' repeats"),
        ((lines[0] + "\n" + lines[1] + ",1\n").encode(), "line 2 of 'scores.csv' has not 4 cells"),
        (whole.replace("2.0", "two").encode(), "line 2 of 'scores.csv' has a cell that is not a number"),
        (whole.replace("genotype,seed", "genotype,start").encode(), "line 1 of 'scores.csv' is not the header"),
        (b"anything", "line 1 of 'scores.csv' is not the header"),
    ):
        path.write_bytes(damaged)
        capsys.readouterr()
        assert score(*options) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert path.read_bytes() == damaged


def test_two_processes_do_not_share_a_file(score, capsys):
    with runs.ScoreSheet(pathlib.Path("scores.csv"), ("snip",)):
        assert score("--sample", "2") == 2
    assert "another process writes 'scores.csv'" in capsys.readouterr().err
    assert score("--sample", "2") == 0


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
        (["--genotypes", "empty.txt"], "expected architectures in 'empty.txt', there are none"),
        (["--genotypes", "binary.txt"], "expected text in UTF-8, 'binary.txt' is something else"),
        (["--sample", "2", "--out", ""], "out: expected a path, got ''"),
        (["--sample", "2", "--out", "."], "out: expected a file, '.' is a folder"),
        (["--sample", "2", "--score", "guess"], "score: expected one of"),
    ],
)
def test_bad_options(score, tmp_path, options, message, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\x1f\x8b\x08\xff")
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
        mine = str(pathlib.Path(__file__).parents[2] / "examples" / "mine.py")
        options = ["--sample", "20", "--seeds", "2", "--load", mine, "--score", "ntk-one-batch", "contrast", *SIZE]
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
