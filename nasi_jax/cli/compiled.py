"""Keeps compiled programs between commands."""

from __future__ import annotations

import os
import pathlib

import jax

_SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def keep_compiled_programs() -> None:
    """Makes JAX keep what it compiles in a folder of the user's, so that the next command need not compile it again.

    The folder is `nasi_jax/compiled` in `XDG_CACHE_HOME` or ~/.cache. Programs in it are run as they are, so it must be
    the user's own and writable by no one else; otherwise nothing is kept. JAX's own variables go before:
    JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
    """
    if any(name in os.environ for name in _SETTINGS):
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "nasi_jax" / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # the blocks of a network are many and small; a threshold would keep other ones of them on a busy machine
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
