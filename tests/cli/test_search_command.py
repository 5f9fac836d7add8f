import html
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from nasi_jax import cli, scores, search, spaces

TINY = ["--steps", "6", "--rounds", "2", "--batch", "4", "--channels", "2", "--cells", "1", "--image-size", "8"]
FILES = {
    "alphas.npz",
    "alphas.png",
    "cell.png",
    "checkpoint.msgpack",
    "config.json",
    "genotype.json",
    "histogram.png",
    "history.jsonl",
    "history.png",
    "report.html",
}


def run(*arguments):
    return cli.main(["search", *TINY, *map(str, arguments)])


def rows(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def interrupted_after(monkeypatch, chunks):
    whole = search.iterate

    def iterate(*arguments):
        for i, chunk in enumerate(whole(*arguments)):
            if i == chunks:
                raise KeyboardInterrupt
            yield chunk

    monkeypatch.setattr(search, "iterate", iterate)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    assert run("--out", folder, "--seeds", 2) == 0
    return folder


def test_a_run_leaves_everything_that_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    record = json.loads((finished / "genotype.json").read_text())
    space = spaces.get(record["space"])
    assert space.format(spaces.from_json(space, record)) == record["genotype"]
    assert [entry["seed"] for entry in record["searches"]] == [0, 1]
    assert set(record["provenance"]) == {"versions", "device", "precision", "seconds", "numerics", "environment"}
    assert record["provenance"]["numerics"]["enable_x64"] is False
    assert "XLA_FLAGS" in record["provenance"]["environment"]
    assert record["settings"]["search"]["steps"] == 6
    assert [(row["step"], row["seed"]) for row in rows(finished)] == [(t, s) for t in range(6) for s in (0, 1)]
    columns = {"seed", "step", "objective", "trace", "penalty", "nu", "gradient_norm", "excess", "largest_probability"}
    assert set(rows(finished)[0]) == columns


def test_the_genotype_is_that_of_the_mean_logits(finished):
    with np.load(finished / "alphas.npz") as file:
        alphas = file["cell"]
    space = spaces.get("nasbench201")
    record = json.loads((finished / "genotype.json").read_text())
    assert alphas.shape == (2, 6, 5)
    assert record["arrays"]["operations"] == alphas.mean(axis=0).argmax(axis=-1).tolist()
    for values, entry in zip(alphas, record["searches"], strict=True):
        assert entry["genotype"] == space.format(space.decode({"cell": values}))


def test_the_report_stands_alone(finished):
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert "<link" not in page
    assert "<script" not in page
    genotype = json.loads((finished / "genotype.json").read_text())["genotype"]
    for text in (genotype, "nasi_jax", "temperature", "gaussian"):
        assert text in page
    assert "At every step: objective, trace, largest probability." in page  # at mu = 0 no penalty
    assert "<h1>2 searches of nasbench201 by nasi, on random inputs</h1>" in page
    assert re.search(r"[012] of 2 searches select one that computes the same.", page)
    assert page.index("Selected architecture") < page.index("What it costs") < page.index("How sure the choice is")


def test_the_report_says_what_the_cell_costs_and_how_to_train_it(finished):
    page = (finished / "report.html").read_text()
    space = spaces.get("nasbench201")
    genotype = space.parse(json.loads((finished / "genotype.json").read_text())["genotype"])
    cost = scores.Costs(space, 10)
    random = [cost(space.sample(key))["params"] for key in jax.random.split(jax.random.key(0), 100)]
    figures = (cost(genotype)["params"], min(random), np.median(random), max(random))
    row = "".join(f'<td class="figure">{value:,.0f}</td>' for value in figures)
    assert f"<td>parameters</td>{row}" in page
    (command,) = re.findall(r"<pre>(.*?)</pre>", page)
    verb = cli.parse(shlex.split(html.unescape(command))[1:])
    assert (verb.genotype, verb.recipe) == (str(finished / "genotype.json"), "nasbench201-12")
    for name in ("cell.png", "alphas.png", "history.png", "histogram.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_is_not_overwritten_unless_told(finished, capsys):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert run("--out", finished, "--seeds", 2) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before
    assert run("--out", finished, "--seeds", 2, "--overwrite") == 0
    assert (finished / "alphas.npz").read_bytes() == before["alphas.npz"]
    assert (finished / "history.jsonl").read_bytes() == before["history.jsonl"]


@pytest.mark.parametrize("chunks", [0, 1, 4])
def test_an_interrupted_run_continues_to_the_uninterrupted_result(finished, tmp_path, monkeypatch, capsys, chunks):
    with monkeypatch.context() as patch:
        interrupted_after(patch, chunks)
        assert run("--out", tmp_path / "run", "--seeds", 2) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(rows(tmp_path / "run")) == 2 * chunks
    # as after a crash between two writes: later rows than the checkpoint's, the last cut short
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write(json.dumps({"seed": 0, "step": chunks}) + '\n{"seed": 1, "st')
    assert run("--out", tmp_path / "run", "--seeds", 2) == 0
    for name in ("history.jsonl", "alphas.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


@pytest.mark.parametrize("chunks", [2, 6])
def test_more_seeds_extend_a_run(finished, tmp_path, monkeypatch, chunks):
    """Finished or cut, and interrupted while it grows: what is there in the end is a run of so many seeds."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_after(patch, chunks)
        run("--out", out)
    assert (out / "genotype.json").exists() == (chunks == 6)
    with monkeypatch.context() as patch:
        interrupted_after(patch, 3)
        assert run("--out", out, "--seeds", 2) == 130
    assert not (out / "genotype.json").exists()
    assert run("--out", out, "--seeds", 2) == 0
    assert (out / "alphas.npz").read_bytes() == (finished / "alphas.npz").read_bytes()
    by_step = sorted(rows(out), key=lambda row: (row["step"], row["seed"]))
    assert by_step == rows(finished)
    grown, whole = (json.loads((path / "genotype.json").read_text()) for path in (out, finished))
    assert grown["searches"] == whole["searches"]
    assert run("--out", out, "--seeds", 1) == 2


def test_a_run_of_another_configuration_is_left_alone(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        run("--out", tmp_path / "run")
    before = rows(tmp_path / "run")
    assert run("--out", tmp_path / "run", "--mu", 1.5, "--seed", 3) == 2
    message = capsys.readouterr().err
    assert "another configuration" in message
    assert "(search.mu: 0.0 there, 1.5 now, seed: 0 there, 3 now)" in message
    assert rows(tmp_path / "run") == before
    (tmp_path / "run" / "config.json").write_text('{"seed": 0, "da')
    assert run("--out", tmp_path / "run") == 2
    assert "cannot read config.json" in capsys.readouterr().err
    assert rows(tmp_path / "run") == before
    assert run("--out", tmp_path / "run", "--overwrite") == 0


def test_a_damaged_checkpoint_is_reported_and_kept(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 3)
        run("--out", tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.msgpack"
    checkpoint.write_bytes(checkpoint.read_bytes()[:40])
    before = rows(tmp_path / "run")
    assert run("--out", tmp_path / "run") == 2
    assert "cannot read the checkpoint" in capsys.readouterr().err
    assert rows(tmp_path / "run") == before


def test_folders_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert run("--out", tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    assert run("--out", tmp_path / "file" / "below") == 2
    assert "cannot write" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    assert run("--out", tmp_path / "other", "--overwrite") == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps: expected a positive integer, got 0"),
        (["--mu", "-1"], "mu: expected"),
        (["--nu", "-0.1"], "nu: expected"),
        (["--space", "nasbench"], "space: expected one of"),
        (["--seeds", "0"], "seeds: expected"),
        (["--seed", "-1"], "seed: expected"),
        (["--image-size", "-8"], "image_size: expected"),
        (["--image-size", "10"], "divisible by 4"),
        (["--labels", "true"], "labels: expected 'random' with random inputs"),
        (["--data", "absent.npz"], "there is none at 'absent.npz'"),
        (["--rounds", "0"], "rounds: expected"),
        (["--mu", "inf"], "mu: expected a finite number"),
        (["--preset", "best"], "preset: expected one of"),
        (["--strategy", "evolutoin"], "did you mean 'evolution'"),
        (["--population", "9"], "population: an option of --strategy evolution, not of nasi"),
        (["--max-params", "1e6", "--max-params=2e6"], "max_params: expected once, got it 2 times"),
        (["--forbid", "nonee"], "forbid: expected one of"),
        (["--fix", "1->3=none", "1->3=skip_connect"], "fix: expected one choice for 1→3"),
        (["--max-params", "1"], "params at most 1, the smallest seen is"),
    ],
)
def test_bad_options_are_one_line_and_leave_no_folder(tmp_path, capsys, arguments, message):
    assert run("--out", tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--no-such-option", "1"], ["--steps", "many"]])
def test_malformed_options_exit_with_status_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_a_batch_larger_than_the_data(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", x=np.zeros((3, 8, 8, 3), np.uint8), y=np.arange(3))
    assert run("--out", tmp_path / "run", "--data", tmp_path / "own.npz") == 2
    assert "batch: expected 1 to 3, the number of examples, got 4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_not_a_number_in_the_data_names_the_step_and_keeps_those_before(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype(np.float32)
    x[4] = np.nan
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(9) % 3)
    assert run("--out", tmp_path / "run", "--data", tmp_path / "own.npz", "--seed", 3) == 1
    message = capsys.readouterr().err
    kept = len(rows(tmp_path / "run"))
    assert f"stopped being finite at step {kept} of search 0" in message
    assert not (tmp_path / "run" / "genotype.json").exists()


def test_presets_are_the_papers_and_can_be_overridden():
    fixed = cli.parse(["search", "--preset", "nasi-fix"]).method.strategy
    assert (fixed.mu, fixed.nu, fixed.adaptive, fixed.estimator, fixed.rounds) == (2.0, 100.0, "no", "soft", 1)
    adaptive = cli.parse(["search", "--preset=nasi-ada", "--steps", "7"]).method.strategy
    assert (adaptive.nu, adaptive.adaptive, adaptive.steps) == (500.0, "mean", 7)
    median = cli.parse(["search", "--preset=nasi-median"]).method.strategy
    assert (median.mu, median.nu, median.adaptive, median.rounds, median.size.cells) == (1.0, 0.0, "median", 1, 5)
    assert cli.parse(["search"]).method.strategy == search.preset("default", spaces.get("nasbench201"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_leaves_a_run_that_can_be_continued(tmp_path, number):
    many = [*TINY, "--steps", "4000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "nasi_jax.cli", "search", *many],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    assert "4000 steps" in process.stderr.readline()  # before programs compile
    assert "step 1/4000" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 128 + number, rest
    assert len(rest.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in rest
    done = rows(tmp_path / "run")
    assert [row["step"] for row in done] == list(range(len(done)))
    assert (tmp_path / "run" / "checkpoint.msgpack").exists()


def test_the_presets_know_the_size_of_a_space():
    expected = {
        "nasbench201": (1, 2.0, 500.0, 100),
        "darts": (8, 2.0, 500.0, 100),
        "darts-none": (8, 2.0, 500.0, 100),
        **dict.fromkeys((f"nasbench1shot1-s{i}" for i in (1, 2, 3)), (3, 1.0, 1000.0, 781)),
    }
    for name, space in spaces.SPACES.items():
        if space.one_shot:
            found = cli.parse(["search", "--space", name, "--preset=nasi-ada"]).method.strategy
            if name in expected:
                assert (found.size.cells, found.mu, found.nu, found.steps) == expected[name]
            else:  # of which the papers say nothing
                assert (found.size, found.mu, found.nu, found.steps) == (space.search_size, 2.0, 500.0, 100)
    assert cli.parse(["search", "--space=darts"]).method.strategy == search.preset("default", spaces.DARTS())


@pytest.mark.parametrize("strategy", ["nasi", "evolution"])
def test_a_search_selects_nothing_that_is_left_out(tmp_path, strategy):
    options = {
        "nasi": [*TINY, "--seeds", "3"],
        "evolution": ["--strategy", "evolution", "--population", "10", "--evaluations", "30", "--table",
                      str(tmp_path / "table.csv"), "--column", "top1"],
    }  # fmt: skip
    space = spaces.NASBench201()
    lines = [f"{space.format(g)},{np.sum(g.operations != 0)}" for g in list(space.enumerate())[::-1]]
    (tmp_path / "table.csv").write_text("\n".join(["arch,top1", *lines]))
    left_out = ["--forbid", "none", "avg_pool_3x3", "--fix", "1->3=nor_conv_3x3"]
    out = tmp_path / "run"
    assert cli.main(["search", *options[strategy], *left_out, "--out", str(out)]) == 0
    record = json.loads((out / "genotype.json").read_text())
    chosen = [record["genotype"], *(entry["genotype"] for entry in record["searches"])]
    chosen += [row["genotype"] for row in rows(out) if "genotype" in row]
    for text in chosen:
        assert "none" not in text
        assert "avg_pool" not in text
        assert "|nor_conv_3x3~1|" in text.split("+")[2]
    assert record["settings"]["forbid"] == ["none", "avg_pool_3x3"]
    assert record["settings"]["fix"] == ["1->3=nor_conv_3x3"]
    assert cli.main(["draw", "--genotype", str(out / "genotype.json"), "--out", str(tmp_path / "cell.png")]) == 0


PARENTS = {"parents of 2": 2, "parents of 3": 3, "parents of 4": 6, "parents of output": 10}


@pytest.mark.parametrize(
    ("name", "cells", "shapes"),
    [
        pytest.param("darts", 3, {"normal": (1, 14, 7), "reduction": (1, 14, 7)}, marks=pytest.mark.slow),
        pytest.param(
            "nasbench1shot1-s2",
            1,
            {"operations": (1, 4, 3)} | {kind: (1, 1, sets) for kind, sets in PARENTS.items()},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_search_in_other_spaces(tmp_path, name, cells, shapes):
    """The paper's form at the smallest size; what it leaves names the cells, which are drawn and read again."""
    paper = ["--space", name, "--preset", "nasi-fix", "--cells", f"{cells}", "--steps", "2", "--batch", "4"]
    size = ["--channels", "2", "--image-size", "8", "--out", str(tmp_path / "run")]
    assert cli.main(["search", *paper, *size]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    record = json.loads((tmp_path / "run" / "genotype.json").read_text())
    space = spaces.get(name)
    genotype = spaces.from_json(space, record)
    assert space.parse(record["genotype"]) == genotype
    alphas = np.load(tmp_path / "run" / "alphas.npz")
    assert {kind: alphas[kind].shape for kind in alphas} == shapes
    assert space.decode({kind: alphas[kind][0] for kind in alphas}) == genotype
    assert all(np.isfinite(row["trace"]) and row["trace"] > 0 for row in rows(tmp_path / "run"))


def test_nasi_whitens_small_images_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    np.savez("own.npz", x=x, y=np.arange(12) % 3)
    space = spaces.get("nasbench201")

    def opened(*options, whiten):
        return cli.parse(["search", "--data", "own.npz", *options]).data.source(space, whiten=whiten)

    assert opened(whiten=True).whitening is not None
    assert opened(whiten=False).whitening is None
    assert opened("--whiten", "yes", whiten=False).whitening is not None
    assert opened("--whiten", "no", whiten=True).whitening is None
    assert opened("--image-size", "40", whiten=True).whitening is None
    for wrong, message in (
        (["--data", "own.npz", "--image-size", "40"], "at most 4096 numbers"),
        ([], "expected images, got random inputs"),
    ):
        assert cli.main(["search", *wrong, "--whiten", "yes", "--out", "run"]) == 2
        assert message in capsys.readouterr().err
