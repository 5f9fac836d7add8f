"""Loads neural-tangents on a JAX that is newer than it.

neural-tangents 0.6.5 takes names from JAX that have moved or gone since. They are lent to it while it is imported and
taken back right after, so that nothing stays patched on the public JAX namespace. Its `experimental` package, which
imports TensorFlow, is left out. Structured derivatives also rest on JAX's old machinery for linear programs, for which
functions of its module `empirical` are replaced by others on `jax.linearize` and `jax.linear_transpose`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import itertools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from jax.interpreters import ad

KNOWN_VERSIONS = ("0.6.5",)
_MISSING = object()


def installed() -> bool:
    """Whether there is an installation of neural-tangents, of whatever version."""
    try:
        importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def load() -> ModuleType:
    """Imports neural-tangents; further calls return the same module.

    Returns:
        The module `neural_tangents`, whose `empirical_ntk_fn` works with implementations 1, 2 and 3. Leave out 0, which
        is chosen by counting operations in a way that current JAX has given up.

    Raises:
        ImportError: it is not installed, its version is unknown, or other code imported it before.
    """
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            "neural-tangents: expected an installation, there is none; "
            "pip install --no-deps neural-tangents frozendict, without the TensorFlow that nothing here imports"
        ) from error
    if version not in KNOWN_VERSIONS:
        raise ImportError(f"neural-tangents: expected version {' or '.join(KNOWN_VERSIONS)}, got {version}")
    if "neural_tangents" in sys.modules:
        raise ImportError(
            "neural-tangents: expected that nasi_jax imports it first, but other code has imported it; "
            "call nasi_jax.ntk.load_neural_tangents() before"
        )
    with _lent():
        try:
            module = importlib.import_module("neural_tangents")
        except BaseException:
            for name in [name for name in sys.modules if name.split(".")[0] == "neural_tangents"]:
                del sys.modules[name]
            raise
    _mend(importlib.import_module("neural_tangents._src.empirical"))
    return module


@contextlib.contextmanager
def _lent() -> Iterator[None]:
    """Lends the names that have gone, for the time of an import."""
    util = ModuleType("jax.util")
    util.safe_map = lambda f, *xs: list(map(f, *_same_length(xs)))  # type: ignore[attr-defined]
    util.safe_zip = lambda *xs: list(zip(*_same_length(xs), strict=True))  # type: ignore[attr-defined]
    names = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    attributes: list[tuple[Any, str, Any]] = [(jax.core, name, getattr(jax.extend.core, name)) for name in names]
    attributes.append((ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like")))
    modules = {"jax.util": util, "neural_tangents.experimental": ModuleType("neural_tangents.experimental")}
    before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in attributes]
    modules_before = {name: sys.modules.get(name, _MISSING) for name in modules}
    try:
        for owner, name, value in attributes:
            setattr(owner, name, value)
        sys.modules.update(modules)
        yield
    finally:
        for owner, name, value in before:
            delattr(owner, name) if value is _MISSING else setattr(owner, name, value)
        for name, module in modules_before.items():
            if module is _MISSING:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module  # type: ignore[assignment]


def _same_length(xs: tuple[Any, ...]) -> list[list[Any]]:
    lists = [list(x) for x in xs]
    if len({len(x) for x in lists}) > 1:
        raise ValueError(f"expected sequences of one length, got {[len(x) for x in lists]}")
    return lists


def _mend(empirical: ModuleType) -> None:
    """Gives structured derivatives what they need of current JAX, inside their own module alone."""
    names: dict[str, Any] = {
        "ad": SimpleNamespace(
            add_tangents=ad.add_tangents,
            is_undefined_primal=ad.is_undefined_primal,
            primitive_jvps=ad.primitive_jvps,
            config=SimpleNamespace(jax_enable_checks=False),
            source_info_util=SimpleNamespace(transform_name_stack=lambda _: contextlib.nullcontext()),
        ),
        "core": SimpleNamespace(ShapedArray=jax.core.ShapedArray, Var=jax.extend.core.Var, DShapedArray=None),
        "_get_primals_out_and_pullback": functools.partial(_primals_out_and_pullback, empirical),
        "_eqn_vjp_fn": _equation_vjp,
        "_eqn_jvp_fn": functools.partial(_equation_jvp, empirical._eqn_jvp_fn),
    }
    for name, value in names.items():
        setattr(empirical, name, value)


def _primals_out_and_pullback(
    empirical: ModuleType,
    function: Callable[..., Any],
    mode: Any,
    j_rules: bool,
    s_rules: bool,
    forward: bool | None,
    *primals: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Stands in for neural-tangents' function of that name: outputs, and the collecting backward pass."""
    leaves, in_tree = jax.tree.flatten(primals)
    # equations of calls have no rules there, so that calls are to be inlined
    with jax.disable_jit():
        outputs, tangent_map = jax.linearize(lambda *flat: function(*jax.tree.unflatten(in_tree, flat)), *leaves)
        linear = jax.make_jaxpr(tangent_map)(*leaves)
        jaxpr, constants = _tangent_equations(jax.make_jaxpr(functools.partial(_evaluate, linear))(*leaves))

    def pullback(*cotangents: Any) -> Any:
        collected = empirical._backward_pass(
            jaxpr,
            mode=mode,
            consts=constants,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cotangents)),
            _j_rules=j_rules,
            _s_rules=s_rules,
            _fwd=forward,
        )
        return jax.tree.unflatten(in_tree, collected)

    return outputs, pullback


