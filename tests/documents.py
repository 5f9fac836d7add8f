"""What documents are made of: code that runs and prints what they show, commands, links."""

import contextlib
import functools
import io
import pathlib
import re
import shlex
import sys

from nasi_jax import extensions, scores, search, spaces

ROOT = pathlib.Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def registries():
    """What is registered inside, by code or by a loaded file, is gone after it."""
    known = spaces.SPACES, scores.SCORES, scores.FORMULAS, search.STRATEGIES, search.VARIANTS, search.METHODS
    kept, files = [(registry, dict(registry)) for registry in known], extensions.loaded()
    try:
        yield
    finally:
        for registry, before in kept:
            registry.clear()
            registry.update(before)
        for name in set(extensions.loaded()) - set(files):
            del sys.modules[name], extensions._texts[name]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """Returns the `nasi` commands of a document as lists of words, without the program's name."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nasi ")]


def links(text):
    """Returns the targets of the links and pictures of a document that lead into the repository."""
    return re.findall(r"\]\(((?!https?:)[^)]+)\)", _prose(text))


def broken(path):
    """Returns the links of a document to files that are not there, or to places that a page does not have."""
    found = []
    for target in links(path.read_text()):
        name, _, place = target.partition("#")
        there = path.parent / name if name else path
        if not there.exists() or (place and place not in _places(there.read_text())):
            found.append(target)
    return found


def _prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _places(text):
    """Returns the names that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in headings}


def run(text):
    """Runs the Python of a document, in order and in one namespace, which it returns.

    A block of text that follows one of Python is what that prints.
    """
    namespace = {}
    found = re.findall(r"^```python\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", text, re.DOTALL | re.MULTILINE)
    for block, shown in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, namespace)
        assert not shown or printed.getvalue() == shown, f"{block}\nprints\n{printed.getvalue()}\nand not\n{shown}"
    return namespace


def shrink_searches(monkeypatch):
    """Makes searches by default tiny, so that documents can show them as users write them."""
    small = functools.partial(search.NASI, batch=4, size=spaces.NASBench201Size(2, 1))
    monkeypatch.setattr(search.loop, "NASI", functools.partial(small, steps=2, rounds=1))
    monkeypatch.setattr(search, "NASI", small)
