"""Empirical neural tangent kernels, exactly, by neural-tangents or, where that is missing, by our own contraction."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from nasi_jax.ntk._contraction import contraction
from nasi_jax.ntk._network import ApplyFn, output_shape, over_reals
from nasi_jax.ntk.neural_tangents import installed, load

KernelForm = Literal["traced", "full", "diagonal", "summed"]
"""What becomes of the outputs: the kernel is traced over them, (n1, n2); full, (n1, n2, outputs, outputs); the diagonal
of the traced kernel, (n,); or that of the sum of the outputs, (n1, n2), as TE-NAS uses (Chen et al., 2021)."""

Implementation = Literal["jacobian-contraction", "ntk-vector-products", "structured-derivatives"]
"""Algorithm of neural-tangents. Which one is fastest depends on the network; the first holds the whole Jacobian. Where
neural-tangents is not installed, the first is computed without it, output by output in less memory."""


def kernel(
    apply_fn: ApplyFn,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    form: KernelForm = "traced",
    batch_statistics: bool = True,
    implementation: Implementation = "jacobian-contraction",
) -> jax.Array:
    r"""Computes the empirical NTK of a network; may be jitted.

    .. math:: \Theta_{ij}^{kl} = \langle \nabla_\theta f_k(x_i), \nabla_\theta f_l(x_j) \rangle

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, outputs).
        params: pytree of parameters: arrays, NumPy arrays and numbers. Half precision is widened for all sums, complex
            ones count as two real ones, and leaves that are not floating as constants.
        x1: inputs, a pytree of arrays (n1, ...).
        x2: inputs, a pytree of arrays (n2, ...), or None for `x1`.
        form: see `KernelForm`. The traced kernel is the sum over outputs, not their mean.
        batch_statistics: whether an output may depend on the other samples of its batch, as with batch normalisation
            on batch statistics. True is right for every network; False is faster and right only where samples are
            independent.
        implementation: see `Implementation` and Novak et al. (2022).

    Returns:
        The kernel, of the shape that `form` says, in float32 or better.

    Raises:
        ValueError: an argument is not one of those allowed, `params` has no leaves, the batch is empty or not what the
            network takes, a diagonal is asked for with `x2`, or the outputs are not (batch, outputs).
        TypeError: a leaf of `params` is no array or none is floating, or the outputs are not one floating array.
        ImportError: neural-tangents cannot be loaded, and the implementation needs it.

    References:
        NASI, equation 1; Novak, Sohl-Dickstein and Schoenholz, "Fast finite width neural tangent kernel", ICML 2022.
    """
    if form not in get_args(KernelForm):
        raise ValueError(f"form: expected one of {get_args(KernelForm)}, got {form!r}")
    if implementation not in get_args(Implementation):
        raise ValueError(f"implementation: expected one of {get_args(Implementation)}, got {implementation!r}")
    if form == "diagonal" and x2 is not None:
        raise ValueError("x2: expected None with form='diagonal', got inputs")
    outputs = output_shape(apply_fn, params, x1).shape[1]
    if x2 is not None:
        output_shape(apply_fn, params, x2)
    network, reals, x1, x2 = over_reals(apply_fn, params, x1, x2)
    if form == "summed":
        outputs, separate = 1, network
        network = lambda p, x: jnp.sum(separate(p, x), axis=1, keepdims=True)  # noqa: E731
    if implementation == "jacobian-contraction" and not installed():
        shape = "traced" if form == "summed" else form
        return contraction(network, reals, x1, x2, shape, batch_statistics, outputs)
    ntk_fn = load().empirical_ntk_fn(
        network,
        trace_axes=() if form == "full" else (-1,),
        diagonal_axes=(0,) if form == "diagonal" else (),
        vmap_axes=None if batch_statistics else 0,
        implementation=1 + get_args(Implementation).index(implementation),
    )
    with warnings.catch_warnings():
        # its own calls of jnp.size on shapes, which current JAX still allows
        warnings.simplefilter("ignore", DeprecationWarning)
        # where it takes the general way, as for lookups in a table
        warnings.filterwarnings("ignore", "No Jacobian rule found")
        result = jnp.asarray(ntk_fn(x1, x2, reals))
    return result if form == "full" else outputs * result
