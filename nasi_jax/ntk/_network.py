"""What the functions of this package ask of a network, its inputs and its labels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nasi_jax.data.source import example_arrays, map_examples
from nasi_jax.programs import is_traced

ApplyFn = Callable[[Any, Any], Any]
"""A network: `apply_fn(params, x)` returns outputs (batch, ...), a floating array or a pytree of such, as a dictionary
of named outputs. Where a function speaks of outputs (batch, outputs), all axes but the first are one, and the arrays of
a pytree lie one after the other in its order. Inputs `x` are any pytree of arrays whose leading axis is the batch: an
array of images or of token ids, a dictionary of node features and masks. Parts that all samples have in common, without
that axis, are in a `nasi_jax.data.Shared`."""


@struct.dataclass
class Fixed:
    """A parameter by which nothing is differentiated.

    Attributes:
        value: an array.
    """

    value: Any


def _is_fixed(leaf: Any) -> bool:
    return isinstance(leaf, Fixed)


def _check_no_statistics(params: Any) -> None:
    """Checks that the parameters are free of running statistics of Linen and NNX, by which no network is trained."""

    def is_statistic(node: Any) -> bool:
        return type(node).__name__ == "BatchStat"  # of NNX, which is not imported for this

    for path, node in jax.tree.leaves_with_path(params, is_leaf=lambda node: _is_fixed(node) or is_statistic(node)):
        collection = jax.tree_util.keystr(path[:1], simple=True)
        if not is_statistic(node) and collection != "batch_stats":
            continue
        if any(not _is_fixed(leaf) and is_inexact(leaf) for leaf in jax.tree.leaves(node, is_leaf=_is_fixed)):
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"params: expected parameters alone, got running statistics at {place}; let apply_fn have them, in "
                'Linen as module.apply({"params": params, "batch_stats": statistics}, x), in NNX after '
                "nnx.split(model, nnx.Param, ...)"
            )


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


def hashable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function by which `jit` can look up what it has compiled.

    Objects that are compared by values that may change, as of a dataclass, are compiled for each call.
    """
    try:
        hash(function)
    except TypeError:
        return lambda *arguments: function(*arguments)
    return function


def of_one(tree: Any) -> Any:
    """Returns a batch of the shape and type of one sample of a batch."""
    return jax.eval_shape(lambda: map_examples(lambda leaf: jnp.asarray(leaf)[:1], tree))


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
            got = f"{type(leaf).__name__}{place and f' at {place}'}"
            raise TypeError(f"{name}: expected arrays, got {got}; leave what is no array to apply_fn") from error
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


