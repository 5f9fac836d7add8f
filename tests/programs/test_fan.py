import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import programs


def own(x, w):
    readers = programs.fan_out(x, 4)  # of which one goes unread
    return programs.add([jnp.sin(readers[0]), w * readers[1], readers[2] ** 2])


def plain(x, w):
    return jnp.sin(x) + w * x + x**2


def summed(function):
    return lambda x, w: jnp.sum(jnp.exp(function(x, w)))


DERIVATIVES = {
    "value": lambda f: f,
    "reverse": lambda f: jax.grad(f, (0, 1)),
    "forward by one": lambda f: lambda x, w: jax.jvp(lambda w: f(x, w), (w,), (jnp.cos(w),)),
    "forward over reverse": lambda f: lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (jnp.cos(x), jnp.cos(w))),
    "reverse over reverse": lambda f: jax.grad(lambda x, w: jnp.sum(jax.grad(f)(x, w) ** 2), (0, 1)),
    "many of one": lambda f: lambda x, w: jax.vmap(jax.grad(f, (0, 1)), (None, 0))(x, jnp.stack([w, 2 * w])),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_all_derivatives_are_those_of_plain_sums(x64, derivative, jit):
    x, w = jax.random.normal(jax.random.key(0), (2, 3))
    found, expected = (DERIVATIVES[derivative](summed(f)) for f in (own, plain))
    found = (jax.jit(found) if jit else found)(x, w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected(x, w))


def test_readers_get_the_array_itself_and_not_a_copy():
    x = jnp.ones(3)
    assert all(reader is x for reader in programs.fan_out(x, 3))


def test_what_readers_give_back_is_added_at_once():
    """One sum of three cotangents, where automatic differentiation has two of two."""
    program = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(own(x, 1.0))))(jnp.ones(3))
    assert [len(e.invars) for e in program.eqns if e.primitive.name == "add_n"][-1] == 3
    assert not [e for e in program.eqns if e.primitive.name == "add_any"]
