import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "darts_search.py"


@pytest.mark.slow
def test_settings_are_compared_without_images(tmp_path):
    size = ["--steps", "1", "--batch", "8", "--cells", "3", "--channels", "2", "--image-size", "8", "--seeds", "2"]
    command = [sys.executable, SCRIPT, "--settings", *size, "--runs", "runs", "--out", "results"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    searches = json.loads((tmp_path / "results" / "searches.json").read_text())
    assert {"float32", "micro-batches", "bfloat16"} < set(searches)
    for kind, name, value in (("micro-batches", "micro_batches", 4), ("bfloat16", "mixed_precision", True)):
        assert json.loads((tmp_path / "runs" / kind / "config.json").read_text())["search"][name] == value
    assert "with float32 of the same seed" in (tmp_path / "results" / "table.md").read_text()


@pytest.mark.slow
def test_smoke(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (12, 8, 8, 3), np.uint8), y=np.arange(12) % 3)
    size = ["--steps", "1", "--batch", "4", "--cells", "3", "--channels", "2", "--image-size", "8", "--seeds", "2"]
    command = [sys.executable, SCRIPT, "--images", "images.npz", *size]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "experiments" / "results" / "darts_search"
    searches = json.loads((folder / "searches.json").read_text())
    for kind in ("true labels", "random labels", "Gaussian"):
        assert [entry["seed"] for entry in searches[kind]] == [0, 1]
        assert all(spaces.DARTS().parse(entry["genotype"]) for entry in searches[kind])
    shares = [line.split("|")[2:-1] for line in (folder / "table.md").read_text().splitlines()[-3:]]
    for row in shares:
        assert abs(sum(map(float, row)) - 1) < 0.05
