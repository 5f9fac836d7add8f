"""Empirical neural tangent kernels, exactly, by neural-tangents."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from nasi_jax.ntk.gradients import ApplyFn
from nasi_jax.ntk.neural_tangents import load

KernelForm = Literal["traced", "full", "diagonal", "summed"]
"""What becomes of the outputs: the kernel is traced over them, (n1, n2); full, (n1, n2, outputs, outputs); the diagonal
of the traced kernel, (n,); or that of the sum of the outputs, (n1, n2), as TE-NAS uses (Chen et al., 2021)."""

Implementation = Literal["jacobian-contraction", "ntk-vector-products", "structured-derivatives"]
"""Algorithm of neural-tangents. Which one is fastest depends on the network; the first holds the whole Jacobian."""


def kernel(
    apply_fn: ApplyFn,
    params: Any,
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    form: KernelForm = "traced",
    batch_statistics: bool = True,
    implementation: Implementation = "jacobian-contraction",
) -> jax.Array:
    r"""Computes the empirical NTK of a network; may be jitted.

    .. math:: \Theta_{ij}^{kl} = \langle \nabla_\theta f_k(x_i), \nabla_\theta f_l(x_j) \rangle

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, outputs).
        params: pytree of parameters.
        x1: inputs, (n1, ...).
        x2: inputs, (n2, ...), or None for `x1`.
        form: see `KernelForm`. The traced kernel is the sum over outputs, not their mean.
        batch_statistics: whether an output may depend on the other samples of its batch, as with batch normalisation
            on batch statistics. True is right for every network; False is faster and right only where samples are
            independent.
        implementation: see `Implementation` and Novak et al. (2022).

    Returns:
        The kernel, of the shape that `form` says.

    Raises:
        ValueError: an argument is not one of those allowed, `params` has no leaves, the batch is empty or not what the
            network takes, a diagonal is asked for with `x2`, or the outputs are not (batch, outputs).
        TypeError: the outputs are not one floating array.
        ImportError: neural-tangents cannot be loaded.

    References:
        NASI, equation 1; Novak, Sohl-Dickstein and Schoenholz, "Fast finite width neural tangent kernel", ICML 2022.
    """
    if form not in get_args(KernelForm):
        raise ValueError(f"form: expected one of {get_args(KernelForm)}, got {form!r}")
    if implementation not in get_args(Implementation):
        raise ValueError(f"implementation: expected one of {get_args(Implementation)}, got {implementation!r}")
    if form == "diagonal" and x2 is not None:
        raise ValueError("x2: expected None with form='diagonal', got an array")
    outputs = output_shape(apply_fn, params, x1).shape[1]
    if x2 is not None:
        output_shape(apply_fn, params, x2)
    if form == "summed":
        outputs, network = 1, apply_fn
        apply_fn = lambda p, x: jnp.sum(network(p, x), axis=1, keepdims=True)  # noqa: E731
    ntk_fn = load().empirical_ntk_fn(
        apply_fn,
        trace_axes=() if form == "full" else (-1,),
        diagonal_axes=(0,) if form == "diagonal" else (),
        vmap_axes=None if batch_statistics else 0,
        implementation=1 + get_args(Implementation).index(implementation),
    )
    with warnings.catch_warnings():
        # its own calls of jnp.size on shapes, which current JAX still allows
        warnings.simplefilter("ignore", DeprecationWarning)
        result = jnp.asarray(ntk_fn(x1, x2, params))
    return result if form == "full" else outputs * result


def output_shape(apply_fn: ApplyFn, params: Any, x: jax.Array) -> jax.ShapeDtypeStruct:
    """Checks a network and its inputs, without computing anything.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, (batch, ...).

    Returns:
        Shape (batch, outputs) and type of its outputs.

    Raises:
        ValueError: `params` has no leaves, the batch is empty, the network cannot be applied to it, or the outputs are
            not (batch, outputs).
        TypeError: the outputs are not one floating array.
    """
    if not jax.tree.leaves(params):
        raise ValueError("params: expected at least one array, got a pytree without leaves")
    if jnp.ndim(x) < 1 or len(x) == 0:
        raise ValueError(f"x: expected a batch (batch, ...) that is not empty, got shape {jnp.shape(x)}")
    try:
        shape = jax.eval_shape(apply_fn, params, x)
    except Exception as error:
        raise ValueError(f"x: apply_fn fails on inputs of shape {jnp.shape(x)}: {error}") from error
    if not isinstance(shape, jax.ShapeDtypeStruct):
        raise TypeError(f"apply_fn: expected one array (batch, outputs), got {type(shape).__name__}")
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        raise TypeError(f"apply_fn: expected floating outputs, got {shape.dtype}")
    if len(shape.shape) != 2 or shape.shape[0] != len(x):
        raise ValueError(f"apply_fn: expected outputs of shape ({len(x)}, outputs), got {shape.shape}")
    return shape
