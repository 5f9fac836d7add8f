import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "text_training.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("text_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("confusion", "expected"), [([[6, 2], [1, 3]], 0.4780914), ([[5, 0], [0, 4]], 1.0), ([[5, 0], [4, 0]], 0.0)]
)
def test_matthews_correlation_of_a_run(script, tmp_path, confusion, expected):
    """Of two labels it is (ad - bc) / sqrt((a + b) (c + d) (a + c) (b + d)): 16 / sqrt(8 * 4 * 7 * 5)."""
    np.savez(tmp_path / "confusion.npz", confusion=np.array(confusion))
    assert script.matthews(tmp_path) == pytest.approx(expected)


@pytest.mark.slow
def test_smoke(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "words.npz", tokens=rng.integers(200, 240, 500).astype(np.uint16))
    offsets = np.arange(0, 401, 8)
    np.savez(tmp_path / "two.npz", tokens=rng.integers(200, 240, 400), offsets=offsets, labels=np.arange(50) % 2)
    command = [sys.executable, SCRIPT, "--words", "words.npz", "--sentences", "two.npz", "--out", "t.md", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    text = (tmp_path / "t.md").read_text()
    assert len(text.splitlines()) == 4
    assert text.strip() in done.stdout
    assert done.stdout.count("nasi train") == 6
    assert done.stdout.count("--pretrained") == 2
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "nasi train" not in again.stdout
    assert (tmp_path / "t.md").read_text() == text
