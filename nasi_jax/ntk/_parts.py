"""Parts of the parameters: the others are held fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from nasi_jax.ntk._network import Fixed, is_inexact


def select(params: Any, where: Callable[[str], bool]) -> Any:
    r"""Selects the parameters by which a network is differentiated, such as those of a layer.

    The kernel of a network is the sum of the kernels of the parts of its parameters, and so is the trace:

    .. math:: \Theta = \sum_l J_l J_l^\top

    Args:
        params: pytree of parameters.
        where: whether to take the parameter of a path, such as ``"params/Dense_0/kernel"``.

    Returns:
        Parameters for all functions of this package, with those that are not selected held fixed.

    Raises:
        ValueError: no floating parameter is selected.
        TypeError: `where` is no function.

    Examples:
        >>> import jax.numpy as jnp
        >>> from nasi_jax import ntk
        >>> params = {"first": jnp.ones((3, 2)), "second": jnp.ones((2, 1))}
        >>> apply_fn = lambda params, x: x @ params["first"] @ params["second"]
        >>> x = jnp.ones((4, 3))
        >>> parts = [ntk.select(params, lambda path: path == name) for name in params]
        >>> [float(ntk.trace(apply_fn, part, x).value) for part in parts]
        [24.0, 72.0]
        >>> float(ntk.trace(apply_fn, params, x).value)
        96.0
    """
    if not callable(where):
        raise TypeError(f"where: expected a function of the path of a parameter, got {where!r}")
    paths = []

    def fixed(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, Fixed) or not is_inexact(leaf):
            return leaf
        paths.append(jax.tree_util.keystr(path, simple=True, separator="/"))
        if where(paths[-1]):
            selected.append(paths[-1])
            return leaf
        return Fixed(leaf)

    selected: list[str] = []
    found = jax.tree.map_with_path(fixed, params, is_leaf=lambda leaf: isinstance(leaf, Fixed))
    if not selected:
        raise ValueError(f"where: expected to select a floating parameter of {', '.join(paths)}, got none")
    return found
