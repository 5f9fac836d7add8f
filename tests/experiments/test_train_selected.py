import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "train_selected.py"
CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"


@pytest.mark.slow
def test_smoke_and_continuation(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 8, 8, 3), np.uint8), np.arange(30) % 3
    np.savez(tmp_path / "images.npz", x=x[:20], y=y[:20], x_test=x[20:], y_test=y[20:])
    size = ["--image-size", "8", "--images", "16", "--epochs", "1", "--batch", "8", "--channels", "2"]
    command = [
        sys.executable,
        SCRIPT,
        "--genotype",
        CELL,
        "--data",
        "images.npz",
        "--random",
        "2",
        "--seeds",
        "2",
        *size,
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "experiments" / "results" / "train_selected"
    whole = (folder / "trainings.csv").read_bytes()
    assert len(whole.splitlines()) == 1 + 3 * 2
    text = (folder / "table.md").read_text()
    assert "of 2." in text
    (folder / "trainings.csv").write_bytes(whole[:-15])
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (folder / "trainings.csv").read_bytes() == whole
    assert (folder / "table.md").read_text() == text
