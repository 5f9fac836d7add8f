import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "nasbert_search.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented, and no network is larger than the one made by hand that it is compared with."""
    tokens = np.random.default_rng(0).integers(200, 240, 2000).astype(np.uint16)
    np.savez(tmp_path / "text.npz", tokens=tokens)
    options = ["--text", "text.npz", "--out", "results", "--smoke"]
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "results" / "results.json").read_text())
    rows = result["rows"]
    names = {"made by hand", "blockwise, NTK at initialisation", "blockwise, distillation", "random"}
    assert {row["network"] for row in rows} == names
    assert len(rows) == 4 * len(names)
    assert all(row["params"] <= row["limit"] and np.isfinite(row["loss"]) for row in rows)
    assert len(result["correlations"]) == 4
    assert (tmp_path / "results" / "table.md").read_text().strip() in done.stdout
    assert (tmp_path / "results" / "losses.png").read_bytes().startswith(b"\x89PNG")
