import functools
import importlib.metadata
import itertools
import subprocess
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk
from nasi_jax.ntk import _kernel, neural_tangents


def by_implementation(names):
    """Our own kernels and those of neural-tangents; convolutions take long to compile."""
    quick = {(name, None) for name in names if "statistics" not in name}
    quick |= {("batch-normalised", "jacobian-contraction"), *(("dense", name) for name in ntk_cases.IMPLEMENTATIONS)}
    return [
        pytest.param(*case, marks=[pytest.mark.slow] * (case not in quick))
        for case in itertools.product(names, ntk_cases.IMPLEMENTATIONS)
    ]


@pytest.mark.parametrize(("name", "implementation"), by_implementation(ntk_cases.NAMES))
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


@pytest.mark.parametrize(("name", "implementation"), by_implementation(ntk_cases.INDEPENDENT))
def test_claiming_independent_samples_is_right_without_batch_statistics(name, implementation, x64):
    f, params, x, _ = ntk_cases.make(name, batch=4)
    claimed = ntk.kernel(f, params, x, batch_statistics=False, implementation=implementation)
    np.testing.assert_allclose(claimed, ntk.kernel(f, params, x), rtol=1e-10)


@pytest.mark.parametrize("name", ntk_cases.COUPLED)
def test_claiming_independent_samples_is_refused_with_batch_statistics(name, x64):
    f, params, x, _ = ntk_cases.make(name, batch=4)
    for function in (ntk.kernel, ntk.trace, ntk.operator):
        with pytest.raises(ValueError, match=r"batch_statistics: expected True or None, .* got False"):
            function(f, params, x, batch_statistics=False)


def test_a_branch_that_is_still_scaled_by_zero_is_seen_to_couple_samples(x64):
    """The outputs are those without the branch, their gradients by its scale are not."""
    f = lambda p, x: x @ p["w"] + p["scale"] * jax.nn.standardize(x @ p["w"], axis=0)  # noqa: E731
    params, x = {"w": jnp.arange(6.0).reshape(3, 2), "scale": 0.0}, jax.random.normal(jax.random.key(0), (4, 3))
    rows = ntk_cases.jacobian(f, params, x)
    np.testing.assert_allclose(ntk.kernel(f, params, x), np.einsum("ikp,jkp->ij", rows, rows), rtol=1e-10)
    with pytest.raises(ValueError, match="batch_statistics: expected True"):
        ntk.kernel(f, params, x, batch_statistics=False)


def test_a_network_of_batches_of_one_size_is_taken_as_a_whole(x64):
    f, params, x, _ = ntk_cases.make("dense", batch=4)
    fixed = lambda p, x: f(p, x.reshape(4, 5))  # noqa: E731
    np.testing.assert_allclose(ntk.kernel(fixed, params, x), ntk.kernel(f, params, x), rtol=1e-10)
    with pytest.raises(ValueError, match=r"batch_statistics: expected True or None, because apply_fn fails on single"):
        ntk.kernel(fixed, params, x, batch_statistics=False)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_rounding_does_not_couple_samples(dtype):
    f, params, x, _ = ntk_cases.make("convolutions")
    params, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
    assert ntk.kernel(f, params, x, batch_statistics=False).shape == (6, 6)


def test_without_neural_tangents_its_own_ways_say_how_to_install_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    case = ntk_cases.make("dense")[:3]
    monkeypatch.setattr(neural_tangents.importlib.metadata, "version", missing)
    monkeypatch.setattr(_kernel, "load", neural_tangents.load.__wrapped__)
    for implementation in get_args(ntk.Implementation):
        with pytest.raises(ImportError, match="pip install --no-deps neural-tangents"):
            ntk.kernel(*case, implementation=implementation)
    with pytest.raises(ImportError, match="pip install --no-deps neural-tangents"):
        ntk.trace(*case, method="neural-tangents")
    assert ntk.kernel(*case).shape == (6, 6)


@pytest.mark.parametrize("name", ntk_cases.slow_but((*ntk_cases.QUICK, "convolutions")))
def test_float32_agrees_to_single_precision(name, x64):
    f, params, x, _ = ntk_cases.make(name)
    exact = ntk.kernel(f, params, x)
    single = ntk.kernel(f, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("apply_fn", "params", "x", "error", "message"),
    [
        (lambda p, x: (x @ p, x > 0), jnp.ones((3, 2)), jnp.ones((4, 3)), TypeError, r"got bool at \[1\]"),
        (lambda p, x: {}, jnp.ones((3, 2)), jnp.ones((4, 3)), TypeError, "got a pytree without leaves"),
        (lambda p, x: (x @ p)[:, :0], jnp.ones((3, 2)), jnp.ones((4, 3)), ValueError, r"not empty, got \(4, 0\)"),
        (lambda p, x: (x @ p).sum(), jnp.ones((3, 2)), jnp.ones((4, 3)), ValueError, r"shape \(4, ...\) .*got \(\)"),
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
        (lambda p, x: x @ p["w"], {"v": jnp.ones((3, 2))}, jnp.ones((4, 3)), ValueError, "params .* KeyError: 'w'"),
        (None, jnp.ones((3, 2)), jnp.ones((4, 3)), TypeError, r"apply_fn: expected a function .* got NoneType"),
    ],
)
def test_bad_networks_are_refused(apply_fn, params, x, error, message):
    key, y = jax.random.key(0), jnp.zeros(4, int)
    for function in (
        ntk.kernel,
        ntk.trace,
        ntk.operator,
        lambda *case: ntk.participation_ratio(*case, key),
        lambda *case: ntk.spectral_density(*case, key=key),
        lambda *case: ntk.vector_product(*case, jnp.ones((4, 2))),
        lambda f, p, x: ntk.linearize(f, p)(p, x),
        lambda *case: ntk.one_batch(*case, y),
        lambda *case: ntk.per_sample(*case, y),
    ):
        with pytest.raises(error, match=message):
            function(apply_fn, params, x)


def test_bad_options_are_refused():
    arguments = (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="form: expected"):
        ntk.kernel(*arguments, form="trace")
    with pytest.raises(ValueError, match="implementation: expected"):
        ntk.kernel(*arguments, implementation="auto")
    with pytest.raises(ValueError, match="x2: expected None"):
        ntk.kernel(*arguments, arguments[2], form="diagonal")
    with pytest.raises(ValueError, match="memory: expected a positive number of bytes, got 0"):
        ntk.kernel(*arguments, memory=0)
    probed = lambda *case, **options: ntk.trace(*case, method="hutchinson", key=jax.random.key(0), **options)  # noqa: E731
    for function in (ntk.kernel, ntk.trace, probed, ntk.diagonal):
        for mesh in ("cpu", jax.devices()):
            with pytest.raises(TypeError, match=r"mesh: expected None or a jax\.sharding\.Mesh such as .*, got "):
                function(*arguments, mesh=mesh)


@pytest.mark.parametrize(
    ("x2", "message"),
    [
        (jnp.ones((4, 2)), r"x2: expected the shape of one sample of x1, \(1, 3\), got \(1, 2\)"),
        ({"x": jnp.ones((4, 3))}, r"x2: expected the structure of one sample of x1"),
        (jnp.ones((0, 3)), r"x2: expected arrays .* not empty, got shape \(0, 3\)"),
    ],
)
def test_a_second_batch_of_another_kind_is_refused(x2, message):
    for function in (ntk.kernel, ntk.operator):
        with pytest.raises(ValueError, match=message):
            function(lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 3)), x2)


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
