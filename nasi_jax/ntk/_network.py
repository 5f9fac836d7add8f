"""What the functions of this package ask of a network, its inputs and its labels."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from nasi_jax.data.source import example_arrays, map_examples
from nasi_jax.programs import is_traced

ApplyFn = Callable[[Any, Any], jax.Array]
"""A network: `apply_fn(params, x)` returns outputs (batch, outputs). Inputs `x` are any pytree of arrays whose leading
axis is the batch: an array of images or of token ids, a dictionary of node features and masks. Parts that all samples
have in common, without that axis, are in a `nasi_jax.data.Shared`."""


def batch_length(name: str, tree: Any) -> int:
    """Returns the length of the leading axis that the arrays of a batch share.

    Args:
        name: of the argument, for errors.
        tree: pytree of arrays (batch, ...).

    Returns:
        The number of samples.

    Raises:
        ValueError: there is no array, one has no leading axis, or the axes differ or are empty.
    """
    shapes = [(path, jnp.shape(leaf)) for path, leaf in example_arrays(tree)]
    if not shapes:
        raise ValueError(f"{name}: expected at least one array (batch, ...), got a pytree without leaves")
    expected = f"{name}: expected arrays (batch, ...) of one batch that is not empty"
    for path, shape in shapes:
        if not shape:
            raise ValueError(f"{expected}, got a scalar{path and f' at {path}'}; make lists of numbers an array")
    if len({shape[0] for _, shape in shapes}) > 1 or shapes[0][1][0] == 0:
        raise ValueError(f"{expected}, got shape{'s' * (len(shapes) > 1)} {_listed(shapes)}")
    return shapes[0][1][0]


def samples(tree: Any, start: Any, count: int) -> Any:
    """Returns `count` samples of a batch, from `start` on, which may be traced."""
    return map_examples(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, count), tree)


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is made of real or complex numbers, by which one can differentiate."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def check_floating(name: str, tree: Any, use: str) -> None:
    """Checks that a tree is made of arrays and has one of real or complex numbers.

    Args:
        name: of the argument, for errors.
        tree: pytree of arrays.
        use: what these are needed for, for the error.

    Raises:
        TypeError: a leaf is no array, or none is floating.
    """
    found = set()
    for path, leaf in jax.tree.leaves_with_path(tree):
        try:
            found.add(str(jnp.result_type(leaf)))
        except (TypeError, ValueError) as error:
            place = jax.tree_util.keystr(path)
            raise TypeError(f"{name}: expected arrays, got {type(leaf).__name__}{place and f' at {place}'}") from error
    if not any(map(is_inexact, jax.tree.leaves(tree))):
        raise TypeError(f"{name}: expected at least one floating array, {use}, got {', '.join(sorted(found))}")


def automatic(*trees: Any) -> tuple[Any, ...]:
    """Leaves it to XLA how what is computed from arrays is spread over devices.

    Arrays over a mesh with explicit axes, as `jax.make_mesh` makes them, ask for a placement of every product and
    lookup, which a network written for one device does not give. Nothing is moved. Traced arrays stay as they are.

    Args:
        *trees: pytrees of arrays.

    Returns:
        The same trees.

    Raises:
        ValueError: called inside of `jax.set_mesh` of a mesh with explicit axes.
    """
    context = jax.sharding.get_abstract_mesh()
    if AxisType.Explicit in context.axis_types and not any(map(is_traced, jax.tree.leaves(trees))):
        raise ValueError(
            f"mesh: expected no jax.set_mesh of explicit axes, which ask for a placement of every product, got axes"
            f" {', '.join(context.axis_names)}; call this outside of it, the arrays keep their own placement"
        )

    def relabelled(leaf: Any) -> Any:
        if is_traced(leaf) or not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
            return leaf
        mesh = leaf.sharding.mesh
        if AxisType.Explicit not in mesh.axis_types:
            return leaf
        plain = Mesh(np.asarray(mesh.devices), mesh.axis_names, tuple(AxisType.Auto for _ in mesh.axis_names))
        return jax.device_put(leaf, NamedSharding(plain, leaf.sharding.spec))

    return jax.tree.map(relabelled, trees)


def over_reals(apply_fn: ApplyFn, params: Any, *batch: Any) -> tuple[Any, ...]:
    """Rewrites a network as one of real parameters and outputs in single precision or better.

    The parameters are the floating leaves, in their order. Those in half precision are widened, so that squares and
    sums of gradients neither overflow nor round; complex ones become their real parts followed by their imaginary ones,
    along the last axis. Other leaves, such as counters, masks and random keys, are constants.

    Args:
        apply_fn: the network.
        params: pytree of arrays, NumPy arrays and numbers.
        *batch: inputs and labels, pytrees of arrays.

    Returns:
        The network over the list of real parameters, that list, and inputs and labels; all with automatic axes.

    Raises:
        ValueError: `params` has no leaves.
        TypeError: a leaf of `params` is no array, or none is floating.
    """
    params, *rest = automatic(params, *batch)
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        raise ValueError("params: expected at least one array, got a pytree without leaves")
    check_floating("params", params, "because the outputs are differentiated by the parameters")
    originals = {i: jnp.asarray(leaf) for i, leaf in enumerate(leaves) if is_inexact(leaf)}

    def network(reals: list[jax.Array], x: Any) -> jax.Array:
        filled = list(leaves)
        for (i, original), real in zip(originals.items(), reals, strict=True):
            filled[i] = _restored(real, original)
        return jax.tree.map(widened, apply_fn(jax.tree.unflatten(structure, filled), x))

    return network, [real_parts(leaf) for leaf in originals.values()], *rest


def widened(leaf: jax.Array) -> jax.Array:
    """Returns an array in single precision where it is in a lower one."""
    half = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32
    return leaf.astype(jnp.float32) if half else leaf


def real_parts(leaf: jax.Array) -> jax.Array:
    """Returns real numbers in single precision or better; of complex ones both parts, one after the other."""
    if not jnp.iscomplexobj(leaf):
        return widened(leaf)
    leaf = jnp.atleast_1d(leaf)
    return jnp.concatenate([leaf.real, leaf.imag], axis=-1)


def _restored(real: jax.Array, original: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(original):
        return real if real.dtype == original.dtype else real.astype(original.dtype)
    return jax.lax.complex(*jnp.split(real, 2, axis=-1)).reshape(original.shape)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Checks a number of things.

    Args:
        name: of the argument, for errors.
        value: the number.
        least: the smallest that is allowed.

    Returns:
        The number as an integer.

    Raises:
        ValueError: it is too small.
        TypeError: it is no integer.
    """
    expected = "a positive integer" if least == 1 else f"at least {least}"
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from error
    if number < least:
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return number


