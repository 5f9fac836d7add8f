"""Files of one's own: what they register is known to every verb, here and on other machines."""

import csv
import json
import pickle
import subprocess
import sys

import cloudpickle
import documents
import pytest

from nasi_jax import cli, extensions, scores, search, spaces

MINE = documents.ROOT / "examples" / "mine.py"
SPACE = """
import dataclasses
import toys
from nasi_jax import spaces

@dataclasses.dataclass(frozen=True)
class Renamed(toys.TokenSpace):
    name = "renamed"

spaces.SPACES["renamed"] = Renamed()
"""
FAILING = """
import dataclasses
import functools
import jax
from nasi_jax import scores, search

def helper(value):
    return value / 0

def dividing(candidate, by=0):
    return helper(1)

def reading(candidate):
    return open("/there/is/none")

def blaming_the_library(candidate):
    return search.common(None)

def misusing(candidate):
    return candidate.x.reshape(7, 13).mean()

named = dict(dividing=functools.partial(dividing, by=0), reading=reading, misusing=misusing,
             nothing=lambda candidate: None, vector=lambda candidate: candidate.x, library=blaming_the_library)
for name, compute in named.items():
    scores.SCORES[name] = scores.Score(compute, formula="", paper="", higher_is_better=True, labels=False)

class Base(search.Strategy[search.StrategyState]):
    def init(self, key, space):
        return search.StrategyState(**search.common(space))

    def ask(self, key, state, count=1):
        return jax.vmap(state.space.sample)(jax.random.split(key, count)), state

@dataclasses.dataclass(frozen=True)
class Failing(Base):
    def observe(self, state, genotype, value):
        raise KeyError("lost")

search.STRATEGIES["failing"] = Failing
"""
SMALL = ["--channels", "2", "--cells", "1", "--batch", "4", "--image-size", "8"]


@pytest.fixture(autouse=True)
def loaded_anew(monkeypatch):
    with documents.registries():
        yield


def test_a_score_and_a_strategy_of_a_file_are_searched_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["search", "--load", str(MINE), "--strategy", "climb", "--explore", "0.5", "--score", "contrast", *SMALL]
    monkeypatch.setattr("nasi_jax.cli.worth._REFERENCES", 3)
    assert cli.main([*command, "--evaluations", "3", "--out", "run"]) == 0
    record = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert record["settings"]["search"] == {"class": "Climb", "explore": 0.5}
    assert set(record["figures"]) == {"contrast"}
    assert record["settings"]["load"]["mine"]["size"] == MINE.stat().st_size
    assert cli.main(["draw", "--load", str(MINE), "--genotype", "run/genotype.json", "--out", "cell.svg"]) == 0


def test_a_space_of_a_file_is_scored_drawn_and_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "renamed.py").write_text(SPACE)
    mine = ["--load", "renamed.py", str(MINE), "--space", "renamed"]
    assert cli.main(["score", *mine, "--sample", "2", "--score", "params"]) == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len({row["genotype"] for row in rows}) == 2
    found = ["--strategy", "climb", "--score", "params", "--evaluations", "3", "--out", "run"]
    monkeypatch.setattr("nasi_jax.cli.worth._REFERENCES", 3)
    assert cli.main(["search", *mine, *found]) == 0
    assert cli.main(["draw", "--load", "renamed.py", "--genotype", "run/genotype.json"]) == 0


def test_a_preset_of_a_file_is_one(tmp_path):
    verb = cli.parse(["search", f"--load={MINE}", "--strategy", "climb", "--preset", "greedy"])
    assert verb.method.strategy == search.VARIANTS["climb-greedy"]
    assert verb.method.strategy.explore == 0


