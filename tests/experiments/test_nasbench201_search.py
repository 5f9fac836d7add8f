import csv
import importlib.util
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "nasbench201_search.py"


def test_seeds_that_the_settings_were_not_chosen_on_stand_apart(tmp_path):
    spec = importlib.util.spec_from_file_location("nasbench201_search", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    (tmp_path / "table.csv").write_text("arch," + ",".join(script.COLUMNS) + "\n|none~0|,97.0,98.0,99.0\n")
    searches = [dict.fromkeys(script.COLUMNS, 10.0 if seed < 10 else 20.0 + seed % 2) for seed in range(12)]
    logits = {"genotype": ""} | dict.fromkeys(script.COLUMNS, 50.0)
    rows = script.markdown(
        {"gaussian": {"searches": searches, "mean_logits": logits}},
        script.Table.read(tmp_path / "table.csv", list(script.COLUMNS)),
    ).splitlines()
    assert rows[3].startswith("| nasi_jax, gaussian, seeds 0 to 9 | 10 | 10.00 ± 0.00 |")
    assert rows[4].startswith("| nasi_jax, gaussian, seeds 10 to 11 | 2 | 20.50 ± 0.71 |")
    assert rows[2].startswith("| nasi_jax, gaussian | 12 | 11.75 ± ")
    assert rows[-1] == "| best of the benchmark | | 97.00 | 98.00 | 99.00 |"


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
