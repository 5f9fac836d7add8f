import importlib.util
import subprocess
import sys

import documents
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasi_jax import search, spaces

SCRIPT = documents.ROOT / "experiments" / "nasbench201_constraint.py"


@pytest.fixture(scope="module")
def constraint():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("nasbench201_constraint", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


def test_the_closed_form_is_that_of_a_search(constraint):
    rng = np.random.default_rng(0)
    slopes, traces, nu = rng.normal(size=(7, 6, 5)), rng.uniform(0, 2, 7), np.full(7, 0.8)
    transformation = search.normalised_expected_gradient(7, 1.0)
    alphas = {"cell": jnp.zeros((6, 5))}
    state = transformation.init(alphas)
    for slope, trace in zip(slopes, traces, strict=True):
        penalised = {"cell": jnp.asarray(-(slope - (1.5 if trace > 0.8 else 0) * slope))}
        updates, state = transformation.update(penalised, state)
        alphas = optax.apply_updates(alphas, updates)
    np.testing.assert_allclose(constraint.closed_form(slopes, traces, 1.5, nu), alphas["cell"], rtol=1e-5)


def test_running_rules_see_the_steps_before_alone(constraint):
    traces = np.array([4.0, 1.0, 9.0, 2.0])
    np.testing.assert_allclose(constraint.RULES["running median"](traces), [0, 2, 1, 2.5])
    np.testing.assert_allclose(constraint.RULES["running mean"](traces), [0, 2, 5 / 3, 3.5])
    np.testing.assert_allclose(constraint.quantile(0.5)(traces), [3, 3, 3, 3])


def test_agreement_is_between_seeds(constraint):
    a, b = np.array([3.0, 0.0]), np.array([0.0, 1.0])
    assert constraint.agreement([[a, 2 * a], [b]]) == 0
    assert constraint.agreement([[a], [2 * a], [a]]) == pytest.approx(1)
    assert constraint.agreement([[a], [-a], [b]]) == pytest.approx(-1 / 3)


@pytest.mark.slow
def test_smoke(constraint, tmp_path):
    """The script runs as documented, and does not compute again what is there."""
    lines = ["arch,cifar10_test,cifar100_test,imagenet16_test"]
    space = spaces.get("nasbench201")
    lines += [f"{space.format(genotype)},{i},{i / 2},{i / 4}" for i, genotype in enumerate(space.enumerate())]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--gradients", "runs", "--out", "table.md", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"c2-n1-ntk-b4-0.npz", "c2-n1-ntk-b4-1.npz"}
    table = (tmp_path / "table.md").read_text()
    assert len(table.splitlines()) == 2 + 2 * (1 + 2 * len(constraint.RULES))
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout == table
    assert done.stdout.endswith(table)
