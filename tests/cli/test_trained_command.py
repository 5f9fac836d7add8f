"""`nasi search` with the methods that train shared weights, on a space that compiles in seconds."""

import json

import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import cli, search, spaces

STOPS = ["--warmup", "0.3", "--stop-ratio", "1.3", "--window", "2"]
SIZE = ["--space", "toy", "--channels", "2", "--cells", "1", "--image-size", "8", "--steps", "6", "--batch", "4"]
FILES = {
    "alphas.npz", "alphas.png", "cell.png", "cells.png", "checkpoint.msgpack", "config.json", "course.png",
    "genotype.json", "histogram.png", "history.jsonl", "history.png", "moments.npz", "report.html",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(spaces.SPACES, "toy", ToySpace())
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "own.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.integers(0, 256, (40, 8, 8, 3), np.uint8), y=np.arange(40) % 3)
    return path


def run(images, out, *arguments, strategy="darts"):
    size = [*SIZE, "--moments", "3", *(STOPS if strategy == "darts" else [])]
    given = [*size, "--strategy", strategy, "--data", images, "--out", out, *arguments]
    return cli.main(["search", *map(str, given)])


def rows(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert run(images, folder, "--seeds", 2) == 0
    return folder


def interrupted_after(monkeypatch, steps):
    whole = search.iterate

    def iterate(*arguments):
        for i, chunk in enumerate(whole(*arguments)):
            if i == steps:
                raise KeyboardInterrupt
            yield chunk

    monkeypatch.setattr(search, "iterate", iterate)


def test_a_run_leaves_logits_over_time_and_its_figures(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    record = json.loads((finished / "genotype.json").read_text())
    assert record["settings"]["search"]["validation"] == 0.5
    found = rows(finished)
    assert [(row["step"], row["seed"]) for row in found] == [(t, s) for t in range(6) for s in (0, 1)]
    figures = {"training_loss", "validation_loss", "entropy", "skips", "excess", "logits_norm", "weights_norm"}
    assert all(figures <= set(row) for row in found)
    assert [row["step"] for row in found if "eigenvalue" in row] == [3, 3, 5, 5]
    with np.load(finished / "moments.npz") as moments, np.load(finished / "alphas.npz") as alphas:
        assert moments["steps"].tolist() == [2, 4, 6]
        np.testing.assert_array_equal(moments["cell"][:, -1], alphas["cell"])
        assert np.abs(np.diff(moments["cell"], axis=1)).max() > 0
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    assert "Probabilities over time" in page


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_an_interrupted_run_continues_to_the_same_bits(images, finished, tmp_path, monkeypatch, capsys, steps):
    with monkeypatch.context() as patch:
        interrupted_after(patch, steps)
        assert run(images, tmp_path / "run", "--seeds", 2) == 130
    assert "interrupted" in capsys.readouterr().err
    assert run(images, tmp_path / "run", "--seeds", 2) == 0
    for name in ("history.jsonl", "alphas.npz", "moments.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_time_and_memory_are_said_before_the_first_step(images, tmp_path, monkeypatch, capsys):
    interrupted_after(monkeypatch, 0)
    run(images, tmp_path / "run")
    said = capsys.readouterr().err
    assert "million weights in the one-shot network; compiled in" in said
    assert "6 steps, about" in said
    assert "peak memory" in said


def test_random_labels_are_said(tmp_path, monkeypatch, capsys):
    interrupted_after(monkeypatch, 0)
    run("gaussian", tmp_path / "run")
    assert "the labels of random inputs are random; --data names labelled data" in capsys.readouterr().err


def test_another_split_is_another_run(images, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        run(images, tmp_path / "run")
    before = rows(tmp_path / "run")
    capsys.readouterr()
    assert run(images, tmp_path / "run", "--validation", "0.3") == 2
    assert "(search.validation: 0.5 there, 0.3 now)" in capsys.readouterr().err
    assert rows(tmp_path / "run") == before


def test_not_a_number_names_the_step_and_the_last_good_checkpoint(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    x[4] = np.nan
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(40) % 3)
    out = tmp_path / "run"
    assert run(tmp_path / "own.npz", out, "--seed", 1, "--steps", 40) == 1
    message, kept = capsys.readouterr().err, len(rows(out))
    assert f"stopped being finite at step {kept} of search 0" in message
    assert f"the last good checkpoint is of step {kept}, in '{out}'" in message
    assert (out / "checkpoint.msgpack").exists()
    assert not (out / "genotype.json").exists()


def test_epochs_are_steps_over_the_training_part(images, tmp_path):
    out = tmp_path / "run"
    assert run(images, out, "--epochs", 2, "--validation", 0.2, strategy="snas") == 0
    # 32 training images are eight batches of four
    assert [row["step"] for row in rows(out)] == list(range(16))
    assert json.loads((out / "genotype.json").read_text())["settings"]["search"]["steps"] == 16
    assert sum("validation_loss" in row for row in rows(out)) == 3


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        ("darts", ["--validation", "0"], "validation: expected a share above 0 and below 1, got 0.0"),
        ("darts", ["--validation", "1"], "validation: expected a share above 0 and below 1, got 1.0"),
        ("darts", ["--batch", "30"], "validation: expected a share that leaves a batch of 30 in both parts of 40"),
        ("darts", ["--xi", "0.1"], "xi: expected none with order 'first'"),
        ("darts", ["--window", "4"], "window: expected at most 2"),
        ("darts", ["--mu", "1"], "mu: an option of --strategy nasi, not of darts"),
        ("darts", ["--eta", "1"], "eta: an option of --strategy snas, not of darts"),
        ("darts", ["--preset", "snas"], "preset: expected one of"),
        ("darts", ["--drop-path", "0.3"], "drop_path: expected 0, networks of toy have none"),
        ("darts", ["--crop", "-1"], "crop: expected an integer of at least 0, got -1"),
        ("darts", ["--epochs", "0"], "epochs: expected a positive number"),
        ("snas", ["--resource", "watts", "--eta", "0.1"], "resource: expected some of"),
        ("gdas", ["--temperature", "0"], "temperature: expected a positive number"),
    ],
)
def test_bad_options_are_one_line_and_leave_no_folder(images, tmp_path, capsys, strategy, arguments, message):
    assert run(images, tmp_path / "run", *arguments, strategy=strategy) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_images_of_one_label(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", x=np.zeros((40, 8, 8, 3), np.uint8), y=np.ones(40, int))
    assert run(tmp_path / "own.npz", tmp_path / "run") == 2
    assert "labels: expected at least two to train weights on" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_epochs_of_noise(tmp_path, capsys):
    arguments = [*SIZE, "--moments", "3", "--strategy", "snas", "--epochs", "3", "--out", str(tmp_path / "run")]
    assert cli.main(["search", *arguments]) == 2
    assert "epochs: expected --steps instead with data that have no end" in capsys.readouterr().err


def test_published_settings_are_presets():
    parsed = {
        preset: cli.parse(["search", "--strategy", "darts", "--preset", preset]).method.strategy
        for preset in ("darts-v1", "darts-v2", "default")
    }
    published = parsed["darts-v1"]
    assert (published.order, published.auxiliary_skip, published.stop_ratio, published.steps) == ("first", 0, 0, 19_500)
    assert (parsed["darts-v2"].order, published.size) == ("second", spaces.NASBench201Size())
    assert parsed["default"].auxiliary_skip > 0
