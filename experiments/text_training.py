"""Trains two encoders on masked words, then on sentences with labels, by `nasi train`.

    python experiments/text_training.py --words wikitext2_valid.npz --sentences sst2_train.npz cola_train.npz

Each encoder learns the words that are masked out of a running text, at toy size. Then it is trained on every file of
sentences, once from the parameters of that training on and once without them. The held-out loss, accuracy and Matthews'
correlation are in a table in experiments/results/text_training.md; expected: experiments/README.md. The commands are
printed, and their run folders stay. A run that was interrupted continues. `--smoke` trains an epoch of smaller ones.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
from typing import Any

import numpy as np
import tyro

from nasi_jax import cli

ENCODERS = ("h128|sdp-2-ff512|sdp-2-ff512", "h256|" + "|".join(["sdp-4-ff1024"] * 4))


@dataclasses.dataclass(frozen=True)
class Options:
    """Train two encoders.

    Attributes:
        words: .npz file of token ids of a running text.
        sentences: .npz files of token ids of sentences with labels.
        runs: folder of the run folders.
        out: the table to write.
        hidden: channels of the wide encoder; the narrow one has half of them.
        embedding: channels of the embedding.
        length: tokens of a sequence.
        epochs: passes over the running text, and over the sentences.
        learning_rate: highest rate, of all trainings.
        smoke: train small encoders for an epoch, to see that the script works.
    """

    words: pathlib.Path
    sentences: tuple[pathlib.Path, ...]
    runs: pathlib.Path = pathlib.Path("runs/text")
    out: pathlib.Path = pathlib.Path("experiments/results/text_training.md")
    hidden: int = 64
    embedding: int = 32
    length: int = 32
    epochs: tuple[int, int] = (3, 3)
    learning_rate: float = 1e-3
    smoke: bool = False


def main(options: Options) -> None:
    """Trains what is missing and writes the table."""
    if options.smoke:
        options = dataclasses.replace(options, hidden=8, embedding=4, length=8, epochs=(1, 1))
    tasks = [path.stem for path in options.sentences]
    columns = [f"{name}, {start}" for name in tasks for start in ("from the start", "from masked words")]
    lines = [f"| encoder | parameters | masked words | {' | '.join(columns)} |", "| --- " * (3 + len(columns)) + "|"]
    for number, encoder in enumerate(ENCODERS):
        words = options.runs / f"{number}-words"
        learnt = trained(options, encoder, options.words, words, "masked-words", options.epochs[0])
        cells = [f"{learnt['parameters'] / 1e6:.2f} million", f"loss {learnt['test_loss']:.3f}"]
        for path in options.sentences:
            for start in ("", "-pretrained"):
                folder = options.runs / f"{number}-{path.stem}{start}"
                more = ["--pretrained", str(words)] if start else []
                result = trained(options, encoder, path, folder, "sentences", options.epochs[1], *more)
                cells.append(f"{100 * result['test_accuracy']:.1f} %, {matthews(folder):.2f}")
        shown = encoder.replace("|", "\\|")
        lines.append(f"| `{shown}` | {' | '.join(cells)} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def trained(
    options: Options, encoder: str, path: pathlib.Path, out: pathlib.Path, recipe: str, epochs: int, *more: str
) -> dict[str, Any]:
    """Runs `nasi train` unless it is done; returns its result."""
    result = out / "result.json"
    if not result.exists():
        command = [
            "train", "--space", "nasbench-bert", "--genotype", encoder, "--recipe", recipe, "--data", str(path),
            "--length", str(options.length), "--holdout", "0.2", "--hidden", str(options.hidden),
            "--embedding", str(options.embedding), "--epochs", str(epochs), "--warmup", "0.3", "--dropout", "0",
            "--initialisation", "he", "--learning-rate", str(options.learning_rate), "--out", str(out), *more,
        ]  # fmt: skip
        print(f"nasi {shlex.join(command)}", flush=True)
        status = cli.main(command)
        if status:
            raise SystemExit(status)
    return json.loads(result.read_text())


def matthews(folder: pathlib.Path) -> float:
    """Returns Matthews' correlation of labels and predictions of a run, 0 where all predictions are one label."""
    with np.load(folder / "confusion.npz") as file:
        counts = file[file.files[0]].astype(float)
    total, right = counts.sum(), np.trace(counts)
    labels, predictions = counts.sum(axis=1), counts.sum(axis=0)
    scale = np.sqrt((total**2 - labels @ labels) * (total**2 - predictions @ predictions))
    return float((right * total - labels @ predictions) / scale) if scale else 0.0


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
