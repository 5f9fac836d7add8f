import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "nasbench201_depth.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    size = ["--channels", "2", "--image-size", "8", "--batch", "4", "--seeds", "1", "--depths", "1"]
    subprocess.run([sys.executable, SCRIPT, *size], cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "experiments" / "results" / "nasbench201_depth.md").read_text().splitlines()
    assert len(lines) == 8
    assert all(float(cell) > 0 for line in lines[2:] for cell in line.split("|")[2:4])
