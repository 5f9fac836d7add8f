import csv
import pathlib
import subprocess
import sys

import numpy as np

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "transformer_operations.py"
OPERATIONS = ("sdp", "wma", "dft", "dct", "conv5", "conv9")


def test_an_effect_is_found_where_there_is_one_and_none_elsewhere(tmp_path):
    """On encoders whose seconds depend on heads and deep layers, and whose score depends on operations too."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        width, count = rng.choice([128, 256]), rng.choice([2, 4])
        layers = [
            (rng.choice(OPERATIONS), rng.choice([2, 4]), rng.choice([512, 1024]), rng.choice([1, 3]))
            for _ in range(count)
        ]
        deep = sum(f for _, _, f, n in layers if n == 3)
        seconds = width * count + deep / 100 + 5 * sum(h for _, h, _, _ in layers) + rng.normal()
        score = count + sum(o == "dct" for o, *_ in layers) + 0.5 * rng.normal()
        rows.append(["|".join([f"h{width}", *(f"{o}-{h}-ff{f}x{n}" for o, h, f, n in layers)]), seconds, score])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["arch", "pretrain_seconds", "glue"], *rows, [rows[0][0], "", ""]])
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--targets", "pretrain_seconds", "glue"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "experiments" / "results" / "transformer_operations.md").read_text().splitlines()
    assert lines[0] == "200 encoders."
    chances = {tuple(line.split(" | ")[:2]): float(line.split(" | ")[5].rstrip(" |")) for line in lines[4:]}
    assert chances["| pretrain_seconds", "operations"] > 1e-3
    assert chances["| pretrain_seconds", "single 1024"] > 1e-3
    assert chances["| pretrain_seconds", "deep 1024"] < 1e-20
    assert chances["| glue", "operations"] < 1e-20
