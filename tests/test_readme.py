import json

import documents
import pytest

from nasi_jax import cli, search, spaces

README = (documents.ROOT / "README.md").read_text()
LONGEST = 130  # lines
RESULTS = documents.ROOT / "experiments" / "results" / "nasbench201_search" / "results.json"


def test_it_is_short():
    assert len(README.splitlines()) <= LONGEST
    assert len(documents.blocks(README, "python")[0].splitlines()) == 8


def test_the_python_examples_run_and_print_what_is_shown(monkeypatch):
    """With a tiny search, which selects what the committed search of that seed selected."""
    first = json.loads(RESULTS.read_text())["gaussian"]["searches"][0]
    assert first["seed"] == 0
    genotype = spaces.get("nasbench201").parse(first["genotype"])
    documents.shrink_searches(monkeypatch)
    run = search.search
    monkeypatch.setattr(search, "search", lambda *given: run(*given)._replace(genotype=genotype))
    namespace = documents.run(README)
    assert namespace["kernel"].shape == (8, 8)
    assert namespace["trace"].value == pytest.approx(float(namespace["kernel"].trace()), rel=1e-4)


@pytest.mark.slow
def test_the_search_selects_what_is_shown():
    """The default search as it stands there, minutes of it."""
    documents.run(README)


def test_every_option_in_the_readme_exists():
    found = documents.commands(README)
    assert len(found) == 3
    for command in found:
        cli.parse(command)


def test_the_check_runs_the_test_command_of_the_readme():
    assert "<!-- test command -->" in README
    assert "<!-- test command -->" in (documents.ROOT / ".ci" / "run").read_text()


def test_the_search_command_is_a_search():
    (line,) = [block for block in documents.blocks(README, "bash") if block.startswith("python3") and "search" in block]
    install, nasi = line.split(" && ")[1:]
    assert install == ".venv/bin/pip install -e ."
    assert cli.parse(nasi.split()[1:]) == cli.parse(["search", "--out", "runs/first"])
