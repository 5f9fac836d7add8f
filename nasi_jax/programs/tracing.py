"""Whether code runs inside of a transformation of JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.core


def is_traced(tree: Any) -> bool:
    """Whether a leaf of a pytree has no value yet, as under `jit`, `grad` and `vmap`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
