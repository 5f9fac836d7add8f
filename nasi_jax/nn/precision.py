"""Half precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def in_half_precision(tree: Any) -> Any:
    """Casts the floating leaves of a tree to bfloat16; integers, such as token ids, stay."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
