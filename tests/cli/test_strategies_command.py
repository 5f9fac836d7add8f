"""`nasi search` by values alone, on a table of its own."""

import csv
import json
import math
import re

import numpy as np
import pytest

from nasi_jax import cli, search, spaces

SPACE = spaces.get("nasbench201")
EVALUATIONS = 24
FILES = {"config.json", "genotype.json", "history.jsonl", "cell.png", "history.png", "pareto.png", "report.html"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """More convolutions are better; two thirds of the architectures are there."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "accuracy", "other"])
        for i, genotype in enumerate(SPACE.enumerate()):
            if i % 3:
                value = np.isin(genotype.operations, [2, 3]).sum() + i / 1e6
                writer.writerow([SPACE.format(genotype), value, -value])
    return path


def run(out, *arguments):
    return cli.main(["search", "--out", str(out), *map(str, arguments)])


def rows(path):
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def on(table, *arguments):
    return ["--table", table, "--column", "accuracy", "--evaluations", EVALUATIONS, *arguments]


@pytest.mark.parametrize("strategy", search.STRATEGIES)
def test_a_run_of_every_strategy(tmp_path, table, strategy):
    few = ["--population", 6, "--contenders", 3] if strategy == "evolution" else []
    assert run(tmp_path / "run", "--strategy", strategy, *on(table, "--seeds", 2, *few)) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} - {".lock"} == FILES
    record, history = json.loads((tmp_path / "run" / "genotype.json").read_text()), rows(tmp_path / "run")
    assert [(row["seed"], row["step"]) for row in history] == [(s, t) for s in (0, 1) for t in range(EVALUATIONS)]
    valued = [row for row in history if row["value"] is not None]
    assert all(row["value"] == row["accuracy"] for row in valued)
    assert all("the table has no" in row["reason"] for row in history if row["value"] is None)
    best = max(valued, key=lambda row: row["value"])
    assert (record["genotype"], record["value"]) == (best["genotype"], best["value"])
    assert [summary["evaluations"] for summary in record["searches"]] == [EVALUATIONS] * 2
    assert spaces.from_json(SPACE, record) == SPACE.parse(best["genotype"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"2 searches of nasbench201 by {strategy}: {2 * EVALUATIONS} evaluations of accuracy" in page
    for heading in ("Selected architecture", "What it costs", "How sure the choice is", "How to train it"):
        assert f"<h2>{heading}</h2>" in page
    assert re.search(
        rf'<td class="figure">1</td>(<td class="figure">[\d.,]+</td>)+<td>{re.escape(best["genotype"])}</td>', page
    )
    assert "over 2 searches" in page


def test_a_run_continues_from_its_rows(tmp_path, table):
    arguments = ["--strategy", "evolution", *on(table, "--population", 6, "--contenders", 3)]
    assert run(tmp_path / "whole", *arguments) == 0
    assert run(tmp_path / "cut", *arguments) == 0
    (tmp_path / "cut" / "genotype.json").unlink()
    history = (tmp_path / "cut" / "history.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut" / "history.jsonl").write_text("".join(history[:9]) + history[9][:30])
    assert run(tmp_path / "cut", *arguments) == 0
    for name in ("history.jsonl", "genotype.json"):
        contents = [(tmp_path / folder / name).read_text() for folder in ("whole", "cut")]
        if name == "genotype.json":
            contents = [{k: v for k, v in json.loads(c).items() if k != "provenance"} for c in contents]
        assert contents[0] == contents[1]


def test_a_finished_run_stays(tmp_path, table, capsys):
    arguments = ["--strategy", "random", *on(table)]
    assert run(tmp_path / "run", *arguments) == 0
    assert run(tmp_path / "run", *arguments) == 2
    assert "finished run" in capsys.readouterr().err


def test_more_of_the_same_extends_a_run(tmp_path, table, capsys):
    options = ["--strategy", "evolution", "--population", 6, "--contenders", 3, "--parallel", 5]
    assert run(tmp_path / "whole", *options, *on(table, "--seeds", 2)) == 0
    assert run(tmp_path / "run", *options, *on(table)[:-1], 12) == 0
    assert run(tmp_path / "run", *options, *on(table, "--seeds", 2)) == 0
    by_seed = sorted(rows(tmp_path / "run"), key=lambda row: row["seed"])
    assert by_seed == rows(tmp_path / "whole")
    extended, whole = (json.loads((tmp_path / name / "genotype.json").read_text()) for name in ("run", "whole"))
    assert extended["searches"] == whole["searches"]
    assert run(tmp_path / "run", *options, *on(table)) == 2
    assert "seeds: 2 there, 1 now" in capsys.readouterr().err


def test_limits_hold_for_all_that_is_evaluated(tmp_path, table):
    arguments = on(table, "--max-params", "0.4e6", "--max-flops", 60e6)
    assert run(tmp_path / "run", "--strategy", "evolution", "--population", 6, "--contenders", 3, *arguments) == 0
    history = rows(tmp_path / "run")
    assert len(history) == EVALUATIONS
    assert max(row["params"] for row in history) <= 0.4e6
    assert max(row["flops"] for row in history) <= 60e6


def test_several_scores_have_one_value_whose_reference_is_kept(tmp_path):
    arguments = [
        "--strategy",
        "random",
        "--score",
        "params+flops",
        "--evaluations",
        12,
        "--image-size",
        8,
        "--batch",
        4,
    ]
    assert run(tmp_path / "run", *arguments, "--channels", 2, "--cells", 1) == 0
    reference = json.loads((tmp_path / "run" / "reference.json").read_text())
    assert len(reference["0"]) == 100
    assert set(reference["0"][0]) == {"params", "flops"}
    assert all(0 <= row["value"] <= 1.5 for row in rows(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluations", "0"], "evaluations: expected a positive integer, got 0"),
        (["--max-params", "0"], "max_params: expected a positive number, got 0.0"),
        (["--max-flops", "nan"], "max_flops: expected a positive number, got nan"),
        (["--score", "zicoo"], "did you mean 'zico'"),
        (["--score", "zico(probes=2)"], "zico has no options"),
        (["--column", "accuracy"], "column: expected with --table"),
        (["--table", "TABLE"], "column: expected the column of the table"),
        (
            ["--table", "TABLE", "--column", "acuracy"],
            "column: expected one of 'accuracy', 'other', got 'acuracy'; did",
        ),
        (
            ["--table", "TABLE", "--column", "accuracy", "--score", "zico"],
            "score: an option of a search by scores, got",
        ),
        (["--table=TABLE", "--column", "accuracy", "--batch=4"], "batch: an option of a search by scores, got --table"),
        (["--recipe", "nasbench201-12", "--channels", "2"], "channels: an option of a search by scores, got --recipe"),
        (["--recipe", "nasbench201-12(epoch=2)"], "recipe: nasbench201-12 has options epochs, batch"),
        (["--recipe", "nasbench201-12(epochs=two)"], "recipe: expected epochs of type int, got 'two'"),
        (["--recipe", "nasbench201-12(epochs=0)"], "epochs: expected a positive integer, got 0"),
        (
            ["--table", "TABLE", "--column", "accuracy", "--space", "darts"],
            "table: expected architectures of darts, none",
        ),
        (["--table", "TABLE", "--column", "accuracy", "--recipe", "nasbench201"], "expected one of --score, --table"),
        (["--recipe", "nasbench"], "did you mean 'nasbench201'"),
        (["--recipe", "nasbench201-12"], "data: expected a data set with labels"),
        (["--population", "2000"], "population: expected at most the 1000 evaluations"),
        (["--steps", "5"], "steps: an option of --strategy nasi or darts or gdas or snas, not of evolution"),
        (["--hidden", "5"], "hidden: an option of --strategy reinforce --preset lstm"),
        (["--preset", "plan"], "did you mean 'plain'"),
        (["--parallel", "0"], "parallel: expected a positive integer"),
    ],
)
def test_bad_options_are_one_line_and_leave_no_folder(tmp_path, table, capsys, arguments, message):
    given = [argument.replace("TABLE", str(table)) for argument in arguments]
    assert run(tmp_path / "run", "--strategy", "evolution", *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_grid_that_is_too_large_is_refused(tmp_path, table, capsys):
    assert run(tmp_path / "run", "--strategy", "grid", "--space", "darts", "--score", "params") == 2
    assert "grid: expected at most limit=100000 architectures" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_short_training_has_settings_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.integers(0, 256, (20, 8, 8, 3), np.uint8), y=np.arange(20) % 2)
    recipe = "nasbench201-12(epochs=1,batch=8,channels=2,cells=1,crop=0)"
    given = ["--recipe", recipe, "--data", tmp_path / "own.npz", "--evaluations", 1]
    assert run(tmp_path / "run", "--strategy", "random", *given) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"] == recipe
    assert 0 <= rows(tmp_path / "run")[0]["accuracy"] <= 1


def test_an_infinite_figure_is_no_value(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{SPACE.format(g)},{'inf' if i % 2 else i}" for i, g in enumerate(SPACE.enumerate())]
    path.write_text("\n".join(["arch,accuracy", *lines]) + "\n")
    assert run(tmp_path / "run", "--strategy", "random", *on(path)) == 0
    history = rows(tmp_path / "run")
    assert {row["reason"] for row in history} == {"", "not a finite number: accuracy"}
    best = json.loads((tmp_path / "run" / "genotype.json").read_text())["value"]
    assert best == max(row["value"] for row in history if row["value"] is not None)


def test_a_setting_that_nothing_meets_can_be_mended(tmp_path, table, capsys):
    assert run(tmp_path / "run", "--strategy", "random", *on(table, "--max-params", 10)) == 2
    assert "limits: no architecture that was looked at meets them, of" in capsys.readouterr().err
    assert run(tmp_path / "run", "--strategy", "random", *on(table, "--max-params", 1e6)) == 0


def test_nothing_that_the_table_has(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text(f"arch,accuracy\n{SPACE.format(SPACE.at(7))},1.0\n")
    assert run(tmp_path / "run", "--strategy", "random", *on(path)) == 2
    assert "value: no architecture has one; reasons: the table has no" in capsys.readouterr().err


def test_presets_are_variants():
    verb = cli.parse(["search", "--strategy", "reinforce", "--preset", "lstm", "--hidden", "8"])
    assert verb.method.strategy == search.LSTMController(hidden=8)
    verb = cli.parse(["search", "--strategy=evolution", "--preset=plain", "--remove", "oldest"])
    assert verb.method.strategy == search.Evolution(20, 10, "truncation", remove="oldest", crossover=0.5)


def test_random_search_beside_is_in_closed_form():
    from nasi_jax.cli.worth import _best_of

    values = np.random.default_rng(0).normal(size=500)
    drawn = np.array([np.maximum.accumulate(np.random.default_rng(i).choice(values, 40)) for i in range(3000)])
    found, expected = _best_of(values, 40), drawn.mean(axis=0)
    error = drawn.std(axis=0) / math.sqrt(3000)
    assert (np.abs(found - expected) < 5 * error + 0.01).all()


@pytest.mark.slow
def test_two_nodes_of_a_ray_cluster_find_the_same(tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    options = ["--strategy", "evolution", "--population", 4, "--contenders", 2, "--evaluations", 12, "--parallel", 4]
    options += ["--score", "zico+params", "--channels", 2, "--cells", 1, "--image-size", 8, "--batch", 4]
    try:
        cluster.add_node(num_cpus=1)
        assert run(tmp_path / "alone", *options) == 0
        assert run(tmp_path / "cluster", *options, "--ray", cluster.address) == 0
        assert rows(tmp_path / "cluster") == rows(tmp_path / "alone")
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_table_needs_no_cluster(tmp_path, table, capsys):
    assert run(tmp_path / "run", "--strategy", "random", *on(table), "--ray", "auto") == 2
    assert "ray: expected with --score or --recipe, got 'auto' with --table" in capsys.readouterr().err