def _evaluate(closed: jax.extend.core.ClosedJaxpr, *values: Any) -> list[Any]:
    """Evaluates equations, with splits made slices and checkpoints opened, for which neural-tangents has no rules."""
    known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known.update(zip(closed.jaxpr.invars, values, strict=True))
    for equation in closed.jaxpr.eqns:
        known.update(zip(equation.outvars, _results(equation, known), strict=True))
    return [_read(v, known) for v in closed.jaxpr.outvars]


def _tangent_equations(closed: jax.extend.core.ClosedJaxpr) -> tuple[Any, list[Any]]:
    """Evaluates the equations that no tangent enters; returns the others, and the values that they read."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    tangents, equations = set(jaxpr.invars), []
    for equation in jaxpr.eqns:
        if tangents.isdisjoint(v for v in equation.invars if not isinstance(v, jax.extend.core.Literal)):
            known.update(zip(equation.outvars, _results(equation, known), strict=True))
            continue
        tangents.update(equation.outvars)
        if equation.primitive.multiple_results:
            equations += [_of_one_result(equation, i) for i in range(len(equation.outvars))]
        else:
            equations.append(equation)
    kept = SimpleNamespace(constvars=list(known), invars=jaxpr.invars, outvars=jaxpr.outvars, eqns=equations)
    return kept, list(known.values())


class _Result:
    """One result of a primitive that has several, such as `cond` and the derivatives of `jax.custom_vjp`."""

    def __init__(self, primitive: Any, index: int) -> None:
        self.primitive, self.index = primitive, index

    def __repr__(self) -> str:
        return f"{self.primitive}[{self.index}]"

    def bind(self, *values: Any, **params: Any) -> Any:
        return self.primitive.bind(*values, **params)[self.index]


def _of_one_result(equation: Any, index: int) -> Any:
    return SimpleNamespace(
        primitive=_Result(equation.primitive, index),
        invars=equation.invars,
        outvars=[equation.outvars[index]],
        params=equation.params,
    )


def _results(equation: Any, known: dict[Any, Any]) -> list[Any]:
    values = [_read(v, known) for v in equation.invars]
    if equation.primitive.name == "split":
        ends = list(itertools.accumulate(equation.params["sizes"], initial=0))
        axis = equation.params["axis"]
        return [jax.lax.slice_in_dim(values[0], *ends[i : i + 2], axis=axis) for i in range(len(ends) - 1)]
    if equation.primitive.name == "checkpoint":
        return _evaluate(jax.extend.core.ClosedJaxpr(equation.params["jaxpr"], ()), *values)
    results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def _read(variable: Any, known: dict[Any, Any]) -> Any:
    return variable.val if isinstance(variable, jax.extend.core.Literal) else known[variable]


def _equation_vjp(equation: Any, cotangent: Any, *values: Any) -> list[Any]:
    """Stands in for neural-tangents' `_eqn_vjp_fn`: cotangents of a linear equation, None for known inputs."""
    if equation is None:  # the identity
        return [cotangent]
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(v.aval) for v in equation.invars]
    linear = [i for i, value in enumerate(values) if isinstance(value, ad.UndefinedPrimal)]
    # of a trimmed input only the shape counts
    filled = [jnp.zeros(v.shape, v.dtype) if isinstance(v, jax.core.ShapedArray) else v for v in values]

    def apply(*tangents: jax.Array) -> Any:
        operands = list(filled)
        for i, tangent in zip(linear, tangents, strict=True):
            operands[i] = tangent
        return equation.primitive.bind(*operands, **equation.params)

    shapes = [jax.ShapeDtypeStruct(values[i].aval.shape, values[i].aval.dtype) for i in linear]
    cotangents: list[Any] = [None] * len(values)
    for i, found in zip(linear, jax.linear_transpose(apply, *shapes)(cotangent), strict=True):
        cotangents[i] = found
    return cotangents


def _equation_jvp(theirs: Callable[..., Any], equation: Any, index: int, tangent: Any, *values: Any) -> Any:
    """Stands in for neural-tangents' `_eqn_jvp_fn`, which has none for equations of one result of several."""
    if equation is None or not isinstance(equation.primitive, _Result):
        return theirs(equation, index, tangent, *values)
    aval = equation.outvars[0].aval
    cotangent = jnp.zeros(aval.shape, aval.dtype)
    _, transposed = jax.vjp(lambda c: _equation_vjp(equation, c, *values)[index], cotangent)
    return transposed(tangent)[0]
