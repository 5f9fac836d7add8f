"""What the README and the pages of the site promise, for every page that there is; see also tests/test_readme.py."""

import contextlib
import functools
import importlib.util
import re

import documents
import pytest

from nasi_jax import cli
from nasi_jax.cli.options import files_in

DOCS = documents.ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
OTHERS = ("README.md", "CONTRIBUTING.md", "experiments/README.md", "benchmarks/README.md")
READ = PAGES | {name: documents.ROOT / name for name in OTHERS}
MORE = (
    *(documents.ROOT / name for name in ("CHANGELOG.md", "SECURITY.md", "benchmarks/notes.md")),
    *sorted((documents.ROOT / "experiments" / "notes").glob("*.md")),
)
LONGEST_SENTENCE = 30
ADDRESS = re.compile(
    r"https://arxiv\.org/(?:abs|pdf)/\d{4}\.\d{4,5}|arXiv:\d{4}\.\d{4,5}|https://doi\.org/10\.\d{4,}/\S+"
    r"|https://(?!arxiv|doi)(?:[\w-]+\.)+[a-z]{2,}(?:/[\w./%#?=&+~-]*[\w/])?"
)
MEASURED = re.compile(r"\d*\.\d\d|±|\d ?%")
USUAL = re.compile(r"95%|\d+\.\d+\.\d+|Python 3\.\d+(?: to 3\.\d+)?|PyTorch (?:is )?\d+\.\d+")  # intervals and versions


@pytest.fixture(params=PAGES, scope="module")
def page(request):
    return PAGES[request.param].read_text()


@pytest.fixture
def registries():
    with documents.registries():
        yield


@pytest.mark.parametrize("name", READ)
def test_what_a_page_takes_from_the_repository_is_as_it_is_now(name, script):
    """After ``python docs/pages.py`` it is."""
    text = READ[name].read_text()
    assert script("pages").filled(text) == text


def test_tables_are_turned_round_and_joined(script, tmp_path):
    path = tmp_path / "results.md"
    path.write_text(
        "first:\n\n| s | v |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n\nsecond:\n\n| s | v |\n| --- | --- |\n| b | 4 |\n"
    )
    pivot = script("pages").pivot
    joined = "| s | first | second |\n| --- | --- | --- |\n| a | 1 |  |\n| b | 2 | 4 |"
    assert pivot(str(path), "s", "heading", "v") == joined
    turned = "|  | b | a |\n| --- | --- | --- |\n| first | 2 | 1 |"
    assert pivot(str(path), "heading", "s", "v", rows=["first"], columns=["b", "a"]) == turned
    with pytest.raises(ValueError, match="no s \\['c'\\]"):
        pivot(str(path), "s", "heading", "v", rows=["c"])


@pytest.mark.parametrize("name", READ)
def test_no_paragraph_is_cut_by_what_is_written_into_it(name):
    """A line that begins with a comment ends the paragraph before it, on GitHub and on the site."""
    assert re.findall(r"^.*\S.*\n *<!-- (?:value|prose)\(", READ[name].read_text(), re.MULTILINE) == []


@pytest.mark.parametrize("name", READ)
def test_no_measured_figure_is_typed(name):
    """Figures of results stand in files of results or in notes; settings are written as code."""
    text = re.sub(
        r"<!-- \w+\(.*?\) -->.*?<!-- end -->|^```.*?^```$", "", READ[name].read_text(), flags=re.DOTALL | re.M
    )
    text = USUAL.sub("", re.sub(r"`[^`\n]*`|\([^)\s]*\)|https?:\S+", "", text))
    assert MEASURED.findall(text) == []


@pytest.fixture(scope="module")
def script():
    """Loads a script of the site."""

    @functools.cache
    def load(name):
        spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.usefixtures("registries")
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path):
    documents.shrink_searches(monkeypatch)
    monkeypatch.chdir(tmp_path)
    documents.run(page)


@pytest.mark.usefixtures("registries")
def test_the_commands_of_a_page_parse(page, monkeypatch, tmp_path):
    """Where files are loaded, with the example of one in their place."""
    monkeypatch.chdir(tmp_path)
    for command in documents.commands(page):
        for file in files_in(command):
            (tmp_path / file).write_text((documents.ROOT / "examples" / "mine.py").read_text())
        with pytest.raises(SystemExit, match="0") if "--help" in command else contextlib.nullcontext():
            cli.parse(command)


@pytest.mark.parametrize("name", [*READ, *(path.relative_to(documents.ROOT).as_posix() for path in MORE)])
def test_links_lead_somewhere(name):
    assert documents.broken(READ.get(name, documents.ROOT / name)) == []


def test_addresses_outside_are_well_written(script):
    """``python docs/links.py`` lists them."""
    found = script("links").addresses()
    assert [(name, address) for name, address in found if not ADDRESS.fullmatch(address)] == []


@pytest.mark.parametrize("name", READ)
def test_no_sentence_is_long(name):
    assert [one for one in sentences(READ[name].read_text()) if len(one.split()) > LONGEST_SENTENCE] == []


def sentences(text):
    """Returns the sentences of a page, those of paragraphs, lists and headings; tables and code have none."""
    prose = re.sub(r"^```.*?^```$|<!--.*?-->|^:::.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]*`", "x", re.sub(r"\]\([^)]*\)", "]", prose))
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*#>]|\d+\.) ", prose):
        if not paragraph.lstrip().startswith("|"):
            yield from re.split(r"[.!?][\"*)]*\s", " ".join(paragraph.split()))
