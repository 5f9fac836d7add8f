"""Files of one's own, which register spaces, scores, strategies or formulas.

A file does at its top level what a script would: ``scores.SCORES["mine"] = ...``. It needs no package around it, it may
be changed and run again at once, and a run knows it by what it holds. An entry point of a package has none of the
three, and a package takes part by a file that imports it.
"""

from __future__ import annotations

import pathlib
import sys
import traceback
import types

_texts: dict[str, tuple[str, str]] = {}


def load(path: str | pathlib.Path) -> types.ModuleType:
    """Runs a Python file, so that what it registers is known by name.

    Args:
        path: the file. Its name without the ending is the name of the module, as when it is imported.

    Returns:
        The module; that of the first time where the same file was loaded before.

    Raises:
        ValueError: the file cannot be read, it ends in an error, or its name is no name of a module, or that of another
            module or of a file that was loaded before.
    """
    path = pathlib.Path(path)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(f"load: expected a file such as my_scores.py, got {str(path)!r}")
    try:
        text = path.read_text()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"load: cannot read {str(path)!r}: {error}") from error
    return _executed(path.stem, str(path.resolve()), text)


def loaded() -> dict[str, tuple[str, str]]:
    """Returns the path and the text of every file that was loaded, by the name of its module."""
    return dict(_texts)


def restore(files: dict[str, tuple[str, str]]) -> None:
    """Loads what `loaded` returned in another process, which needs no such files."""
    for name, (path, text) in files.items():
        _executed(name, path, text)


def _executed(name: str, path: str, text: str) -> types.ModuleType:
    if name in _texts and _texts[name][1] == text:
        return sys.modules[name]
    if name in sys.modules:
        other = getattr(sys.modules[name], "__file__", None) or "Python's own"
        raise ValueError(f"load: expected a file with a name of its own, {name!r} is a module already ({other})")
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # dataclasses and types of options look it up there
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 1
        raise ValueError(f"load: {path}, line {line}: {type(error).__name__}: {error}") from error
    _texts[name] = path, text
    return module


__all__ = ["load", "loaded", "restore"]