def test_a_changed_file_is_another_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path, tmp_path / "there"):
        (folder / "mine.py").write_text(MINE.read_text())
    command = ["score", "--sample", "1", "--score", "contrast", *SMALL]
    assert cli.main([*command, "--load", "mine.py"]) == 0
    assert cli.main([*command, "--load", "there/mine.py", "--sample", "2"]) == 0
    assert len(list(csv.DictReader((tmp_path / "scores.csv").open()))) == 2
    (tmp_path / "mine.py").write_text(MINE.read_text() + "\n# changed\n")
    with documents.registries():
        assert cli.main([*command, "--load", "mine.py"]) == 2
    assert "load" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.py", "import jax\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("mine.py", "def f(:\n", "line 1: SyntaxError"),
        ("mine.txt", "", "expected a file such as"),
        ("my-file.py", "", "expected a file such as"),
        ("json.py", "", "'json' is a module already"),
        ("mine.py", None, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(tmp_path, capsys, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert cli.main(["score", "--load", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nasi: error: load: ")
    assert message in error
    assert "json" in sys.modules
    assert "mine" not in sys.modules


@pytest.fixture
def failing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dividing", "score 'dividing': failing.py:8 in helper: ZeroDivisionError: division by zero"),
        ("reading", "score 'reading': failing.py:14 in reading: FileNotFoundError: [Errno 2]"),
        ("misusing", "score 'misusing': failing.py:20 in misusing: TypeError: cannot reshape"),
    ],
)
def test_a_score_that_raises_is_one_line(name, message, capsys):
    assert cli.main(["score", "--load", "failing.py", "--score", name, "--sample", "1", *SMALL]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nasi: error: {message}")


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(("name", "got"), [("nothing", "None"), ("vector", "shape (4, 8, 8, 3)")])
def test_a_score_that_returns_no_scalar_is_named(name, got, capsys):
    assert cli.main(["score", "--load", "failing.py", "--score", name, "--sample", "1", *SMALL]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"nasi: error: score '{name}': expected its function to return a scalar, got {got}"


@pytest.mark.usefixtures("failing")
def test_a_strategy_that_raises_is_one_line_and_loses_nothing(tmp_path, capsys):
    command = ["search", "--load", "failing.py", "--strategy", "failing", "--score", "params", "--evaluations", "4"]
    assert cli.main([*command, "--parallel", "2", "--out", "run"]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "nasi: error: strategy 'failing': failing.py:37 in Failing.observe: KeyError: 'lost'"
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("failing")
def test_a_fault_of_the_library_itself_keeps_its_traceback(monkeypatch):
    """Also where a file of one's own called it."""
    command = ["score", "--load", "failing.py", "--sample", "1", *SMALL]
    with pytest.raises(AttributeError):
        cli.main([*command, "--score", "library"])

    def broken(verb):
        raise KeyError("ours")

    monkeypatch.setattr("nasi_jax.cli.score.ScoreVerb.run", broken)
    with pytest.raises(KeyError, match="ours"):
        cli.main(command)


def test_a_loaded_class_reaches_another_process():
    extensions.load(MINE)
    made = cloudpickle.dumps((search.STRATEGIES["climb"](0.25), scores.SCORES["contrast"].compute))
    program = (
        "import pickle, sys; from nasi_jax import extensions, scores, search\n"
        "files, made = pickle.load(sys.stdin.buffer); extensions.restore(files); climb, compute = pickle.loads(made)\n"
        "assert type(climb) is search.STRATEGIES['climb'] and climb.explore == 0.25\n"
        "assert compute is scores.SCORES['contrast'].compute"
    )
    given = pickle.dumps((extensions.loaded(), made))
    subprocess.run([sys.executable, "-c", program], input=given, check=True)


def test_what_a_class_of_ones_own_lacks_is_said_when_it_is_needed():
    class Line(spaces.SearchSpace):
        decisions = (3, 3)

    class Unfinished(search.Strategy):
        pass

    assert Line().cardinality == 9
    with pytest.raises(TypeError, match="Line: expected it to define 'network'"):
        Line().network(None, None, 10)
    with pytest.raises(TypeError, match="Line: expected it to define 'operations'"):
        _ = Line().operations
    with pytest.raises(TypeError, match="Unfinished: expected it to define 'ask'"):
        Unfinished().ask(None, None)
