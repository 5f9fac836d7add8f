import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_architecture_gradient_runs_at_a_tiny_size():
    script = ROOT / "benchmarks" / "architecture_gradient.py"
    size = ["--channels", "1", "--image-size", "4", "--batch", "2", "--runs", "1"]
    done = subprocess.run([sys.executable, script, *size], check=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 10
    assert "| loss gradient | 1.0 | 1.0 | 1.0 |" in done.stdout
