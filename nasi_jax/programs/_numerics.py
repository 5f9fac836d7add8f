"""JAX's options that change numbers, and not only how fast they are there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

_DECISIVE = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)


def numerics() -> dict[str, Any]:
    """Returns the options as this thread has them, by their names without "jax_"."""
    return {name.removeprefix("jax_"): getattr(jax.config, name) for name in _DECISIVE}


@contextlib.contextmanager
def same_numerics(options: dict[str, Any]) -> Iterator[None]:
    """Has the options in this thread, as another one has them.

    Args:
        options: what `numerics` returned there.
    """
    with contextlib.ExitStack() as stack:
        for name, value in options.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


def set_numerics(options: dict[str, Any]) -> None:
    """Sets the options for a whole process, as another one has them.

    Args:
        options: what `numerics` returned there.
    """
    for name, value in options.items():
        jax.config.update(f"jax_{name}", value)
