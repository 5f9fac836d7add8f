import json

import numpy as np
import pytest
import scipy.stats

from nasi_jax import cli, spaces

SPACE = spaces.NASBench201()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Scores of 40 cells and two seeds in two shards, and a table with an accuracy for each."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    cells = [SPACE.format(g) for g in list(SPACE.enumerate())[7::391]]
    truth = rng.uniform(50, 95, len(cells))
    scores = {seed: truth + rng.normal(0, 10, len(cells)) for seed in (0, 1)}
    for shard in (0, 1):
        rows = ["genotype,seed,snip,ntk-condition-number,reason"]
        for seed, values in scores.items():
            rows += [f"{cells[i]},{seed},{values[i]},{-values[i]}," for i in range(shard, len(cells), 2)]
        (tmp_path / f"{shard}.csv").write_text("\n".join(rows) + "\n")
    lines = [f"{cell},{value},{100 - value}" for cell, value in zip(cells, truth, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["arch,accuracy,error", *lines]) + "\n")
    return cells, truth, np.mean(list(scores.values()), axis=0)


def run(*options, combine=(), scores=("0.csv", "1.csv"), column=("accuracy",), resamples="50"):
    table = ["--table", "table.csv", "--column", *column, "--resamples", resamples]
    options = [*options, *(["--combine", *combine] if combine else [])]
    return cli.main(["correlate", "--scores", *scores, *table, *options])


def test_statistics_over_shards_and_seeds(files, tmp_path, capsys):
    cells, truth, mean = files
    assert run("--out", "c", column=("accuracy", "error"), resamples="300") == 0
    found = json.loads((tmp_path / "c" / "correlation.json").read_text())
    assert found["seeds"] == [0, 1]
    spearman = found["scores"]["snip"]["accuracy"]["statistics"]["spearman"]
    assert spearman["value"] == pytest.approx(scipy.stats.spearmanr(mean, truth)[0])
    assert -1 <= spearman["low"] < spearman["value"] < spearman["high"] <= 1
    assert found["scores"]["snip"]["error"]["statistics"]["kendall"]["value"] < 0
    # a score that is better where lower is negated
    lower = found["scores"]["ntk-condition-number"]["accuracy"]["statistics"]["spearman"]["value"]
    assert lower == pytest.approx(spearman["value"])
    printed, progress = capsys.readouterr()
    assert printed == (tmp_path / "c" / "correlation.md").read_text()
    assert "ranking 4/4" in progress
    assert f"| snip | accuracy | {len(cells)} |" in printed
    assert "| -ntk-condition-number |" in printed
    assert (tmp_path / "c" / "snip.png").stat().st_size > 5000


def test_failures_and_ties_are_counted(files, tmp_path, capsys):
    cells, *_ = files
    values = ["nan", "inf", "1.5", "1.5", *map(str, range(2, len(cells) - 2))]
    reasons = ["not finite: snip", "not finite: snip", *[""] * (len(cells) - 2)]
    rows = [f"{c},0,{v},{r}" for c, v, r in zip(cells, values, reasons, strict=True)]
    (tmp_path / "s.csv").write_text(
        "\n".join(["genotype,seed,snip,reason", *rows, "|bad|,0,nan,line 9: malformed"]) + "\n"
    )
    assert run(scores=("s.csv",)) == 0
    printed = capsys.readouterr().out
    assert f"| {len(cells) - 1} (1 not a number, 1 infinite, 2 tied) |" in printed
    assert "3 rows are without a finite score" in printed


def test_equal_scores_have_no_correlation(files, tmp_path, capsys):
    cells, *_ = files
    rows = [f"{c},0,1.0," for c in cells]
    (tmp_path / "s.csv").write_text("\n".join(["genotype,seed,snip,reason", *rows]) + "\n")
    assert run(scores=("s.csv",)) == 0
    assert "| none | none |" in capsys.readouterr().out
    found = json.loads((tmp_path / "correlation" / "correlation.json").read_text())
    assert found["scores"]["snip"]["accuracy"]["statistics"]["kendall"]["value"] is None


def test_unique_keeps_one_of_each_function(files, tmp_path, capsys):
    same = [
        "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
    ]
    others = files[0][1:6]
    rows = [f"{c},0,{i}," for i, c in enumerate([*same, *others])]
    (tmp_path / "s.csv").write_text("\n".join(["genotype,seed,snip,reason", *rows]) + "\n")
    (tmp_path / "table.csv").write_text(
        "\n".join(["arch,accuracy", *[f"{c},{i}" for i, c in enumerate([*same, *others])]])
    )
    assert run("--unique", scores=("s.csv",)) == 0
    assert "| snip | accuracy | 6 |" in capsys.readouterr().out


def test_a_sum_of_ranks(files, tmp_path):
    _, truth, mean = files
    assert run("--combine", "snip+ntk-condition-number") == 0
    scores = json.loads((tmp_path / "correlation" / "correlation.json").read_text())["scores"]
    # here the second score is the first one negated, and lower is better in it
    both = scores["snip+ntk-condition-number"]["accuracy"]["statistics"]["kendall"]["value"]
    assert both == pytest.approx(scipy.stats.kendalltau(mean, truth)[0])
    assert (tmp_path / "correlation" / "snip+ntk-condition-number.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": ("absent.csv",)}, "there is none at 'absent.csv'"),
        ({"scores": ("table.csv",)}, "expected a file of 'nasi score'"),
        ({"scores": ("0.csv", "0.csv")}, "repeats"),
        ({"column": ("absent",)}, "expected columns ['absent']"),
        ({"resamples": "0"}, "resamples: expected"),
        ({"combine": ("snip+absent",)}, "combine: expected names"),
    ],
)
def test_bad_files(files, change, message, capsys):
    assert run(**change) == 2
    assert message in capsys.readouterr().err
