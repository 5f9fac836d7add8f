import functools
import importlib.metadata
import subprocess
import sys

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk
from nasi_jax.ntk import _kernel, _trace, neural_tangents


@pytest.mark.parametrize("name", ntk_cases.NAMES)
@pytest.mark.parametrize("implementation", ntk_cases.IMPLEMENTATIONS)
def test_all_forms_equal_the_dense_jacobian(name, implementation, x64):
    f, params, x1, _ = ntk_cases.make(name, batch=4)
    x2 = ntk_cases.make(name, batch=3, seed=1).x
    j1, j2 = ntk_cases.jacobian(f, params, x1), ntk_cases.jacobian(f, params, x2)
    options = {"implementation": implementation}
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    close(ntk.kernel(f, params, x1, x2, form="full", **options), np.einsum("ikp,jlp->ijkl", j1, j2))
    traced = np.einsum("ikp,jkp->ij", j1, j1)
    close(ntk.kernel(f, params, x1, **options), traced)
    close(jax.jit(lambda p: ntk.kernel(f, p, x1, form="diagonal", **options))(params), np.diag(traced))
    close(ntk.kernel(f, params, x1, x2, form="summed", **options), np.einsum("ikp,jlp->ij", j1, j2))


@pytest.mark.parametrize("implementation", ntk_cases.IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ntk_cases.INDEPENDENT)
def test_claiming_independent_samples_is_right_without_batch_statistics(name, implementation, x64):
    f, params, x, _ = ntk_cases.make(name, batch=4)
    claimed = ntk.kernel(f, params, x, batch_statistics=False, implementation=implementation)
    np.testing.assert_allclose(claimed, ntk.kernel(f, params, x), rtol=1e-10)


@pytest.mark.parametrize("name", ntk_cases.COUPLED)
def test_claiming_independent_samples_is_wrong_with_batch_statistics(name, x64):
    f, params, x, _ = ntk_cases.make(name, batch=4)
    claimed, right = ntk.kernel(f, params, x, batch_statistics=False), ntk.kernel(f, params, x)
    assert np.abs(claimed - right).max() > 0.05 * np.abs(right).max()


@pytest.mark.parametrize(("name", "batch_statistics"), [("dense", True), ("dense", False), ("batch-normalised", True)])
def test_without_neural_tangents_kernels_are_the_same(name, batch_statistics, x64, monkeypatch):
    f, params, x1, _ = ntk_cases.make(name, batch=4)
    x2 = ntk_cases.make(name, batch=3, seed=1).x
    j1, j2 = ntk_cases.jacobian(f, params, x1), ntk_cases.jacobian(f, params, x2)
    monkeypatch.setattr(_kernel, "installed", lambda: False)
    monkeypatch.setattr(_kernel, "load", None)
    own = functools.partial(ntk.kernel, f, batch_statistics=batch_statistics)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    close(own(params, x1, x2, form="full"), np.einsum("ikp,jlp->ijkl", j1, j2))
    traced = np.einsum("ikp,jkp->ij", j1, j1)
    close(jax.jit(own)(params, x1), traced)
    close(own(params, x1, x2), np.einsum("ikp,jkp->ij", j1, j2))
    close(own(params, x1, form="diagonal"), np.diag(traced))
    close(own(params, x1, x2, form="summed"), np.einsum("ikp,jlp->ij", j1, j2))


def test_without_neural_tangents_its_own_ways_say_how_to_install_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    case = ntk_cases.make("dense")[:3]
    monkeypatch.setattr(neural_tangents.importlib.metadata, "version", missing)
    monkeypatch.setattr(_kernel, "load", neural_tangents.load.__wrapped__)
    monkeypatch.setattr(_trace, "load", neural_tangents.load.__wrapped__)
    for implementation in ("ntk-vector-products", "structured-derivatives"):
        with pytest.raises(ImportError, match="pip install --no-deps neural-tangents"):
            ntk.kernel(*case, implementation=implementation)
    with pytest.raises(ImportError, match="pip install --no-deps neural-tangents"):
        ntk.trace(*case, method="neural-tangents")
    assert ntk.kernel(*case).shape == (6, 6)


@pytest.mark.parametrize("name", ntk_cases.NAMES)
def test_float32_agrees_to_single_precision(name, x64):
    f, params, x, _ = ntk_cases.make(name)
    exact = ntk.kernel(f, params, x)
    single = ntk.kernel(f, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


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
        (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((0, 3)), ValueError, "x: expected arrays"),
        (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 4)), ValueError, r"x: apply_fn fails .* shape \(4, 4\)"),
        (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((2, 4, 3)), ValueError, r"\(2, outputs\), got \(2, 4, 2\)"),
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


@ntk_cases.needs_neural_tangents
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


@ntk_cases.needs_neural_tangents
def test_an_import_by_other_code_is_reported():
    done = python(
        "import sys, types; sys.modules['neural_tangents'] = types.ModuleType('neural_tangents')\n"
        "from nasi_jax import ntk; ntk.load_neural_tangents()"
    )
    assert "expected that nasi_jax imports it first" in done.stderr


def test_an_unknown_version_is_reported(monkeypatch):
    monkeypatch.setattr(neural_tangents.importlib.metadata, "version", lambda _: "0.7.0")
    with pytest.raises(ImportError, match=r"expected version 0\.6\.5, got 0\.7\.0"):
        neural_tangents.load.__wrapped__()
