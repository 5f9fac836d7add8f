import csv
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "leaderboard.py"
SPACE = spaces.TransNASMicro()


@pytest.mark.slow
def test_a_table_is_ranked_beside_its_own_proxies(tmp_path):
    """Figures that count convolutions, by which the number of parameters ranks."""
    columns = [
        "arch",
        "autoencoder",
        "class_object",
        *(f"class_object:{name}" for name in ("epe_nas", "synflow", "zen")),
    ]
    with gzip.open(tmp_path / "transnas_micro.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number, genotype in enumerate(SPACE.enumerate()):
            operations = np.asarray(genotype.operations)
            value = 9 * np.sum(operations == 3) + np.sum(operations == 2) + number / 1e6
            writer.writerow([SPACE.notations["naslib"](genotype), 100 - value, value, value, -value, 0])
    options = ["--nasbench201", "none", "--transfer", ".", "--tables", "TransNAS micro", "--cells", "8", "--tiny"]
    command = [sys.executable, SCRIPT, *options, "--resamples", "20", "--timed", "1", "--out", "results"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = json.loads((tmp_path / "results" / "leaderboard.json").read_text())
    objects, autoencoder = (found["spearman"][f"TransNAS micro, {name}"] for name in ("objects", "autoencoder"))
    assert objects["params"]["value"] > 0.9
    assert autoencoder["params"]["value"] == pytest.approx(-objects["params"]["value"])
    assert objects["as published: epe_nas"]["value"] == pytest.approx(1)
    assert objects["as published: synflow"]["value"] == pytest.approx(-1)
    assert found["architectures"] == {"TransNAS micro": 8}
    lines = (tmp_path / "results" / "leaderboard.md").read_text().splitlines()
    assert lines[0].startswith("| score | TransNAS micro, objects | TransNAS micro, autoencoder |")
    assert (tmp_path / "results" / "leaderboard.png").stat().st_size > 5000
