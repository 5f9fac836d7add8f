import subprocess
import sys
from typing import get_args

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nasi_jax import ntk


def dense(p, x):
    return jnp.tanh(x.reshape(len(x), -1) @ p["first"]) @ p["second"]


def batch_normalised(p, x):
    hidden = jax.nn.standardize(x.reshape(len(x), -1) @ p["first"], axis=0, epsilon=1e-5)
    return jax.nn.relu(hidden) @ p["second"]


class Convolutional(nn.Module):
    """Convolutions plain, depthwise and dilated, with pools."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), param_dtype=x.dtype)(x))
        x = nn.Conv(4, (3, 3), feature_group_count=4, param_dtype=x.dtype)(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.tanh(nn.Conv(3, (3, 3), kernel_dilation=(2, 2), param_dtype=x.dtype)(x))
        return nn.Dense(3, param_dtype=x.dtype)(nn.avg_pool(x, (2, 2)).reshape(len(x), -1))


def convolutional(p, x):
    return Convolutional().apply({"params": p}, x)


@pytest.fixture(params=[dense, batch_normalised, convolutional], ids=lambda f: f.__name__)
def case(request, x64):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[2], (5, 6, 6, 2), jnp.float64)
    params = {
        "first": jax.random.normal(keys[0], (72, 7), jnp.float64) / 8,
        "second": jax.random.normal(keys[1], (7, 3), jnp.float64),
    }
    if request.param is convolutional:
        params = Convolutional().init(keys[0], x)["params"]
    return request.param, params, x, jax.random.normal(keys[3], (4, 6, 6, 2), jnp.float64)


def jacobian(f, params, x):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jacrev(lambda p: f(unravel(p), x))(flat))


@pytest.mark.parametrize("implementation", get_args(ntk.Implementation))
def test_all_forms_equal_the_dense_jacobian(case, implementation):
    f, params, x1, x2 = case
    j1, j2 = jacobian(f, params, x1), jacobian(f, params, x2)
    options = {"implementation": implementation}
    full = np.einsum("ikp,jlp->ijkl", j1, j2)
    np.testing.assert_allclose(ntk.kernel(f, params, x1, x2, form="full", **options), full, rtol=1e-10, atol=1e-10)
    traced = np.einsum("ikp,jkp->ij", j1, j1)
    np.testing.assert_allclose(ntk.kernel(f, params, x1, **options), traced, rtol=1e-10, atol=1e-10)
    diagonal = jax.jit(lambda p: ntk.kernel(f, p, x1, form="diagonal", **options))(params)
    np.testing.assert_allclose(diagonal, np.diag(traced), rtol=1e-10)


def test_claiming_independent_samples_is_right_without_batch_statistics_and_wrong_with_them(x64):
    key = jax.random.key(1)
    x = jax.random.normal(key, (6, 5), jnp.float64)
    params = {"first": jax.random.normal(key, (5, 8), jnp.float64), "second": jnp.ones((8, 2), jnp.float64)}
    independent = ntk.kernel(dense, params, x, batch_statistics=False)
    np.testing.assert_allclose(independent, ntk.kernel(dense, params, x), rtol=1e-10)
    claimed = ntk.kernel(batch_normalised, params, x, batch_statistics=False)
    right = ntk.kernel(batch_normalised, params, x)
    assert np.abs(np.trace(claimed) / np.trace(right) - 1) > 0.05


def test_the_probes_trace_is_that_of_the_kernel(case):
    f, params, x, _ = case
    keys = jax.random.split(jax.random.key(3), 1000)
    probed = np.asarray(jax.vmap(lambda key: ntk.participation_ratio(f, params, x, key).trace)(keys))
    exact = float(jnp.trace(ntk.kernel(f, params, x)))
    assert abs(probed.mean() - exact) < 4 * probed.std(ddof=1) / np.sqrt(len(probed))


@pytest.mark.parametrize(
    ("apply_fn", "params", "x", "error", "message"),
    [
        (lambda p, x: (x @ p, x), jnp.ones((3, 2)), jnp.ones((4, 3)), TypeError, "apply_fn: expected one array"),
        (lambda p, x: (x @ p).sum(), jnp.ones((3, 2)), jnp.ones((4, 3)), ValueError, r"\(4, outputs\)"),
        (
            lambda p, x: jnp.argmax(x @ p, axis=-1, keepdims=True),
            jnp.ones((3, 2)),
            jnp.ones((4, 3)),
            TypeError,
            "floating",
        ),
        (lambda p, x: x, {}, jnp.ones((4, 3)), ValueError, "params: expected at least one"),
        (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((0, 3)), ValueError, "x: expected a batch"),
    ],
)
def test_bad_networks_are_refused(apply_fn, params, x, error, message):
    with pytest.raises(error, match=message):
        ntk.kernel(apply_fn, params, x)


def test_bad_options_are_refused():
    arguments = (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="form: expected"):
        ntk.kernel(*arguments, form="trace")
    with pytest.raises(ValueError, match="implementation: expected"):
        ntk.kernel(*arguments, implementation="auto")
    with pytest.raises(ValueError, match="x2: expected None"):
        ntk.kernel(*arguments, arguments[2], form="diagonal")


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_loading_leaves_no_trace_on_jax_and_no_tensorflow():
    done = python(
        "import sys, jax, jax.core, jax.extend.core, jax.interpreters.ad as ad\n"
        "from nasi_jax import ntk\n"
        "before = {m: set(vars(m)) for m in (jax, jax.core, ad)}\n"
        "names = set(sys.modules)\n"
        "module = ntk.load_neural_tangents()\n"
        "assert module is ntk.load_neural_tangents()\n"
        "submodules = {'experimental', 'example_libraries', 'ops', 'image'}\n"
        "assert all(set(vars(m)) - submodules <= b for m, b in before.items())\n"
        "assert 'jax.util' not in sys.modules and 'tensorflow' not in sys.modules and 'tf2jax' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


def test_an_import_by_other_code_is_reported():
    done = python(
        "import sys, types; sys.modules['neural_tangents'] = types.ModuleType('neural_tangents')\n"
        "from nasi_jax import ntk; ntk.load_neural_tangents()"
    )
    assert "expected that nasi_jax imports it first" in done.stderr


def test_an_unknown_version_is_reported(monkeypatch):
    from nasi_jax.ntk import neural_tangents

    monkeypatch.setattr(neural_tangents.importlib.metadata, "version", lambda _: "0.7.0")
    with pytest.raises(ImportError, match=r"expected version 0\.6\.5, got 0\.7\.0"):
        neural_tangents.load.__wrapped__()
