import documents
import pytest

from nasi_jax import cli

README = (documents.ROOT / "README.md").read_text()


def test_the_python_examples_run(monkeypatch):
    documents.shrink_searches(monkeypatch)
    assert len(documents.blocks(README, "python")) == 7
    namespace = documents.run(README)
    assert (
        namespace["space"].parse(namespace["space"].format(namespace["found"].genotype)) == namespace["found"].genotype
    )
    assert namespace["kernel"].shape == (16, 16)
    assert abs(namespace["quick"].value / namespace["exact"].value - 1) < 0.25
    assert namespace["states"].alphas["cell"].shape == (3, 6, 5)
    assert (namespace["states"].step == 100).all()


def test_every_option_in_the_readme_exists():
    found = documents.commands(README)
    assert len(found) == 18
    for command in found:
        cli.parse(command)


def test_the_check_runs_the_test_command_of_the_readme():
    assert "<!-- test command -->" in README
    assert "<!-- test command -->" in (documents.ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("target", documents.links(README))
def test_links_lead_somewhere(target):
    assert (documents.ROOT / target).exists()
