import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from nasi_jax import nn

PROGRAM = """
import jax
import jax.numpy as jnp
from nasi_jax import nn

x, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
options = nn.compiler_options()
print(options, "ynn" in jax.jit(nn.conv).lower(x, kernel).compile(compiler_options=options).as_text())
"""


def test_a_compiled_network_keeps_static_and_named_arguments():
    scaled = nn.jit_network(lambda power, x, *, times: times * x**power, static_argnums=0, static_argnames="times")
    assert jnp.allclose(scaled(3, jnp.arange(3.0), times=2), jnp.array([0, 2, 16.0]))


@pytest.mark.parametrize("flags", ["", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"])
def test_convolutions_are_not_ynnpacks_and_the_users_flags_go_before(flags):
    if jax.default_backend() != "cpu":
        pytest.skip("the options are for CPUs")
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


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    compiler = sys.modules["nasi_jax.nn.compiler"]
    monkeypatch.setattr(compiler, "_LIBRARY", "xla_cpu_no_such_option")
    compiler.compiler_options.cache_clear()
    assert nn.compiler_options() is None
    monkeypatch.undo()
    compiler.compiler_options.cache_clear()
