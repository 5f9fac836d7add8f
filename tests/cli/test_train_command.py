import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nasi_jax import cli, spaces, train

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
SIZE = ["--epochs", "5", "--batch", "8", "--channels", "4", "--cells", "1", "--crop", "0"]
FILES = {
    "cell.png",
    "checkpoints",
    "config.json",
    "confusion.npz",
    "confusion.png",
    "curves.png",
    "genotype.json",
    "history.jsonl",
    "report.html",
    "result.json",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 8, 8, 3))
    x = (0.9 * pictures[np.arange(60) % 3] + 0.1 * rng.integers(0, 256, (60, 8, 8, 3))).astype(np.uint8)
    y = np.arange(60) % 3
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x[:40], y=y[:40], x_test=x[40:], y_test=y[40:])
    return path


def options(images, out, *more):
    return ["train", "--genotype", CELL, "--data", str(images), "--out", str(out), *SIZE, *more]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(options(images, out)) == 0
    return out


def result(out):
    """What a run found, without the time it took."""
    record = json.loads((out / "result.json").read_text())
    record["provenance"].pop("seconds")
    return record, (out / "history.jsonl").read_text()


def test_a_run_leaves_everything(finished, images):
    assert {path.name for path in finished.iterdir()} == FILES
    record, history = result(finished)
    rows = [json.loads(line) for line in history.splitlines()]
    assert [row["step"] for row in rows] == [4, 9, 14, 19, 24]
    with np.load(finished / "confusion.npz") as file:
        assert record["test_accuracy"] == rows[-1]["test_accuracy"] == np.trace(file["confusion"]) / 20
    assert record["test_accuracy"] > 0.8  # three pictures under noise
    assert record["settings"]["training"]["learning_rate"] == 0.1
    saved = json.loads((finished / "genotype.json").read_text())
    assert spaces.get(saved["space"]).format(spaces.from_json(spaces.get(saved["space"]), saved)) == CELL
    assert "data:image/png" in (finished / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_loses_nothing(finished, images, tmp_path, number):
    command = [sys.executable, "-m", "nasi_jax.cli", *options(images, tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = tmp_path / "run" / "history.jsonl"
    while not history.exists() or history.read_text().count("\n") < 2:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    ended = process.wait(timeout=60)
    assert ended == (-number if number == signal.SIGKILL else 143)
    assert not (tmp_path / "run" / "result.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert result(tmp_path / "run") == result(finished)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(finished, images, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "result.json").unlink()
    steps = sorted((out / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert int(steps[-1].name) == 25
    for path in steps[-1].rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert cli.main(options(images, out)) == 0
    message = capsys.readouterr().err
    assert "checkpoint of step 25 cannot be read" in message
    assert f"continues from the checkpoint of step {steps[-2].name}" in message
    assert result(out) == result(finished)


def test_checkpoints_that_cannot_be_read_at_all(finished, images, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "result.json").unlink()
    for path in (out / "checkpoints").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(b"")
    assert cli.main(options(images, out)) == 2
    assert "pass --overwrite to start anew" in capsys.readouterr().err
    assert cli.main(options(images, out, "--overwrite")) == 0
    assert result(out) == result(finished)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "holds a finished run; pass --overwrite"),
        (("--epochs", "6"), "another configuration"),
        (("--seed", "1"), "another configuration"),
        (("--genotype", CELL.replace("1x1", "3x3")), "another configuration"),
    ],
)
def test_what_is_finished_is_kept(finished, images, capsys, more, message):
    before = (finished / "result.json").read_bytes()
    assert cli.main(options(images, finished, *more)) == 2
    assert message in capsys.readouterr().err
    assert (finished / "result.json").read_bytes() == before


def arrays(count, size=8, labels=3):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, size, size, 3), np.uint8), np.arange(count) % labels


@pytest.mark.parametrize(
    ("test", "more", "message"),
    [
        (None, (), "expected an array 'x_test'"),
        (arrays(6, labels=5), (), "y: expected labels from 0 to 2, as for training, got 4"),
        (arrays(6, size=12), (), "x: expected images of shape (8, 8, 3), as for training"),
        (arrays(6), ("--image-size", "10"), "sides divisible by 4"),
        (arrays(6), ("--batch", "41"), "batch: expected 1 to 40"),
        (arrays(6), ("--holdout", "1.5"), "holdout: expected a share"),
        (arrays(6), ("--evaluate-every", "0"), "evaluate_every: expected"),
        (arrays(6), ("--data", "gaussian"), "data: expected a data set with labels"),
        (arrays(6), ("--genotype", "nowhere.json"), "there is none at 'nowhere.json'"),
        (arrays(6), ("--auxiliary", "0.4"), "auxiliary: expected 0"),
        (arrays(6), ("--stem", "imagenet"), "stem: expected 'cifar'"),
        (arrays(6), ("--resized-crop", "0.5"), "image_size: expected a positive integer with resized_crop"),
        (arrays(6), ("--resized-crop", "0.5", "--image-size", "8", "--workers", "-1"), "workers: expected"),
        (arrays(6, labels=5), ("--resized-crop", "0.5", "--image-size", "8"), "y: expected labels from 0 to 2"),
    ],
)
def test_bad_input_is_refused_before_a_folder_is_made(tmp_path, capsys, test, more, message):
    x, y = arrays(40)
    extra = {} if test is None else {"x_test": test[0], "y_test": test[1]}
    np.savez(tmp_path / "images.npz", x=x, y=y, **extra)
    assert cli.main(options(tmp_path / "images.npz", tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_checkpoint(images, tmp_path, capsys):
    assert cli.main(options(images, tmp_path / "run", "--learning-rate", "1e30")) == 1
    message = capsys.readouterr().err
    assert "the loss stopped being finite by step" in message
    assert "the last good checkpoint is of step" in message


def test_recipes_are_defaults_that_options_override():
    parsed = cli.parse(["train", "--genotype", CELL, "--recipe=darts-cifar", "--epochs", "7"])
    assert parsed.config.cutout == 16
    assert parsed.config.epochs == 7
    assert cli.parse(["train", "--genotype", CELL]).config == train.RECIPES["nasbench201-12"]


@pytest.mark.slow
def test_images_that_are_read_while_the_network_trains(images, tmp_path):
    """Cropped to another size; which process reads them is no setting of the run."""
    more = ["--recipe", "imagenet-mobile", "--stem", "cifar", "--auxiliary", "0", "--learning-rate", "0.05"]
    more += ["--image-size", "12", "--resized-crop", "0.5", "--epochs", "4", "--initialisation", "he"]
    runs = [tmp_path / "a", tmp_path / "b"]
    for out, workers in zip(runs, ("0", "1"), strict=True):
        assert cli.main(options(images, out, *more, "--workers", workers)) == 0
    assert result(runs[0]) == result(runs[1])
    record, history = result(runs[0])
    assert record["test_images"] == 20
    assert record["test_accuracy"] > 0.6  # three pictures under noise
    assert record["test_top_five"] == 1
    assert [json.loads(line)["learning_rate"] for line in history.splitlines()] == pytest.approx([
        0.05 * 0.97**epoch for epoch in range(4)
    ])


def test_a_full_disk_stops_the_run_and_keeps_what_was_written(finished, images, tmp_path):
    """In a process whose files cannot grow; with room again, the run ends as if nothing had happened."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "nasi_jax.cli", *options(images, out)]
    shutil.copytree(finished, out)
    (out / "result.json").unlink()
    steps = sorted((out / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(steps[-1])  # so that there is an epoch to take and a checkpoint to write
    limit = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048));"
        "sys.argv = sys.argv[1:]; runpy.run_module('nasi_jax.cli', run_name='__main__')"
    )
    full = subprocess.run([sys.executable, "-c", limit, *command[2:]], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert "File too large" in full.stderr
    assert f"The last good checkpoint is of step {steps[-2].name}" in full.stderr
    assert not (out / "result.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert result(out) == result(finished)


def test_images_that_are_held_out(images, tmp_path):
    assert cli.main(options(images, tmp_path / "run", "--holdout", "0.25", "--epochs", "1")) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_images"] == 10


def test_validation_examples_choose_an_epoch(tmp_path, capsys):
    rng = np.random.default_rng(0)
    ends, part = rng.integers(0, 30, (2, 60)), np.arange(30) % 3
    masks = {f"{name}_mask": part == i for i, name in enumerate(("train", "val", "test"))}
    y, path = np.arange(30) % 2, tmp_path / "graph.npz"
    x = rng.normal(size=(30, 3)) + y[:, None]
    np.savez(path, x=x, edge_index=np.concatenate([ends, ends[::-1]], axis=1), y=y, **masks)
    command = ["train", "--space", "nasbench-graph", "--genotype", "0012|fc|gcn|sage|skip", "--data", str(path)]
    command += ["--recipe", "nasbench-graph-cora", "--hidden", "4", "--batch", "10", "--epochs", "6", "--dropout", "0"]
    command += ["--learning-rate", "1", "--evaluate-every", "2"]
    assert cli.main([*command, "--validation-split", "val", "--out", str(tmp_path / "run")]) == 0
    record, history = result(tmp_path / "run")
    rows = [row for line in history.splitlines() if "validation_loss" in (row := json.loads(line))]
    assert [row["epoch"] for row in rows] == [1, 3, 5]
    least = min(rows, key=lambda row: row["validation_loss"])
    names = ("epoch", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
    assert {name: record[f"chosen_{name}"] for name in names} == {name: least[name] for name in names}
    assert record["test_accuracy"] == rows[-1]["test_accuracy"]
    capsys.readouterr()
    assert cli.main([*command, "--validation-split", "dev", "--out", str(tmp_path / "bad")]) == 2
    assert "split: expected 'all' or one of" in capsys.readouterr().err
    assert cli.main([*command, "--validation-split", "val", "--holdout", "0.5", "--out", str(tmp_path / "bad")]) == 2
    assert "validation_split: expected none with holdout, got 'val'" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
