import csv
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "nasbench201_search.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented and looks up what the searches selected."""
    accuracies = {}
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "cifar10_test", "cifar100_test", "imagenet16_test"])
        for number, cell in enumerate(itertools.product(OPERATIONS, repeat=len(EDGES))):
            nodes = dict.fromkeys((1, 2, 3), "|")
            for (source, target), operation in zip(EDGES, cell, strict=True):
                nodes[target] += f"{operation}~{source}|"
            text = "+".join(nodes.values())
            accuracies[text] = number
            writer.writerow([text, number, number / 2, number / 4])
    options = ["--table", "table.csv", "--runs", "runs", "--out", "results", "--seeds", "2", "--smoke", "--paper"]
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "results" / "results.json").read_text())["gaussian"]
    assert [entry["cifar10_test"] for entry in result["searches"]] == [
        accuracies[entry["genotype"]] for entry in result["searches"]
    ]
    assert result["mean"]["cifar100_test"] == sum(e["cifar10_test"] for e in result["searches"]) / 4
    assert "gaussian, nasi-ada" in done.stdout
    assert "93.55 ± 0.10" in done.stdout
    assert (tmp_path / "results" / "table.md").read_text().strip() in done.stdout
    assert (tmp_path / "results" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
