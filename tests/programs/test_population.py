import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax.programs import Execution, Population

BRANCHES = Execution("branches")


def drift(scale, offset, state, pull):
    """A step whose result depends on the order of operations in its last bits."""
    moved = jnp.sin(state * scale) + pull / 3 + offset
    return moved, {"moved": moved.sum()}


def members(count):
    return jnp.arange(4.0 * count).reshape(count, 4) / 7, [(jnp.float32(i),) for i in range(count)]


def test_members_in_threads_are_those_alone_bit_by_bit():
    states, own = members(7)
    population = Population(drift, statics=1)
    together, figures = population.advance((0.5,), jnp.ones(4), states, own, execution=BRANCHES, length=3)
    assert figures["moved"].shape == (7, 3)
    for i in range(7):
        alone, figure = population.advance(
            (0.5,), jnp.ones(4), states[i : i + 1], own[i : i + 1], execution=BRANCHES, length=3
        )
        np.testing.assert_array_equal(together[i], alone[0])
        np.testing.assert_array_equal(figures["moved"][i], figure["moved"][0])


def test_a_program_is_traced_once_for_all_threads():
    traced = []

    def counted(scale, *arguments):
        traced.append(threading.current_thread())
        return drift(scale, *arguments)

    states, own = members(6)
    population = Population(counted, statics=1)
    for _ in range(2):
        population.advance((0.5,), jnp.ones(4), states, own, execution=BRANCHES)
    assert traced == [threading.main_thread()]


@pytest.mark.parametrize("precision", ["float32", "highest"])
def test_threads_have_the_options_of_the_caller(precision):
    seen = set()

    def step(_, shared, state, pull):
        seen.add((jax.config.jax_default_matmul_precision, state.dtype.name))
        return state + pull, {"dtype": jnp.zeros((), jnp.result_type(float))}

    with jax.enable_x64(True), jax.default_matmul_precision(precision):
        states = jnp.zeros((5, 2))
        own = [(jnp.float64(i),) for i in range(5)]
        after, figures = Population(step, statics=1).advance((0,), 0.0, states, own, execution=BRANCHES)
    assert after.dtype == jnp.float64
    assert figures["dtype"].dtype == jnp.float64
    assert seen == {(precision, "float64")}


def test_an_error_of_a_member_is_raised():
    def step(_, shared, state, pull):
        return state + pull, {}

    states, own = members(4)
    own[2] = (jnp.ones(3),)
    with pytest.raises(TypeError, match="broadcast"):
        Population(step, statics=1).advance((0,), 0.0, states, own, execution=BRANCHES)
