import contextlib
import json

import numpy as np
import pytest
import scipy.stats

from nasi_jax import cli, spaces
from nasi_jax.runs import RunFolder
from nasi_jax.runs.lock import Lock

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


def test_a_table_in_another_notation_gives_the_same(files, tmp_path):
    assert run("--out", "a") == 0
    table = (tmp_path / "table.csv").read_text()
    (tmp_path / "table.csv").write_text(table.replace("|+|", "| + |"))
    assert run("--out", "b") == 0
    assert (tmp_path / "a" / "correlation.json").read_text() == (tmp_path / "b" / "correlation.json").read_text()


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


def test_a_figure_that_is_missing_is_left_out_and_counted(files, tmp_path, capsys):
    _, truth, mean = files
    lines = (tmp_path / "table.csv").read_text().splitlines()
    for line, value in ((2, "nan"), (9, "")):
        cells = lines[line].split(",")
        lines[line] = f"{cells[0]},{value},{cells[2]}"
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert run(column=("accuracy", "error")) == 0
    assert f"| snip | accuracy | {len(truth) - 2} (2 without a figure) |" in capsys.readouterr().out
    scores = json.loads((tmp_path / "correlation" / "correlation.json").read_text())["scores"]["snip"]
    kept = np.delete(np.arange(len(truth)), [1, 8])
    kendall = scores["accuracy"]["statistics"]["kendall"]["value"]
    assert kendall == pytest.approx(scipy.stats.kendalltau(mean[kept], truth[kept])[0])
    assert scores["error"]["without_truth"] == 0


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_architectures_that_the_table_lacks(files, tmp_path, capsys, delimiter):
    cells, truth, mean = files
    for name, kept in (("table.csv", 30), ("0.csv", None), ("1.csv", None)):
        lines = (tmp_path / name).read_text().replace(",", delimiter).splitlines()
        (tmp_path / name).write_text("\n".join(lines[:kept]), encoding="utf-8-sig")
    assert run() == 2
    assert "it has no '|" in capsys.readouterr().err
    assert not (tmp_path / "correlation").exists()
    assert run("--missing", "drop") == 0
    found = json.loads((tmp_path / "correlation" / "correlation.json").read_text())
    assert found["missing"] == len(cells) - 29
    kendall = found["scores"]["snip"]["accuracy"]["statistics"]["kendall"]["value"]
    assert kendall == pytest.approx(scipy.stats.kendalltau(mean[:29], truth[:29])[0])
    assert f"{len(cells) - 29} of {len(cells)} architectures are not in the table" in capsys.readouterr().out


def test_percent_and_fractions_rank_alike(files, tmp_path):
    lines = (tmp_path / "table.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    text = [lines[0], *(f"{arch},{float(accuracy) / 100},{error}" for arch, accuracy, error in rows)]
    found = []
    for out in ("percent", "fraction"):
        assert run("--out", out) == 0
        found.append(json.loads((tmp_path / out / "correlation.json").read_text())["scores"]["snip"]["accuracy"])
        (tmp_path / "table.csv").write_text("\n".join(text))
    best = [ranking["statistics"].pop("best of 100")["value"] for ranking in found]
    assert best[0] == pytest.approx(100 * best[1])
    for name, statistic in found[0]["statistics"].items():
        assert statistic == pytest.approx(found[1]["statistics"][name]), name


def test_files_of_others_are_left_alone(files, tmp_path, capsys):
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "snip.png").write_bytes(b"a picture of mine")
    (out / ".notes.partial").write_bytes(b"being written")
    assert run("--out", "theirs") == 2
    assert "holds a snip.png, but no correlation.json" in capsys.readouterr().err
    (out / "snip.png").rename(out / "mine.png")
    assert run("--out", "theirs") == 0
    assert run("--out", "theirs") == 0
    assert (out / "mine.png").read_bytes() == b"a picture of mine"
    assert (out / ".notes.partial").exists()
    with contextlib.closing(RunFolder(out, Lock(out / ".lock"))):
        assert run("--out", "theirs") == 2
    assert "another process is at work in" in capsys.readouterr().err


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


def test_formulas_and_subsets(files, tmp_path, capsys):
    cells, truth, mean = files
    assert run("--out", "c", "--subset", "valid", combine=("log(2*snip+ntk-condition-number)",)) == 0
    found = json.loads((tmp_path / "c" / "correlation.json").read_text())["scores"]
    valid = np.array([SPACE.subsets["valid"](SPACE.parse(cell)) for cell in cells])
    combined = found["log(2*snip+ntk-condition-number)"]["accuracy"]
    assert combined["count"] == valid.sum()
    ranks = np.log(scipy.stats.rankdata(mean[valid]))
    expected = scipy.stats.spearmanr(3 * ranks, truth[valid])[0]
    assert combined["statistics"]["spearman"]["value"] == pytest.approx(expected)
    assert "Architectures of the subset valid of nasbench201 alone." in capsys.readouterr().out
    assert run("--out", "d", "--subset", "valied") == 2
    assert "did you mean 'valid'" in capsys.readouterr().err
    dead = next(cell for cell, whole in zip(cells, valid, strict=True) if not whole)
    (tmp_path / "dead.csv").write_text(f"genotype,seed,snip,reason\n{dead},0,1.0,\n")
    assert run("--out", "e", "--subset", "valid", scores=("dead.csv",)) == 2
    assert "subset: expected some of the 1 scored architectures, 'valid' has none of them" in capsys.readouterr().err


def test_architectures_in_several_rows_of_the_table(files, tmp_path, capsys):
    cells, truth, mean = files
    spaced = [f"{cell.replace('|+|', '| + |')},{value + 1},0" for cell, value in zip(cells, truth, strict=True)]
    with (tmp_path / "table.csv").open("a") as file:
        file.write("\n".join(spaced))
    assert run("--out", "c", "--repeated", "mean") == 0
    found = json.loads((tmp_path / "c" / "correlation.json").read_text())["scores"]["snip"]["accuracy"]
    assert found["statistics"]["spearman"]["value"] == pytest.approx(scipy.stats.spearmanr(mean, truth)[0])
    assert found["count"] == len(cells)


def test_one_text_in_several_rows_of_the_table(files, tmp_path, capsys):
    cells, truth, mean = files
    with (tmp_path / "table.csv").open("a") as file:
        file.write("\n".join(f"{cell},{value + 1},0" for cell, value in zip(cells, truth, strict=True)))
    assert run("--out", "c") == 2
    assert "repeats the architecture" in capsys.readouterr().err
    assert run("--out", "c", "--repeated", "mean") == 0
    found = json.loads((tmp_path / "c" / "correlation.json").read_text())["scores"]["snip"]["accuracy"]
    assert found["statistics"]["spearman"]["value"] == pytest.approx(scipy.stats.spearmanr(mean, truth)[0])


def test_a_table_of_other_architectures_and_one_of_a_few(files, tmp_path, capsys):
    cells, truth, _ = files
    (tmp_path / "table.csv").write_text("arch,accuracy,other\n64-41414-3_33_333,1,2\n")
    assert run("--out", "c", "--missing", "drop") == 2
    assert f"expected some of the {len(cells)} architectures" in capsys.readouterr().err
    rows = [f"{cell},{value},0" for cell, value in zip(cells[:8], truth, strict=False)]
    (tmp_path / "table.csv").write_text("\n".join(["arch,accuracy,other", *rows]))
    assert run("--out", "c", "--missing", "drop") == 0
    assert "8 architectures are too few to tell scores apart." in capsys.readouterr().out
