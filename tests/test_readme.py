import functools
import pathlib
import re

import pytest

from nasi_jax import search, spaces

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
TINY = {"batch": 4, "size": spaces.NASBench201Size(2, 1)}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_run(monkeypatch):
    """In order, in one namespace, at a tiny size."""
    small = functools.partial(search.NASI, **TINY)
    monkeypatch.setattr(search.loop, "NASI", functools.partial(small, steps=2, rounds=1))
    monkeypatch.setattr(search, "NASI", small)
    found, namespace = blocks("python"), {}
    assert len(found) == 7
    for block in found:
        exec(block, namespace)
    assert (
        namespace["space"].parse(namespace["space"].format(namespace["found"].genotype)) == namespace["found"].genotype
    )
    assert namespace["kernel"].shape == (16, 16)
    assert abs(namespace["quick"].value / namespace["exact"].value - 1) < 0.25
    assert namespace["states"].alphas["cell"].shape == (3, 6, 5)
    assert (namespace["states"].step == 100).all()


def test_every_option_in_the_readme_exists():
    from nasi_jax import cli

    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("nasi ")]
    assert len(commands) == 17
    for command in commands:
        cli.parse(command.split("#")[0].split()[1:])


def test_the_check_runs_the_test_command_of_the_readme():
    assert "<!-- test command -->" in README
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
