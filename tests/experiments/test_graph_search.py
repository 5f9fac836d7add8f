import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "graph_search.py"


@pytest.mark.slow
def test_smoke_and_continuation(tmp_path):
    space, rng = spaces.NASBenchGraph(), np.random.default_rng(0)
    texts = {space.canonical(genotype) for genotype in space.enumerate()} - {"0123|skip|skip|skip|skip"}
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["arch", "test"], *([text, rng.random()] for text in sorted(texts))])
    ends = rng.integers(0, 20, (2, 40))
    mask = np.arange(20) < 12
    arrays = {"x": rng.normal(size=(20, 3)), "edge_index": np.concatenate([ends, ends[::-1]], axis=1)}
    np.savez(tmp_path / "graph.npz", **arrays, y=np.arange(20) % 2, train_mask=mask, test_mask=~mask)
    np.savez(
        tmp_path / "molecules.npz",
        node_label=np.arange(30) % 2,
        edge_label=np.arange(40) % 3,
        edge_index=np.tile([[0, 1, 1, 2], [1, 0, 2, 1]], 10),
        node_ptr=np.arange(11) * 3,
        edge_ptr=np.arange(11) * 4,
        y=np.arange(10) % 2,
        fold=np.arange(10) % 2,
    )
    files = ["--table", "table.csv", "--graph", "graph.npz", "--molecules", "molecules.npz"]
    command = [sys.executable, SCRIPT, *files, "--space", "egnas(cells=1,vertices=1)", "--smoke"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "experiments" / "results" / "graph_search"
    lines = (folder / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 4 + 2
    trainings = (folder / "molecules.csv").read_bytes()
    rows = trainings.decode().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["with"] * 2 + ["without"] * 2
    for name in ("accuracy.png", "molecules.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    run = tmp_path / "runs" / "graph_search" / "graph-random"
    assert json.loads((run / "config.json").read_text())
    before = (folder / "molecules.md").read_text()
    (folder / "molecules.csv").write_bytes(trainings[:-9])
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (folder / "molecules.csv").read_bytes() == trainings
    assert (folder / "molecules.md").read_text() == before
