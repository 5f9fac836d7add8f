import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_architecture_gradient_runs_at_a_tiny_size():
    script = ROOT / "benchmarks" / "architecture_gradient.py"
    size = ["--channels", "1", "--image-size", "4", "--batch", "2", "--runs", "1"]
    done = subprocess.run([sys.executable, script, *size], check=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 11
    assert "| loss gradient | 1.0 | 1.0 | 1.0 |" in done.stdout


@pytest.mark.slow
def test_training_step_runs_at_a_tiny_size(tmp_path):
    script = ROOT / "benchmarks" / "training_step.py"
    size = ["--channels", "2", "2", "1", "--cells", "1", "3", "1", "--image-size", "8", "32", "8", "--batch", "4"]
    more = ["--members", "2", "--product", "64", "--steps", "1", "--out", tmp_path / "t.md"]
    subprocess.run([sys.executable, script, *size, *more], check=True)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert sum(line.startswith("| 2 small networks |") for line in lines) == 2
    assert lines[-1].split("|")[3].strip() == "1.00"


@pytest.mark.slow
def test_ntk_trace_runs_at_a_tiny_size(tmp_path):
    size = ["--channels", "2", "--batch", "4", "8", "--classes", "3", "--runs", "1", "--keys", "1", "--image-size", "4"]
    script = ROOT / "benchmarks" / "ntk_trace.py"
    subprocess.run([sys.executable, script, *size, "--out", tmp_path / "t.md"], check=True, capture_output=True)
    lines = (tmp_path / "t.md").read_text().splitlines()
    exact = [line.split("|")[6].strip() for line in lines if line.startswith("| exact, chunks") and "%" in line]
    assert exact[:2] == ["0.00%", "0.00%"]
    assert sum(line.startswith("| neural-tangents 3 |") for line in lines) == 3


@pytest.mark.slow
def test_strategies_run_at_a_tiny_size(tmp_path):
    script = ROOT / "benchmarks" / "strategies.py"
    size = [
        "--strategies",
        "evolution",
        "random",
        "--repetitions",
        "3",
        "--evaluations",
        "60",
        "--peer-repetitions",
        "1",
    ]
    subprocess.run([sys.executable, script, *size, "--out", tmp_path / "t.md"], check=True, capture_output=True)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["evolution", "random"]


@pytest.mark.slow
def test_latency_runs_on_a_few_architectures(tmp_path):
    script = ROOT / "benchmarks" / "latency.py"
    few = ["--architectures", "3", "--fitted", "4", "--out", tmp_path / "t.md"]
    subprocess.run([sys.executable, script, *few], check=True, capture_output=True)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["measured again", "added up, fitted to 4"]


@pytest.mark.slow
def test_bilevel_step_runs_at_a_tiny_size(tmp_path):
    script = ROOT / "benchmarks" / "bilevel_step.py"
    size = ["--cells", "3", "--channels", "2", "--image-size", "8", "--batch", "4", "--steps", "1"]
    kinds = ["--kinds", "first", "second", "snas", "--out", tmp_path / "t.md"]
    subprocess.run([sys.executable, script, *size, *kinds], check=True, capture_output=True)
    lines = (tmp_path / "t.md").read_text().splitlines()
    ours = [line.split("|")[1].strip() for line in lines[2:] if "nasi_jax" in line]
    assert ours == ["first order", "second order", "SNAS"]


@pytest.mark.slow
def test_gennas_runs_at_a_tiny_size(tmp_path):
    size = ["--channels", "2", "--depth", "1", "--batch", "4", "--image-size", "16", "8", "--steps", "10"]
    script = ROOT / "benchmarks" / "gennas.py"
    subprocess.run(
        [sys.executable, script, *size, "--seeds", "2", "--cells", "3", "--out", tmp_path / "t.md"], check=True
    )
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert any(line.startswith("| nasi_jax, 2 draws | ") for line in lines)
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["nasi_jax, 16x16", "nasi_jax, 8x8"]


@pytest.mark.slow
def test_ntk_kernel_runs_at_a_tiny_size(tmp_path):
    script, out = ROOT / "benchmarks" / "ntk_kernel.py", tmp_path / "t.md"
    size = ["--networks", "attention", "--width", "0.1", "--runs", "1", "--methods", "nasi_jax", "--out", out]
    for batch in ("5", "6"):
        subprocess.run([sys.executable, script, *size, "--batch", batch], check=True, capture_output=True)
    lines = [line.split("|") for line in out.read_text().splitlines() if "| nasi_jax |" in line]
    assert [line[2].strip() for line in lines] == ["5", "6"]
    assert all(float(line[8]) < 1e-5 for line in lines)


@pytest.mark.slow
def test_graph_step_runs_at_a_tiny_size(tmp_path):
    script = ROOT / "benchmarks" / "graph_step.py"
    ends = [[0, 1, 1, 2], [1, 0, 2, 1]]
    np.savez(tmp_path / "graph.npz", x=np.eye(4), edge_index=np.array(ends), y=np.arange(4) % 2)
    size = [
        "--graph",
        tmp_path / "graph.npz",
        "--hidden",
        "4",
        "--steps",
        "1",
        "--architectures",
        "0012|gat|gin|arma|gcn",
    ]
    subprocess.run([sys.executable, script, *size, "--out", tmp_path / "t.md"], check=True, capture_output=True)
    assert (tmp_path / "t.md").read_text().splitlines()[-1].startswith("| `0012\\|gat\\|gin\\|arma\\|gcn` |")
