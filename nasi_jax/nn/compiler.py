"""What XLA is asked for when a program of a network is compiled."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax

R = TypeVar("R")

_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def jit_network(function: Callable[..., R], **options: Any) -> Callable[..., R]:
    """Compiles as `jax.jit`, on a CPU with convolutions by Eigen.

    From 32 channels on XLA hands convolutions to YNNPACK, which takes up to twice as long for them on a CPU with AVX2.

    Args:
        function: what is compiled as a program of its own; it cannot be called in another `jax.jit`.
        **options: other arguments of `jax.jit`.

    Returns:
        The compiled function.
    """

    @functools.cache
    def compiled() -> Callable[..., R]:
        return jax.jit(function, compiler_options=compiler_options(), **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        # the backend is unknown before the first call
        return compiled()(*args, **kwargs)

    return call


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Returns the options of `jit_network`, or None where there are none.

    There are none on other devices than CPUs, for a version of XLA that does not know them, and where the user's
    XLA_FLAGS say which library is to be used.
    """
    if jax.default_backend() != "cpu" or _LIBRARY in os.environ.get("XLA_FLAGS", ""):
        return None
    options: dict[str, Any] = {_LIBRARY: _WITHOUT_CONVOLUTIONS}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return None
    return options
