import importlib.util
import subprocess
import sys

import documents
import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = documents.ROOT / "experiments" / "transnas_search.py"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("transnas_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


def test_ranks_are_shares_of_all_cells(script):
    truth = np.array([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]])
    np.testing.assert_array_equal(script.above(truth[[0, 3]], truth), [[0, 75], [75, 0]])


@pytest.mark.slow
def test_smoke(script, tmp_path):
    """The script runs as documented, looks up what was selected, and does not search twice."""
    space = spaces.get("transnas-micro")
    texts = [space.format(genotype) for genotype in space.enumerate()]
    lines = ["arch,class_object,autoencoder", *(f"{text},{i},{-i}" for i, text in enumerate(texts))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--runs", "runs", "--out", "results", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    table = (tmp_path / "results" / "table.md").read_text()
    assert table.strip() in done.stdout
    assert "| the best of all | | 4095 | 100 | 0 | 100 |" in table
    found = script.selected(tmp_path / "runs" / "NASI-participation_ratio")
    assert f"| NASI, participation ratio | 1 | {texts.index(found[0])} |" in table
    assert (tmp_path / "results" / "figures.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert table.strip() in again.stdout
    assert "compile" not in again.stderr
