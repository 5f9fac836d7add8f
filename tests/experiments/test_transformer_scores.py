import csv
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "transformer_scores.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    space, rng = spaces.NASBenchBERT(), np.random.default_rng(0)
    drawn = [space.sample(jax.random.key(i)) for i in range(12)]
    shallow = [genotype.replace(more=0 * genotype.more) for genotype in drawn[::2]]
    texts = sorted({space.format(genotype) for genotype in shallow + drawn[1::2]})
    with (tmp_path / "table.csv").open("w", newline="") as file:
        head = ["trained", "hidden", "layers", "params_trained", "glue", "mnli"]
        rows = [[text, text[1:4], text.count("|"), 100 * i, rng.random(), i] for i, text in enumerate(texts)]
        csv.writer(file).writerows([head, *rows, [texts[0], 128, 2, 5, "", ""]])
    np.savez(tmp_path / "text.npz", tokens=rng.integers(200, 900, 300))
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--text", "text.npz", "--smoke"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "experiments" / "results" / "transformer_scores.md").read_text().splitlines()
    assert lines[0].startswith("8 encoders, 8 different networks; 4 sequences of 8 tokens")
    found = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines[4:]]
    names = ["feature-effective-rank(of=singular-values)", "feature-effective-rank"]
    assert [cells[1] for cells in found] == ["parameters", "depth", "width times depth", *names, *names]
    for cells in found:
        assert -1 <= float(cells[3].split(" ")[0]) <= 1
