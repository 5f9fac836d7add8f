"""Kills search, score and train at random moments, and holds what they leave against uninterrupted runs.

    python benchmarks/kill_nine.py --kills 20

A verb is started again and again, and killed by SIGKILL after a random part of the time that an uninterrupted run
takes, until it was killed as often as asked; then it runs to its end. Prints a JSON line for each verb, and exits with
1 where a file differs.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
SIZE = ["--channels", "2", "--cells", "1"]
VERBS = {
    "search": ["search", *SIZE, "--steps", "300", "--batch", "2", "--image-size", "8"],
    "score": ["score", *SIZE, "--batch", "2", "--image-size", "4", "--sample", "300", "--score", "snip", "naswot"],
    "train": ["train", *SIZE, "--genotype", CELL, "--epochs", "20", "--batch", "8", "--crop", "0"],
}
NEVER_EQUAL = ("seconds", "environment")


def main() -> int:
    """Runs the check.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--verbs", nargs="+", choices=sorted(VERBS), default=sorted(VERBS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, equal = random.Random(options.seed), True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 3
        np.savez(folder / "images.npz", x=x[:40], y=y[:40], x_test=x[40:], y_test=y[40:])
        for verb in options.verbs:
            more = ["--data", str(folder / "images.npz")] if verb == "train" else []
            command = [sys.executable, "-m", "nasi_jax", *VERBS[verb], *more, "--out"]
            out = {kind: folder / f"{verb}-{kind}" / "out" for kind in ("whole", "cut")}
            subprocess.run([*command, str(out["cut"])], check=True, capture_output=True)  # which compiles
            shutil.rmtree(out["cut"].parent)
            start = time.monotonic()
            subprocess.run([*command, str(out["whole"])], check=True, capture_output=True)
            seconds = time.monotonic() - start
            kills = ends = 0
            while kills < options.kills:
                process = subprocess.Popen(
                    [*command, str(out["cut"])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                try:
                    process.wait(draw.uniform(0.1, 1.0) * seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
                kills += process.wait() == -signal.SIGKILL
                if process.returncode != -signal.SIGKILL:
                    ends += 1  # it came to its end before; what it left is compared, and it starts anew
                    equal &= _report(verb, kills, ends, out)
                    shutil.rmtree(out["cut"].parent)
            last = subprocess.run([*command, str(out["cut"])], check=False, capture_output=True, text=True)
            if last.returncode and "holds a finished run" not in last.stderr:
                print(last.stderr, file=sys.stderr)
                equal = False
            equal &= _report(verb, kills, ends, out)
    return 0 if equal else 1


def _report(verb: str, kills: int, ends: int, out: dict[str, pathlib.Path]) -> bool:
    whole, cut = (_files(path.parent) for path in (out["whole"], out["cut"]))
    differing = sorted(name for name in whole.keys() | cut.keys() if whole.get(name) != cut.get(name))
    print(json.dumps({"verb": verb, "kills": kills, "ends": ends, "files": len(whole), "differing": differing}))
    return not differing


def _files(folder: pathlib.Path) -> dict[str, object]:
    """Reads all files but checkpoints, whose format has times in it, and the report, which shows how long it took."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "checkpoint" not in name:
            content = path.read_bytes()
            found[name] = _without_times(json.loads(content)) if path.suffix == ".json" else content
            if path.name == "report.html":
                found[name] = len(content) > 0
    return found


def _without_times(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: _without_times(entry) for key, entry in value.items() if key not in NEVER_EQUAL}


if __name__ == "__main__":
    sys.exit(main())
