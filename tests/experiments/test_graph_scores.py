import csv
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "graph_scores.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    space, rng = spaces.NASBenchGraph(), np.random.default_rng(0)
    texts = {space.canonical(space.sample(jax.random.key(i))) for i in range(12)}
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["arch", "test"], *([text, rng.random()] for text in sorted(texts))])
    size = ["--hidden", "4", "--batch", "8", "--seeds", "1", "--names", "ntk-one-batch", "params"]
    size += ["--kernel", "ntk-condition-number", "--kernel-batch", "4"]
    command = [sys.executable, SCRIPT, "--tables", "table.csv", "--architectures", "8", *size]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "experiments" / "results" / "graph_scores.md").read_text().splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == [
        "ntk-one-batch", "params", "ntk-condition-number", "minus depth", "minus sums",
    ]  # fmt: skip
    for line in lines[2:]:
        assert -1 <= float(line.split("|")[4].split("(")[0]) <= 1
