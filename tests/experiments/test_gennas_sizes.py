import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import spaces

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        import gennas_sizes
    return gennas_sizes


def test_the_best_of_the_cheap_ones_is_chosen_on_the_first_cells(script):
    """Its order on the others says nothing to the choice."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(40, 10))
    seen = np.arange(40)[:, None] < 20
    noise = rng.normal(size=(3, 40, 10))
    good = full[:, -1:] + 0.3 * noise[0]
    found = {
        script.FULL: (full, 10.0),
        script.Size(depth=1): (np.where(seen, good, noise[1]), 2.0),
        script.Size(depth=2): (np.where(seen, noise[2], good), 2.0),
        script.Size(batch=4): (full, 30.0),
    }
    options = script.Options(table=pathlib.Path(), images=pathlib.Path(), chosen_on=20, resamples=100)
    lines, results = script.compared(options, found, full[:10], -full[:, -1])
    chosen = results["chosen"]
    assert (chosen["depth"], chosen["batch"]) == (1, 16)
    assert chosen["cost"] <= 0.2
    assert chosen["chosen_on"] > 0.6 > 0.4 > chosen["others"]
    assert chosen["low"] < chosen["others"] < chosen["high"]
    assert results["published"]["spearman"] == pytest.approx(1)
    assert results["published"]["again"]["cells"] == 10
    assert results["published"]["again"]["tau"] == pytest.approx(1)
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_training_that_diverges_has_the_largest_loss(script):
    losses = np.array([1.0, 2.0, np.nan])
    assert script.tau(np.array([1.0, 2.0, 3.0]), losses) == pytest.approx(1)
    assert script.spearman(losses, np.array([3.0, 2.0, 1.0])) == pytest.approx(1)


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented, and goes on from the cells that it has trained."""
    space = spaces.get("nasbench201")
    cells = [space.format(space.at(i)) for i in range(space.cardinality)]
    lines = [f"{cell},{50 + cell.count('nor_conv_3x3')}" for cell in cells]
    (tmp_path / "table.csv").write_text("\n".join(["arch,cifar10_test", *lines]))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.integers(0, 256, (20, 8, 8, 3), np.uint8), y=np.arange(20) % 2)
    command = [sys.executable, EXPERIMENTS / "gennas_sizes.py", "--table", "table.csv", "--images", "own.npz", "--tiny"]
    command += ["--cells", "6", "--chosen-on", "3", "--again", "2", "--resamples", "20", "--out", "out"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    text = tmp_path / "out" / "results.json"
    results = json.loads(text.read_text())
    assert {row["steps"] for row in results["all"]} == set(range(10, 101, 10))
    files = sorted((tmp_path / "runs" / "gennas_sizes").iterdir())
    rows = files[0].read_text().splitlines()
    files[0].write_text("\n".join(rows[:4]) + "\n")
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    again = [json.loads(row)["losses"] for row in files[0].read_text().splitlines()]
    assert again == [json.loads(row)["losses"] for row in rows]
    taus = [[row["others"] for row in found["all"]] for found in (results, json.loads(text.read_text()))]
    assert taus[0] == taus[1]
