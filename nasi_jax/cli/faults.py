"""What is said where a file of the user's own raises."""

from __future__ import annotations

import functools
import inspect
import pathlib
import traceback
from types import CodeType
from typing import Any

import flax.errors

from nasi_jax import extensions, scores, search, spaces

_HOUSE = pathlib.Path(extensions.__file__).parent
_BAD_INPUT = (ValueError, TypeError, flax.errors.FlaxError)
"""What this library raises where its caller is at fault."""


def fault_of_a_file(error: Exception) -> str | None:
    """Says in one line which loaded file raised an error.

    Args:
        error: the error, as it was caught.

    Returns:
        The score, strategy or space, the place in its file, the error's type and message. None where no loaded file
        had a part in it, or where this library may be at fault, which a traceback then tells.
    """
    files = {path for path, _ in extensions.loaded().values()}
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in frames if code.co_filename in files]
    known = [
        name
        for name in (code.co_filename for code, _ in frames)
        if name in files or _HOUSE in pathlib.Path(name).parents
    ]
    if not own or (known[-1] not in files and not isinstance(error, _BAD_INPUT)):
        return None
    name = next((name for name in (_registered(code) for code, _ in own) if name), "")
    code, line = own[-1]
    place = f"{pathlib.Path(code.co_filename).name}:{line} in {code.co_qualname}"
    return f"{name}{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _registered(code: CodeType) -> str:
    """Returns what a loaded file registered with this code, with a colon after it; nothing where it is a helper's."""
    methods = [(name, one) for name, presets in search.METHODS.items() for one in presets.values()]
    known: list[tuple[str, str, Any]] = [
        *(("score", name, _function(score.compute)) for name, score in scores.SCORES.items()),
        *(("strategy", name, one) for name, one in [*search.STRATEGIES.items(), *methods]),
        *(("space", name, space) for name, space in spaces.SPACES.items()),
    ]
    return next((f"{kind} {name!r}: " for kind, name, one in known if _has(one, code)), "")


def _function(compute: Any) -> Any:
    """Returns the function of a score, which may have been given options or be jitted."""
    if isinstance(compute, functools.partial):
        return _function(compute.func)
    return inspect.unwrap(compute) if callable(compute) else compute


def _has(one: Any, code: CodeType) -> bool:
    """Says whether code is of a function, or of a class, its bases or an instance that a loaded file defines."""
    if hasattr(one, "__code__"):
        return one.__code__ is code
    kind = one if isinstance(one, type) else type(one)
    owners = [base.__qualname__ for base in kind.__mro__ if base.__module__ in extensions.loaded()]
    return any(code.co_qualname.startswith(f"{owner}.") for owner in owners)
