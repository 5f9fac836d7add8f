import csv
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
SPACE = spaces.NASBench201()


@pytest.fixture
def table(tmp_path):
    """Accuracies that count convolutions, so that the number of parameters ranks the cells."""
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "cifar10_test", "cifar100_test", "imagenet16_test", "cifar10_val_12ep"])
        for number, genotype in enumerate(SPACE.enumerate()):
            value = np.sum(genotype.operations == 3) * 9 + np.sum(genotype.operations == 2) + number / 1e6
            writer.writerow([SPACE.format(genotype), value, value / 2, value / 4, value])
    return tmp_path / "table.csv"


@pytest.mark.slow
def test_correlation(tmp_path, table):
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(16) % 4)
    options = ["--table", table, "--images", "images.npz", "--cells", "24", "--seeds", "2", "--tiny"]
    command = [sys.executable, EXPERIMENTS / "nasbench201_correlation.py", *options, "--out", "results"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 13 + 2 + 6 * 3 + 2 * 7 + 1 + 5
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["images"]["params"]["spearman of each seed"]["cifar10_test"][0] > 0.95
    assert (tmp_path / "results" / "images.png").stat().st_size > 5000


def test_selection(tmp_path, table):
    rng = np.random.default_rng(0)
    rows = ["genotype,seed,zico,ntk-participation-ratio,ntk-condition-number,reason"]
    cells = [SPACE.format(g) for g in itertools.islice(SPACE.enumerate(), 3, None, 150)]
    for seed in (0, 1):
        for cell in cells:
            good = 9 * cell.count("conv_3x3") + cell.count("1x1") + rng.normal(0, 0.1)
            rows.append(f"{cell},{seed},{good},{good},{good},")
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, EXPERIMENTS / "nasbench201_selection.py", "--table", table, "--scores", "scores.csv"]
    subprocess.run([*command, "--out", "results", "--draws", "60"], cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    found = {line.split("|")[1].strip(): [float(c.split("±")[0]) for c in line.split("|")[2:-1]] for line in lines[2:]}
    assert found["zico"][3] > found["zico"][0]
    assert found["zico"][3] > found["ntk-condition-number"][3] + 10  # which is better where it is lower
    assert found["ntk-participation-ratio+zico"][3] == pytest.approx(found["zico"][3], abs=2)
    assert (tmp_path / "results" / "selection.png").stat().st_size > 5000
