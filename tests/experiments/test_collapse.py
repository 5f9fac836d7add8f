import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS
from nasi_jax.spaces.nasbench201_text import arch_string

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "collapse.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented and looks up the cells of every moment."""
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    lines = [f"{arch_string(cell)},{50 + cell.count('nor_conv_3x3')}" for cell in cells]
    (tmp_path / "table.csv").write_text("\n".join(["arch,cifar10_test", *lines]))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (40, 8, 8, 3), np.uint8), y=np.arange(40) % 3)
    methods = ["DARTS as published", "DARTS-, the default", "SNAS", "NASI"]
    folders = ["--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    given = ["--table", tmp_path / "table.csv", "--images", tmp_path / "images.npz", *folders, "--methods", *methods]
    subprocess.run([sys.executable, SCRIPT, *given, "--seeds", "2", "--smoke"], check=True, capture_output=True)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == methods
    published = results["DARTS as published"]
    assert np.shape(published["accuracies"]) == np.shape(published["skip_share"]) == (2, len(published["steps"]))
    for text, accuracy, skips in zip(*(published[n] for n in ("genotype", "accuracy", "skips")), strict=True):
        assert accuracy == 50 + text.count("nor_conv_3x3")
        assert skips == text.count("skip_connect")
    assert "steps" not in results["NASI"]
    assert "| SNAS | 2 |" in (tmp_path / "out" / "table.md").read_text()
    assert "| a random cell | all 15,625 | 51.20 | 1.2 | - |" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "course.png").read_bytes().startswith(b"\x89PNG")