def check_not_traced(function: str, **arguments: Any) -> None:
    """Checks that a function which loops on the host is not called inside of a transformation of JAX.

    Args:
        function: its name, for the error.
        **arguments: what it was given, pytrees.

    Raises:
        TypeError: an array is traced.
    """
    for name, tree in arguments.items():
        if is_traced(tree):
            raise TypeError(
                f"{name}: expected arrays, got traced ones; ntk.{function} loops on the host and is not for jit, grad "
                "and vmap. Inside of these take ntk.kernel, whose form='diagonal' sums up to the trace, "
                "ntk.vector_product or ntk.participation_ratio"
            )


def output_shape(apply_fn: ApplyFn, params: Any, x: Any) -> jax.ShapeDtypeStruct:
    """Checks a network and its inputs, without computing anything.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).

    Returns:
        Shape (batch, outputs) and type of its outputs, which is at least float32.

    Raises:
        ValueError: `params` has no leaves, the batch is empty, the network cannot be applied to it, or the outputs are
            not (batch, outputs).
        TypeError: a leaf of `params` is no array or none is floating, or the outputs are not one floating array.
    """
    network, reals, x = over_reals(apply_fn, params, x)
    batch = batch_length("x", x)
    try:
        shape = jax.eval_shape(network, reals, x)
    except Exception as error:
        shapes = [(jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in jax.tree.leaves_with_path(x)]
        raise ValueError(f"x: apply_fn fails on inputs of shape {_listed(shapes)}: {error}") from error
    if not isinstance(shape, jax.ShapeDtypeStruct):
        raise TypeError(f"apply_fn: expected one array (batch, outputs), got {type(shape).__name__}")
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        raise TypeError(f"apply_fn: expected floating outputs, got {shape.dtype}")
    if len(shape.shape) != 2 or shape.shape[0] != batch:
        raise ValueError(f"apply_fn: expected outputs of shape ({batch}, outputs), got {shape.shape}")
    return shape


def _listed(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{shape}{path and f' at {path}'}" for path, shape in shapes)
