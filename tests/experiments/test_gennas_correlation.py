import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS
from nasi_jax.spaces.nasbench201_text import arch_string

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        import gennas_correlation
    return gennas_correlation


def test_a_sum_is_chosen_on_the_first_cells_and_judged_on_the_others(script):
    """Where GenNAS alone says what the others lack, on the first cells or on the later ones."""
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 300))
    options = script.Options(table=pathlib.Path(), images=pathlib.Path(), sums_chosen_on=100, resamples=200)
    known = {"gennas": truth + 0.1 * noise, "params": truth + 2 * rng.normal(size=300), "zico": rng.normal(size=300)}
    results = {}
    lines = script.added(options, results, known, dict.fromkeys(script.COLUMNS, truth))
    assert len(lines) == 5
    found = results[f"added, {script.COLUMNS[0]}"]
    assert found["with"] == ("gennas",)
    assert found["without"] == ("params",)
    assert found["cells"] == 200
    assert 0.3 < found["low"] < found["difference"] < found["high"]
    overfitted = known | {"gennas": np.where(np.arange(300) < 100, truth, noise)}
    script.added(options, results, overfitted, dict.fromkeys(script.COLUMNS, truth))
    found = results[f"added, {script.COLUMNS[0]}"]
    assert found["with"] == ("gennas",)
    assert found["high"] < 0


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented, and started again computes nothing anew."""
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    columns = ("cifar10_test", "cifar100_test", "imagenet16_test")
    lines = [f"{arch_string(cell)},{','.join([str(50 + cell.count('nor_conv_3x3'))] * 3)}" for cell in cells]
    (tmp_path / "table.csv").write_text("\n".join([f"arch,{','.join(columns)}", *lines]))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.integers(0, 256, (20, 8, 8, 3), np.uint8), y=np.arange(20) % 2)
    command = [sys.executable, EXPERIMENTS / "gennas_correlation.py", "--table", "table.csv", "--images", "own.npz"]
    command += ["--tiny", "--cells", "8", "--variants", "4", "--sums-chosen-on", "4"]
    command += ["--resamples", "20", "--out", "out"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["cells"]["params"][columns[0]]["count"] == 8
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "added.md", "cells.md", "noise.md", "orders.md", "results.json", "task_combo.md", "task_darts.md",
    }  # fmt: skip
    tables = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    scores = {path.name: path.read_bytes() for path in (tmp_path / "runs" / "gennas_correlation").glob("*.csv")}
    assert len(scores) == 5
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == tables
    assert all((tmp_path / "runs" / "gennas_correlation" / name).read_bytes() == it for name, it in scores.items())
