import pathlib
import subprocess
import sys

import numpy as np
import pytest

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


def run(name, folder, *options):
    command = [sys.executable, EXPERIMENTS / f"{name}.py", "--out", folder, *options]
    subprocess.run(command, check=True, capture_output=True)
    assert (folder / f"{name}.png").stat().st_size > 10_000
    lines = (folder / f"{name}.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_the_loss_stays_under_the_bound_and_nears_equation_4_with_the_width(tmp_path):
    options = ["--widths", "16", "256", "--seeds", "2", "--networks", "4", "--steps", "50", "--common-steps", "5"]
    rows = run("proposition1", tmp_path, *options)[2:]
    narrow, wide = (float(row[1].split("%")[0]) for row in rows)
    assert wide < narrow / 2
    assert all(float(row[2]) > 1 for row in rows)


@pytest.mark.slow
def test_the_gap_of_the_traces_stays_under_the_bound(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(16) % 2)
    options = ["--dimensions", "8", "16", "--widths", "16", "32", "--powers", "2", "4", "--seeds", "2"]
    rows = run("proposition2", tmp_path, *options, "--samples", "16", "--images", tmp_path / "images.npz")
    rows = [row for row in rows if "±" in row[-2]]
    assert len(rows) == 9
    for row in rows:
        gaps = [float(cell.split("±")[0]) for cell in row if "±" in cell]
        assert 0 < max(gaps) < float(row[-1])
    # both sides fall with the input dimension
    assert float(rows[1][3].split("±")[0]) == pytest.approx(float(rows[0][3].split("±")[0]) / 2, rel=0.2)
