import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "nasbench201_strategies.py"
SPACE = spaces.get("nasbench201")
DATA = ("cifar10", "cifar100", "imagenet16")


@pytest.mark.slow
def test_smoke(tmp_path):
    """On a table of the number of 3x3 convolutions, which evolution and local search find more of."""
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", *(f"{data}_{kind}" for data in DATA for kind in ("val_12ep", "test"))])
        for genotype in SPACE.enumerate():
            writer.writerow([SPACE.format(genotype), *[10 * np.sum(genotype.operations == 3)] * 6])
    options = [
        "--table",
        "table.csv",
        "--out",
        "results",
        "--strategies",
        "random",
        "local",
        "--scored",
        "random",
        "--smoke",
    ]
    subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    assert sum(line.endswith("test accuracy (%)") for line in lines) == 3
    rows = {line.split("|")[1].strip(): float(line.split("|")[2].split("±")[0]) for line in lines if "±" in line}
    assert rows["local"] > rows["random, exact"] + 5
    assert (tmp_path / "results" / "accuracy.png").stat().st_size > 10000
    scored = (tmp_path / "results" / "scored.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in scored] == ["strategy", "---", "nasi", "random", "one random cell"]
    assert (tmp_path / "results" / "scored.png").stat().st_size > 10000
