"""Prints the addresses outside of the repository that its texts name: ``python docs/links.py``.

A test checks how they are written. Whether there is anything at an address is seen by opening it.
"""

import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "experiments", "nasi_jax")
ENDINGS = (".md", ".toml", ".cff", ".yml", ".py", ".ipynb")
OURS = pathlib.Path(__file__).name

_ADDRESS = re.compile(r"(?:https?://|www\.|doi\.org/)[^\s\"'`<>\])\\]+|arXiv:[\w./]*\w", re.MULTILINE)


def addresses() -> Iterator[tuple[str, str]]:
    """Yields the name of a file and an address in it, for every address of every text."""
    nested = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in sorted([*ROOT.iterdir(), *nested]):
        if path.is_file() and path.suffix in ENDINGS and path.name != OURS:
            for found in _ADDRESS.findall(path.read_text(encoding="utf-8")):
                yield path.relative_to(ROOT).as_posix(), found


if __name__ == "__main__":
    for name, address in addresses():
        print(f"{address}  {name}")
