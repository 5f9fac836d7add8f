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
    command = [sys.executable, SCRIPT, "--text", "text.npz", "--out", "results", "--smoke"]
    out = tmp_path / "results"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads((out / "results.json").read_text())
    rows = result["rows"]
    names = {"made by hand", "block-wise, NTK at initialisation", "block-wise, distillation", "random"}
    assert {row["network"] for row in rows} == names
    assert len(rows) == len(names)
    assert all(row["params"] <= row["limit"] and np.isfinite(row["loss"]) for row in rows)
    assert len(result["correlations"][0]) == 4
    tables = {name: (out / name).read_text() for name in ("table.md", "blocks.md")}
    assert all(text.strip() in done.stdout for text in tables.values())
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")

    (out / "results.json").write_text(json.dumps(result | {"rows": rows[:-1]}))
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout.count("'network'") == 1
    assert {name: (out / name).read_text() for name in tables} == tables