def shared_out(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Shares the last argument of a function, and its result, out among devices, along the leading axis.

    Args:
        function: of arrays.
        mesh: the devices, or None.

    Returns:
        The function.
    """
    if mesh is None:
        return function
    # without the types of its axes, by which jax.make_mesh would ask for inputs that are spread already
    mesh = Mesh(mesh.devices, mesh.axis_names)
    spread = PartitionSpec(mesh.axis_names)

    def shared(*arguments: Any) -> Any:
        specs = (*(PartitionSpec() for _ in arguments[1:]), spread)
        # parameters are the same everywhere, yet their gradients are not to be summed over devices
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=spread, check_vma=False)(*arguments)

    return shared


def over_reals(apply_fn: ApplyFn, params: Any, *batch: Any) -> tuple[Any, ...]:
    """Rewrites a network as one of real parameters and outputs in single precision or better.

    The parameters are the floating leaves, in their order. Those in half precision are widened, so that squares and
    sums of gradients neither overflow nor round; complex ones become their real parts followed by their imaginary ones,
    along the last axis. Other leaves, such as counters, masks and random keys, are constants, and so are those that
    `select` has fixed. Wherever the network is called, its inputs and outputs are checked.

    Args:
        apply_fn: the network.
        params: pytree of arrays, NumPy arrays and numbers.
        *batch: inputs and labels, pytrees of arrays.

    Returns:
        The network over the list of real parameters, that list, and inputs and labels; all with automatic axes.

    Raises:
        ValueError: `params` has no leaves or running statistics, or there are inputs without samples.
        TypeError: `apply_fn` is no function, a leaf of `params` is no array, or none is floating.
    """
    if not callable(apply_fn):
        raise TypeError(f"apply_fn: expected a function apply_fn(params, x), got {type(apply_fn).__name__}")
    params, *rest = automatic(params, *batch)
    for given in rest:
        sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(given)]
        if sizes and not any(sizes):
            shapes = jax.tree.map(jnp.shape, given)
            raise ValueError(f"x: expected arrays (batch, ...) of one batch that is not empty, got shape {shapes}")
    leaves, structure = jax.tree.flatten(params, is_leaf=_is_fixed)
    if not leaves:
        raise ValueError("params: expected at least one array, got a pytree without leaves")
    _check_no_statistics(params)
    free = jax.tree.map(lambda leaf: None if _is_fixed(leaf) else leaf, params, is_leaf=_is_fixed)
    check_floating("params", free, "because the outputs are differentiated by the parameters")
    originals = {i: jnp.asarray(leaf) for i, leaf in enumerate(leaves) if not _is_fixed(leaf) and is_inexact(leaf)}

    def network(reals: list[jax.Array], x: Any) -> Any:
        filled = [leaf.value if _is_fixed(leaf) else leaf for leaf in leaves]
        for (i, original), real in zip(originals.items(), reals, strict=True):
            filled[i] = _restored(real, original)
        batch = batch_length("x", x)
        try:
            outputs = apply_fn(jax.tree.unflatten(structure, filled), x)
        except Exception as error:
            given = [(jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in jax.tree.leaves_with_path(x)]
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"x: apply_fn fails with params on inputs of shape {_listed(given)}: {what}") from error
        _check_outputs(outputs, batch)
        return jax.tree.map(widened, outputs)

    return network, [real_parts(leaf) for leaf in originals.values()], *rest


def _check_outputs(outputs: Any, batch: int) -> None:
    found = jax.tree.leaves_with_path(outputs)
    if not found:
        raise TypeError("apply_fn: expected floating outputs (batch, ...), got a pytree without leaves")
    for path, leaf in found:
        place = jax.tree_util.keystr(path)
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        if not isinstance(kind, np.dtype) or not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(f"apply_fn: expected floating outputs, got {kind}{place and f' at {place}'}")
        if leaf.shape[:1] != (batch,) or not leaf.size:
            expected = f"apply_fn: expected outputs of shape ({batch}, ...) that are not empty"
            raise ValueError(f"{expected}, got {_listed([(place, leaf.shape)])}")


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


def check_like(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Checks that a pytree has the structure and the shapes of another.

    Args:
        name: of the argument, for errors.
        tree: pytree of arrays and numbers.
        other_name: what the other is.
        other: pytree of arrays, or of shapes.

    Raises:
        ValueError: structure or shapes differ.
    """
    expected, got = jax.tree.structure(other), jax.tree.structure(tree)
    if expected != got:
        raise ValueError(f"{name}: expected the structure of {other_name}, {expected}, got {got}")
    for (path, a), b in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            place = jax.tree_util.keystr(path)
            expected = f"{jnp.shape(b)}{place and f' at {place}'}"
            raise ValueError(f"{name}: expected the shape of {other_name}, {expected}, got {jnp.shape(a)}")


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


def check_positive(name: str, value: Any, expected: str = "a positive number") -> None:
    """Checks a number that has to be positive.

    Args:
        name: of the argument, for errors.
        value: the number, which may be infinite.
        expected: what it is, for the error.

    Raises:
        ValueError: it is not positive.
        TypeError: it is no number.
    """
    try:
        positive = bool(value > 0)
    except TypeError as error:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from error
    if not positive:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_mesh(mesh: Any) -> None:
    """Checks devices among which something is divided.

    Args:
        mesh: the devices, or None.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(mesh, Mesh | None):
        expected = 'jax.sharding.Mesh such as jax.make_mesh((jax.device_count(),), ("devices",))'
        raise TypeError(f"mesh: expected None or a {expected}, got {mesh!r}")


def check_key(key: Any) -> None:
    """Checks a random key, typed or of the older kind.

    Args:
        key: the key.

    Raises:
        TypeError: it is none, as a seed.
    """
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0
    if not typed and not (dtype == jnp.uint32 and key.ndim == 1):
        raise TypeError(f"key: expected a random key such as jax.random.key(0), got {key!r}")


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


def as_matrix(network: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Returns the network whose outputs are one array (batch, outputs), see `ApplyFn`."""

    def flat(*arguments: Any) -> jax.Array:
        return matrix(network(*arguments))

    return flat


def matrix(outputs: Any) -> jax.Array:
    """Returns a pytree of arrays (batch, ...) as one array (batch, outputs)."""
    columns = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(outputs)]
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=1)


def as_outputs(columns: jax.Array, like: Any) -> Any:
    """Returns an array (batch, outputs) as the outputs that it was made of.

    Args:
        columns: see `matrix`.
        like: outputs, or their shapes and types; the number of samples does not count.

    Returns:
        A pytree like that of the outputs.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([math.prod(leaf.shape[1:]) for leaf in leaves])[:-1]
    parts = jnp.split(columns, ends.tolist(), axis=1)
    return jax.tree.unflatten(structure, [a.reshape(len(a), *b.shape[1:]) for a, b in zip(parts, leaves, strict=True)])


def output_shapes(apply_fn: ApplyFn, params: Any, x: Any) -> Any:
    """Checks a network and its inputs, without computing anything.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).

    Returns:
        Shapes (batch, ...) and types of its outputs, which are at least float32.

    Raises:
        ValueError: `params` has no leaves, the batch is empty, the network cannot be applied to it, or an output is
            not (batch, ...) or is empty.
        TypeError: `apply_fn` is no function, a leaf of `params` is no array or none is floating, or an output is no
            floating array.
    """
    network, reals, x = over_reals(apply_fn, params, x)
    batch_length("x", x)
    return jax.eval_shape(network, reals, x)


def output_shape(apply_fn: ApplyFn, params: Any, x: Any) -> jax.ShapeDtypeStruct:
    """Checks a network and its inputs as `output_shapes` does.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).

    Returns:
        Shape (batch, outputs) and type of all outputs as one array.
    """
    return jax.eval_shape(matrix, output_shapes(apply_fn, params, x))


def _listed(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{shape}{path and f' at {path}'}" for path, shape in shapes)
