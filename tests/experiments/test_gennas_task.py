import itertools
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS
from nasi_jax.spaces.nasbench201_text import arch_string

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def tasks():
    sys.path.insert(0, str(EXPERIMENTS))
    import gennas_task

    sys.path.remove(str(EXPERIMENTS))
    return gennas_task.Tasks()


def test_tasks_are_what_their_decisions_say(tasks):
    seen = [tasks.task(tasks.sample(jax.random.key(i))) for i in range(20)]
    assert {task.noise for task in seen if task} == {"none", "uniform", "gaussian"}
    # a stage sums nothing with probability 2^-5
    assert sum(task is None for task in seen) <= 5
    x = np.ones((2, 8, 8, 3), np.float32)
    for task in seen[:3]:
        shapes = [target.shape for target in task.targets(jax.random.key(0), x, 4)]
        assert shapes == [(2, 4, 4, stage.channels) for stage in task.stages]
    nothing = np.zeros(len(tasks.decisions), np.int32)
    assert tasks.task(tasks.from_decisions(nothing)) is None


def test_a_mutation_redraws_a_fifth(tasks):
    parent = tasks.sample(jax.random.key(0))
    children = jax.vmap(lambda key: tasks.mutate(key, parent).options)(jax.random.split(jax.random.key(1), 400))
    changed = (np.asarray(children) != np.asarray(parent.options)).mean(axis=0)
    np.testing.assert_allclose(changed, 0.2 * (1 - 1 / np.array(tasks.decisions)), atol=0.08)


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented, and goes on from the tasks that it has judged."""
    cells = list(itertools.product(OPERATIONS, repeat=len(EDGES)))
    lines = [f"{arch_string(cell)},{50 + cell.count('nor_conv_3x3')}" for cell in cells]
    (tmp_path / "table.csv").write_text("\n".join(["arch,cifar10_test", *lines]))
    command = [sys.executable, EXPERIMENTS / "gennas_task.py", "--table", tmp_path / "table.csv", "--smoke"]
    command += ["--out", tmp_path / "out"]
    subprocess.run(command, check=True, capture_output=True)
    rows = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
    assert len(rows) == 5
    assert all(np.isnan(v) or 0 <= v <= 1 for v in (json.loads(row)["value"] for row in rows))
    table = (tmp_path / "out" / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[-3:]] == ["found", "nb101", "combo"]
    (tmp_path / "out" / "history.jsonl").write_text("\n".join(rows[:3]) + "\n")
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out" / "history.jsonl").read_text().splitlines() == rows
    assert (tmp_path / "out" / "table.md").read_text() == table
