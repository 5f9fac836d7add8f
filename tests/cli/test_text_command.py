"""Texts on the command line: words that are masked out, then sentences, from the same parameters on."""

import csv
import json

import numpy as np
import pytest

from nasi_jax import cli
from nasi_jax.runs.checkpoints import last_state

ENCODER = "h128|sdp-2-ff512|sdp-4-ff512"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text")
    (path / "vocab.txt").write_text("\n".join(PIECES))
    (path / "films.txt").write_text("A good film. A bad film. " * 20)
    (path / "films.tsv").write_text("1\tgood films.\n0\ta bad film.\n" * 10)
    return path


@pytest.fixture(scope="module")
def trained(folder):
    """A training on masked words, and one on sentences from its parameters on."""
    common = ["train", "--space", "nasbench-bert", "--genotype", ENCODER, "--hidden", "8", "--batch", "4"]
    common += ["--holdout", "0.25", "--epochs"]
    words = ["3", "--recipe", "masked-words", "--data", f"{folder / 'films.txt'}", "--length", "8"]
    assert cli.main([*common, *words, "--out", str(folder / "words")]) == 0
    sentences = ["1", "--recipe", "sentences", "--data", f"{folder / 'films.tsv'}", "--learning-rate", "1e-9"]
    more = ["--pretrained", str(folder / "words"), "--out", str(folder / "sentences")]
    assert cli.main([*common, *sentences, *more]) == 0
    return folder


@pytest.mark.slow
def test_masked_words_are_judged_by_their_cross_entropy(trained):
    result = json.loads((trained / "words" / "result.json").read_text())
    assert 0 < result["test_loss"] < 2 * np.log(len(PIECES))
    assert "test_accuracy" not in result


@pytest.mark.slow
def test_a_training_starts_from_the_parameters_of_another_but_for_the_head(trained):
    before, after = (last_state(trained / name)["states"]["params"] for name in ("words", "sentences"))
    for name in ("embedding", "h128_layer_1"):
        for a, b in zip(*(sorted_leaves(tree[name]) for tree in (before, after)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert set(before["h128_head"]) != set(after["h128_head"])
    result = json.loads((trained / "sentences" / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1
    assert "pretrained" in result["settings"]


def sorted_leaves(tree):
    if not isinstance(tree, dict):
        return [np.asarray(tree)]
    return [leaf for name in sorted(tree) for leaf in sorted_leaves(tree[name])]


def test_what_is_no_run_is_refused(folder, capsys):
    command = ["train", "--space", "nasbench-bert", "--genotype", ENCODER, "--hidden", "8", "--recipe", "sentences"]
    data = ["--data", f"{folder / 'films.tsv'}", "--holdout", "0.25", "--batch", "4", "--out", str(folder / "no")]
    assert cli.main([*command, *data, "--pretrained", str(folder / "nowhere")]) == 2
    assert "expected a run folder with checkpoints" in capsys.readouterr().err


@pytest.mark.slow
def test_encoders_are_scored_on_the_text(folder):
    out = folder / "scores.csv"
    names = ["feature-effective-rank(of=singular-values)", "ntk-one-batch", "params"]
    size = ["--hidden", "8", "--embedding", "4", "--positions", "8", "--length", "8", "--batch", "4"]
    command = ["score", "--space", "nasbench-bert", "--sample", "2", "--score", *names, "--out", str(out), *size]
    assert cli.main([*command, "--data", f"{folder / 'films.txt'}"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(float(row[name]) > 0 for row in rows for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--length", "9", "--space", "nasbench201"], "length: expected none, nasbench201 does not read token ids"),
        (["--labels", "masked", "--space", "nasbench-bert"], "labels: expected 'random' with random inputs"),
        (["--image-size", "8", "--space", "nasbench-bert"], "image_size: expected none"),
        (["--length", "9", "--positions", "8", "--space", "nasbench-bert"], "x: expected at most 8 tokens"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message, capsys, tmp_path):
    assert cli.main(["score", "--sample", "1", "--out", str(tmp_path / "s.csv"), *arguments]) == 2
    assert message in capsys.readouterr().err
