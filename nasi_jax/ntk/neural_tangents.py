"""Loads neural-tangents on a JAX that is newer than it.

neural-tangents 0.6.5 takes names from JAX that have moved or gone since. They are lent to it while it is imported and
taken back right after, so that nothing stays patched on the public JAX namespace. Its `experimental` package, which
imports TensorFlow, is left out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax.core
import jax.extend.core
import jax.interpreters.ad

KNOWN_VERSIONS = ("0.6.5",)
_MISSING = object()


@functools.cache
def load() -> ModuleType:
    """Imports neural-tangents; further calls return the same module.

    Returns:
        The module `neural_tangents`, whose `empirical_ntk_fn` works with implementations 1 and 2.

    Raises:
        ImportError: it is not installed, its version is unknown, or other code imported it before.
    """
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            "neural-tangents: expected an installation, there is none; pip install neural-tangents"
        ) from error
    if version not in KNOWN_VERSIONS:
        raise ImportError(f"neural-tangents: expected version {' or '.join(KNOWN_VERSIONS)}, got {version}")
    if "neural_tangents" in sys.modules:
        raise ImportError(
            "neural-tangents: expected that nasi_jax imports it first, but other code has imported it; "
            "call nasi_jax.ntk.load_neural_tangents() before"
        )
    with _lent():
        try:
            return importlib.import_module("neural_tangents")
        except BaseException:
            for name in [name for name in sys.modules if name.split(".")[0] == "neural_tangents"]:
                del sys.modules[name]
            raise


@contextlib.contextmanager
def _lent() -> Iterator[None]:
    """Lends the names that have gone, for the time of an import."""
    util = ModuleType("jax.util")
    util.safe_map = lambda f, *xs: list(map(f, *_same_length(xs)))  # type: ignore[attr-defined]
    util.safe_zip = lambda *xs: list(zip(*_same_length(xs), strict=True))  # type: ignore[attr-defined]
    names = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    attributes: list[tuple[Any, str, Any]] = [(jax.core, name, getattr(jax.extend.core, name)) for name in names]
    attributes.append((jax.interpreters.ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like")))
    modules = {"jax.util": util, "neural_tangents.experimental": ModuleType("neural_tangents.experimental")}
    before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in attributes]
    modules_before = {name: sys.modules.get(name, _MISSING) for name in modules}
    try:
        for owner, name, value in attributes:
            setattr(owner, name, value)
        sys.modules.update(modules)
        yield
    finally:
        for owner, name, value in before:
            delattr(owner, name) if value is _MISSING else setattr(owner, name, value)
        for name, module in modules_before.items():
            if module is _MISSING:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module  # type: ignore[assignment]


def _same_length(xs: tuple[Any, ...]) -> list[list[Any]]:
    lists = [list(x) for x in xs]
    if len({len(x) for x in lists}) > 1:
        raise ValueError(f"expected sequences of one length, got {[len(x) for x in lists]}")
    return lists
