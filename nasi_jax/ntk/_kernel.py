"""Empirical neural tangent kernels, exactly."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from nasi_jax.ntk._contraction import Task, contraction
from nasi_jax.ntk._coupling import is_coupled
from nasi_jax.ntk._memory import free_memory
from nasi_jax.ntk._network import (
    ApplyFn,
    automatic,
    batch_length,
    check_like,
    check_mesh,
    check_positive,
    hashable,
    of_one,
    output_shapes,
)
from nasi_jax.ntk.neural_tangents import load
from nasi_jax.programs import is_traced

KernelForm = Literal["traced", "full", "diagonal", "summed"]
"""What becomes of the outputs: the kernel is traced over them, (n1, n2); full, (n1, n2, outputs, outputs); the diagonal
of the traced kernel, (n,); or that of the sum of the outputs, (n1, n2), as TE-NAS uses (Chen et al., 2021)."""

Implementation = Literal["jacobian-contraction", "ntk-vector-products", "structured-derivatives"]
"""Algorithm of neural-tangents, to compare with. The first holds the whole Jacobian."""


def kernel(
    apply_fn: ApplyFn,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    form: KernelForm = "traced",
    batch_statistics: bool | None = None,
    memory: float | None = None,
    mesh: Mesh | None = None,
    implementation: Implementation | None = None,
) -> Any:
    r"""Computes the empirical NTK of a network; may be jitted, vmapped over parameters, and differentiated.

    .. math:: \Theta_{ij}^{kl} = \langle \nabla_\theta f_k(x_i), \nabla_\theta f_l(x_j) \rangle

    Gradients are taken in blocks of samples and outputs that fit into memory. Where a parameter is read by one matrix
    product or convolution alone, its gradients are products of two factors, and are not formed if inner products of the
    factors take fewer operations.

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, ...), see `ApplyFn`. Compiled once for each
            function object.
        params: pytree of parameters: arrays, NumPy arrays and numbers. Half precision is widened for all sums, complex
            ones count as two real ones, and leaves that are not floating as constants.
        x1: inputs, a pytree of arrays (n1, ...).
        x2: inputs, a pytree of arrays (n2, ...) like those of `x1`, or None for `x1`.
        form: see `KernelForm`. The traced kernel is the sum over outputs, not their mean.
        batch_statistics: whether an output may depend on the other samples of its batch, as with batch normalisation
            on batch statistics. None finds out, by the gradient of some samples together and apart. True is right for
            every network and takes as many times longer as there are samples. False is checked in the same way. Of
            traced arrays, as under `jit`, nothing can be found out: None is True there, and False is not checked.
        memory: bytes that each device may take beside parameters and inputs; by default half of what is free.
        mesh: devices among which the samples of `x1` are divided, along all axes.
        implementation: None, or an algorithm of neural-tangents, see `Implementation` and Novak et al. (2022), which
            `memory` and `mesh` do not bind.

    Returns:
        The kernel, of the shape that `form` says, in float32 or better. Of a network with a pytree of outputs, a pytree
        with the kernel of each; make one array of them for the kernel of all.

    Raises:
        ValueError: an argument is not one of those allowed, `params` has no leaves, the batch is empty or not what the
            network takes, `x2` is not like `x1`, a diagonal is asked for with `x2`, the outputs are not (batch, ...),
            they depend on the batch and were said not to, or memory does not suffice.
        TypeError: a leaf of `params` is no array or none is floating, an output is no floating array, or `mesh` is no
            mesh.
        ImportError: neural-tangents cannot be loaded, and the implementation needs it.

    References:
        NASI, equation 1; Novak, Sohl-Dickstein and Schoenholz, "Fast finite width neural tangent kernel", ICML 2022.
    """
    if form not in get_args(KernelForm):
        raise ValueError(f"form: expected one of {get_args(KernelForm)}, got {form!r}")
    if implementation not in {None, *get_args(Implementation)}:
        raise ValueError(f"implementation: expected None or one of {get_args(Implementation)}, got {implementation!r}")
    if form == "diagonal" and x2 is not None:
        raise ValueError("x2: expected None with form='diagonal', got inputs")
    if memory is not None:
        check_positive("memory", memory, "a positive number of bytes")
    check_mesh(mesh)
    if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types and is_traced((params, x1, x2)):
        options: dict[str, Any] = {"form": form, "batch_statistics": batch_statistics, "memory": memory, "mesh": mesh}
        options["implementation"] = implementation
        whole = jax.sharding.auto_axes(lambda given: kernel(apply_fn, *given, **options), out_sharding=PartitionSpec())
        return whole((params, x1, x2))
    shapes, apply_fn = output_shapes(apply_fn, params, x1), hashable(apply_fn)
    if x2 is not None:
        batch_length("x2", x2)
        check_like("x2", of_one(x2), "one sample of x1", of_one(x1))
    params, x1, x2 = automatic(params, x1, x2)
    coupled = is_coupled(apply_fn, params, x1, batch_statistics)
    memory = free_memory() / 2 if memory is None else memory
    leaves, structure = jax.tree.flatten(shapes)
    kernels = []
    for i in range(len(leaves)):
        task = Task(apply_fn, i, form, coupled, mesh)
        if implementation is None:
            found = contraction(task, params, x1, x2, memory)
            kernels.append(jnp.sum(found, axis=1) if form == "diagonal" else found)
        else:
            kernels.append(_by_neural_tangents(task, implementation, params, x1, x2))
    return jax.tree.unflatten(structure, kernels)


def _by_neural_tangents(task: Task, implementation: Implementation, params: Any, x1: Any, x2: Any) -> jax.Array:
    network, reals, x1, x2 = task.network(params, x1, x2)
    ntk_fn = load().empirical_ntk_fn(
        network,
        trace_axes=() if task.form == "full" else (-1,),
        diagonal_axes=(0,) if task.form == "diagonal" else (),
        vmap_axes=None if task.coupled else 0,
        implementation=1 + get_args(Implementation).index(implementation),
    )
    with warnings.catch_warnings():
        # its own calls of jnp.size on shapes, which current JAX still allows
        warnings.simplefilter("ignore", DeprecationWarning)
        # where it takes the general way, as for lookups in a table
        warnings.filterwarnings("ignore", "No Jacobian rule found")
        result = jnp.asarray(ntk_fn(x1, x2, reals))
    outputs = jax.eval_shape(network, reals, x1).shape[1]
    return result if task.form == "full" else outputs * result
