import importlib.util
import subprocess
import sys

import documents
import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = documents.ROOT / "experiments" / "nasbench201_simulated.py"


@pytest.fixture(scope="module")
def simulated():
    spec = importlib.util.spec_from_file_location("nasbench201_simulated", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def additive():
    """Returns an objective that is a sum over edges, by cell number, and the number of its largest value."""
    parts = np.random.default_rng(0).normal(size=(6, 4))
    choices = np.stack(np.unravel_index(np.arange(4096), (4,) * 6), axis=1)
    return 10 + parts[np.arange(6), choices].sum(axis=1), int(parts.argmax(axis=1) @ 4 ** np.arange(5, -1, -1))


@pytest.mark.parametrize("least_squares", [False, True])
def test_a_simulated_search_finds_the_optimum_of_a_sum(simulated, least_squares):
    values, best = additive()
    run = jax.vmap(lambda key: simulated.simulate(key, jnp.asarray(values)[None], 0.01, least_squares=least_squares))
    found = np.asarray(run(jax.random.split(jax.random.key(0), 40)))
    assert values[found].mean() > values.max() - 0.1 * values.std()
    assert (found == best).mean() > (0.9 if least_squares else 0.5)


def test_hill_climbing_ends_where_no_exchange_is_better(simulated):
    values, best = additive()
    assert {simulated.climbed(cell, values) for cell in (0, 77, 4095)} == {best}
    rough = np.random.default_rng(1).normal(size=4096)
    end = simulated.climbed(1234, rough)
    digits = np.array(np.unravel_index(end, (4,) * 6))
    for edge in range(6):
        for operation in range(4):
            other = digits.copy()
            other[edge] = operation
            assert rough[np.ravel_multi_index(other, (4,) * 6)] <= rough[end]


def test_cells_are_numbered_by_their_operations(simulated):
    cells = simulated.all_cells()
    assert (len(cells.texts), len(cells.different)) == (4096, 871)
    number = int(np.ravel_multi_index((3, 3, 0, 1, 3, 2), (4,) * 6))
    assert cells.texts[number] == (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    )
    assert cells.different[cells.function[4095]].count("nor_conv_3x3") == 6


@pytest.mark.slow
def test_smoke(simulated, tmp_path):
    """The script runs as documented, and does not compute again what is there."""
    cells = simulated.all_cells()
    lines = ["arch,cifar10_test,cifar100_test,imagenet16_test"]
    lines += [f"{text},{i},{i / 2},{i / 4}" for i, text in enumerate(cells.texts)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--out", "results", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    stored = (tmp_path / "results" / "objective.json").read_bytes()
    assert "| 3x3 everywhere, the most parameters | 4095.00 |" in done.stdout
    assert (tmp_path / "results" / "simulated.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert (tmp_path / "results" / "objective.json").read_bytes() == stored
