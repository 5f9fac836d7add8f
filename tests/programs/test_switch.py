"""A branch and its derivatives, held against `jax.lax.switch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import programs

Function = Callable[[Any, Any], jax.Array]


def _sine(x: jax.Array, weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"y": jnp.sin(x) * weights["a"]}


def _cube(x: jax.Array, weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"y": x**3}


def _product(x: jax.Array, weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"y": jnp.exp(weights["b"]) * x * weights["a"]}


BRANCHES = (_sine, _cube, _product)
X = np.array([0.3, -0.7, 1.1])
WEIGHTS = {"a": np.array([1.2, 0.4, -0.5]), "b": np.array([0.1, -0.2, 0.6])}


def _function(switch: Callable[..., Any], index: Any) -> Function:
    def function(x: Any, weights: Any) -> jax.Array:
        def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.cos(switch(index, BRANCHES, x, weights)["y"]), None

        return jnp.sum(jax.lax.scan(turn, x, None, length=2)[0])

    return function


DERIVATIVES: dict[str, Callable[[Function, Any, Any], Any]] = {
    "value": lambda f, x, w: f(x, w),
    "gradient": lambda f, x, w: jax.grad(f, argnums=(0, 1))(x, w),
    "gradient by one operand": lambda f, x, w: jax.grad(f)(x, w),
    "tangent": lambda f, x, w: jax.jvp(lambda w: f(x, w), (w,), (w,))[1],
    "linearised": lambda f, x, w: jax.linearize(lambda x: f(x, w), x)[1](x),
    "forward over reverse": lambda f, x, w: jax.jvp(lambda x: jax.grad(f, argnums=1)(x, w), (x,), (x,))[1],
    "reverse over forward": lambda f, x, w: jax.grad(lambda x: jax.jvp(lambda w: f(x, w), (w,), (w,))[1])(x),
    "reverse over reverse": lambda f, x, w: jax.grad(lambda w: jnp.sum(jax.grad(f)(x, w) ** 2))(w),
    "third": lambda f, x, w: jax.jacrev(jax.hessian(lambda x: f(x, w)))(x),
    "of several": lambda f, x, w: jax.vmap(jax.grad(f), in_axes=(0, None))(jnp.stack([x, x + 1]), w),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("index", range(len(BRANCHES)))
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_are_those_of_lax_switch(name: str, index: int, jit: bool) -> None:
    with jax.enable_x64(True):
        x, weights = jnp.asarray(X), jax.tree.map(jnp.asarray, WEIGHTS)

        def found(switch: Callable[..., Any]) -> Any:
            def derivative(index: Any, x: Any, weights: Any) -> Any:
                return DERIVATIVES[name](_function(switch, index), x, weights)

            return (jax.jit(derivative) if jit else derivative)(jnp.asarray(index), x, weights)

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14),
            found(programs.switch),
            found(jax.lax.switch),
        )


def test_several_indices() -> None:
    def of(switch: Callable[..., Any]) -> Any:
        return jax.vmap(lambda index: jax.grad(_function(switch, index))(X, WEIGHTS))(jnp.arange(3))

    np.testing.assert_allclose(of(programs.switch), of(jax.lax.switch), rtol=1e-5)


def test_an_index_out_of_range_is_the_nearest() -> None:
    for index, nearest in ((-1, 0), (7, 2)):
        value = _function(programs.switch, jnp.asarray(index))(X, WEIGHTS)
        assert value == _function(programs.switch, jnp.asarray(nearest))(X, WEIGHTS)


def test_a_gradient_branches_twice_and_leaves_nothing_of_other_branches() -> None:
    def program(switch: Callable[..., Any]) -> str:
        def total(x: Any, weights: Any, index: Any) -> jax.Array:
            return jnp.sum(switch(index, BRANCHES, x, weights)["y"])

        return jax.jit(jax.grad(total, argnums=(0, 1))).lower(X, WEIGHTS, 0).as_text()

    assert program(programs.switch).count("stablehlo.case") == 1  # of a sum the gradient alone is left
    assert program(jax.checkpoint(jax.lax.switch, static_argnums=1)).count("stablehlo.case") > 1


def test_branches_are_traced_once() -> None:
    traced = []

    def branch(x: jax.Array) -> jax.Array:
        traced.append(x)
        return 2 * x

    def total(x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = programs.switch(jnp.asarray(0), (branch, jnp.sin), x)
        return jnp.sum(x)

    np.testing.assert_allclose(jax.jit(jax.grad(total))(X), 8.0)
    calls = len(traced)
    jax.jit(lambda x: jax.grad(total)(x))(X)
    assert len(traced) == calls
