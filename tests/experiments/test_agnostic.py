import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "agnostic.py"


@pytest.mark.slow
def test_smoke_and_continuation(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (12, 8, 8, 3), np.uint8), y=np.arange(12) % 3)
    size = ["--channels", "2", "--image-size", "8", "--batch", "4", "--seeds", "2", "--architectures", "5"]
    names = ["nasbench201", "nasbench1shot1-s1"]
    command = [sys.executable, SCRIPT, "--images", "images.npz", "--batches", "2", *size, "--spaces", *names]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "experiments" / "results" / "agnostic"
    values = tmp_path / "runs" / "agnostic" / "values.csv"
    whole = values.read_bytes()
    assert len(whole.splitlines()) == 1 + 2 * 2 * 5 * 2
    results = json.loads((folder / "results.json").read_text())
    assert set(results) == set(names)
    for comparisons in results.values():
        assert all(-1 <= figures["Pearson"][0] <= 1 for figures in comparisons.values())
    values.write_bytes(whole[:-30])
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert json.loads((folder / "results.json").read_text()) == results
