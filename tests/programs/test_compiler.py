import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import programs

PROGRAM = """
import jax
import jax.numpy as jnp
from nasi_jax import programs

x, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
options = programs.compiler_options()
print(options, "ynn" in jax.jit(programs.conv).lower(x, kernel).compile(compiler_options=options).as_text())
"""


def test_a_compiled_network_keeps_static_and_named_arguments():
    scaled = programs.jit_network(
        lambda power, x, *, times: times * x**power, static_argnums=0, static_argnames="times"
    )
    assert jnp.allclose(scaled(3, jnp.arange(3.0), times=2), jnp.array([0, 2, 16.0]))


@pytest.mark.parametrize("flags", ["", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"])
def test_convolutions_are_not_ynnpacks_and_the_users_flags_go_before(flags):
    if jax.default_backend() != "cpu":
        pytest.skip("the options are for CPUs")
    if programs.compiler_options() is None:
        pytest.skip("this version of XLA does not know them")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    options, by_library = done.stdout.rsplit(maxsplit=1)
    assert by_library == "False"
    assert (options == "None") == bool(flags)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_product_of_constants_is_right(value):
    """Where XLA fuses what a product reads with it, memory is read that nobody has written."""
    scaled = programs.jit_network(lambda x: (jnp.full((8, 256), value) * x) @ jnp.full((256, 8), 2.0))
    constant = programs.jit_network(lambda: jnp.full((8, 256), value) @ jnp.full((8, 256), value).T)
    np.testing.assert_allclose(scaled(jnp.ones(())), np.full((8, 8), 512 * value), rtol=1e-6)
    np.testing.assert_allclose(constant(), np.full((8, 8), 256 * value**2), rtol=1e-6)


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    compiler = sys.modules["nasi_jax.programs.compiler"]
    monkeypatch.setattr(compiler, "_LIBRARY", "xla_cpu_no_such_option")
    compiler.compiler_options.cache_clear()
    assert programs.compiler_options() is None
    monkeypatch.undo()
    compiler.compiler_options.cache_clear()


def test_a_sequence_of_programs_is_traced_once_and_gives_the_same():
    traced = []
    block = jax.jit(lambda x, w: jnp.tanh(x @ w))

    def function(x, weights, scale):
        traced.append(x)
        loss = jax.grad(lambda ws: scale * jnp.sum(block(block(x, ws["a"]), ws["b"]) ** 2))
        return loss(weights), {"scale": scale}

    run = programs.run_by_programs(function)
    for seed in range(2):
        x, a, b = jax.random.normal(jax.random.key(seed), (3, 4, 4))
        found = run(x, {"a": a, "b": b}, 0.5)
        assert len(traced) == 1 + seed
        expected = function(x, {"a": a, "b": b}, 0.5)
        jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-6), found, expected)
    run(x[:2], {"a": a, "b": b}, 0.5)
    assert len(traced) == 4  # for another shape once more


def test_blocks_that_are_alike_share_a_program(caplog):
    block = jax.jit(lambda x, w: jnp.tanh(x @ w))

    def function(x, weights):
        for w in weights:
            x = block(x, w)
        return x

    x = jnp.ones((5, 5))
    with jax.log_compiles(True):
        programs.run_by_programs(function)(x, [x] * 6)
    assert sum("Finished XLA compilation" in message for message in caplog.messages) == 1
