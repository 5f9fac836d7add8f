import subprocess
import sys

import documents
import pytest

from nasi_jax import spaces

SCRIPT = documents.ROOT / "experiments" / "nasbench201_ladder.py"


@pytest.mark.slow
def test_smoke(tmp_path):
    """The script runs as documented, and does not search twice."""
    space = spaces.get("nasbench201")
    lines = ["arch,cifar10_test,cifar100_test,imagenet16_test"]
    lines += [f"{space.format(genotype)},{i},{i / 2},{i / 4}" for i, genotype in enumerate(space.enumerate())]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    command = [sys.executable, SCRIPT, "--table", "table.csv", "--runs", "runs", "--out", "results", "--seeds", "2"]
    done = subprocess.run([*command, "--smoke"], cwd=tmp_path, capture_output=True, text=True, check=True)
    table = (tmp_path / "results" / "table.md").read_text()
    assert table.strip() in done.stdout
    rows = table.splitlines()[2:]
    assert len(rows) == 7 + 2
    assert rows[-1] == "| NASI, 4T steps (paper) | | 93.55 ± 0.10 | 71.20 ± 0.14 | 44.84 ± 1.41 |"
    assert (tmp_path / "results" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run([*command, "--smoke"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == table.strip()
