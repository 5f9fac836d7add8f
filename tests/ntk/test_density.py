"""Spectral densities and diagonals, beside all eigenvalues in float64."""

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk


@pytest.fixture
def case(x64):
    f, params, x, _ = ntk_cases.make("batch-normalised")
    return (f, params, x), np.linalg.eigvalsh(ntk_cases.dense_kernel(f, params, x))


def test_as_many_steps_as_eigenvalues_give_them_all(case):
    arguments, values = case
    got = ntk.spectral_density(*arguments, key=jax.random.key(0), probes=2, steps=1000)
    assert got.nodes.shape == (2, 18)
    assert got.cost == 2 * 2 * 18
    assert got.size == 18
    known = values > 1e-9 * values[-1]
    for nodes in got.nodes:
        distance = np.abs(values[known][:, None] - nodes).min(axis=1)
        assert (distance < 1e-7 * values[-1]).all()
    np.testing.assert_allclose(got.weights.sum(axis=1), 1, rtol=1e-10)


def test_traces_of_functions_are_within_their_errors(case):
    arguments, values = case
    got = ntk.spectral_density(*arguments, key=jax.random.key(1), probes=40, steps=18)
    values, ridge = np.maximum(values, 0), 0.1 * values.mean()
    for estimate, expected in (
        (got.trace_of(lambda v: v), values.sum()),
        (got.trace_of(np.square), np.sum(values**2)),
        (got.trace_of(lambda v: np.log1p(v / ridge)), np.sum(np.log1p(values / ridge))),
        (got.effective_dimension(ridge), np.sum(values / (values + ridge))),
    ):
        assert 0 < estimate.stderr < 0.2 * expected
        assert abs(estimate.value - expected) < 4 * estimate.stderr
    places = np.median(values) * np.array([0.5, 1.001, 100])
    below = got.cumulative(places)
    shares = np.mean(values[:, None] <= places, axis=0)
    assert (np.abs(below.value - shares) < 4 * below.stderr + 0.02).all()
    grid = np.geomspace(values[-1] * 1e-6, values[-1] * 10, 4000)
    heights = got.density(grid, width=0.2)
    share = np.trapezoid(heights.value, np.log(grid))
    assert abs(share - np.mean(values > 1e-5 * values[-1])) < 0.1


def test_few_steps_on_many_eigenvalues_keep_the_moments(x64):
    """Lanczos with m steps is exact for polynomials of degree 2m - 1 from the same vectors."""
    f, params, x, _ = ntk_cases.make("dense", batch=20)
    kernel, key = ntk_cases.dense_kernel(f, params, x), jax.random.key(2)
    got = ntk.spectral_density(f, params, x, key=key, probes=3, steps=4, chunk=2)
    vectors = np.asarray(jax.random.rademacher(key, (3, 60), float))
    for degree in range(8):
        moments = [v @ np.linalg.matrix_power(kernel, degree) @ v for v in vectors]
        np.testing.assert_allclose(60 * np.sum(got.weights * got.nodes**degree, axis=1), moments, rtol=1e-8)


def test_beside_matfree(x64):
    """The effective dimension by its Lanczos functions from the same vectors."""
    decomp, funm = pytest.importorskip("matfree.decomp"), pytest.importorskip("matfree.funm")
    f, params, x, _ = ntk_cases.make("dense", batch=8)
    operator, key = ntk.operator(f, params, x), jax.random.key(0)
    function = funm.dense_funm_sym_eigh(lambda v: v / (v + 1.0))
    integrand = funm.monte_carlo_funm_sym(function, decomp.tridiag_sym(6))
    vectors = jax.random.rademacher(key, (5, 24), float)
    estimate = [integrand(operator, v) for v in vectors]
    got = ntk.spectral_density(f, params, x, key=key, probes=5, steps=6).effective_dimension(1.0)
    np.testing.assert_allclose(got.value, np.mean(estimate), rtol=1e-6)


def test_kernels_of_low_rank_and_of_zero(x64):
    """A linear network on one direction: as many eigenvalues as outputs, and the rest zero."""
    x = jnp.ones((6, 2)) * jnp.arange(1.0, 7)[:, None]
    got = ntk.spectral_density(lambda p, x: x @ p, jnp.ones((2, 2)), x, key=jax.random.key(0), probes=200, steps=12)
    largest = 2 * np.sum(np.arange(1, 7) ** 2)
    assert np.isfinite(got.nodes).all()
    trace = got.trace_of(lambda v: v)
    assert abs(trace.value - 2 * largest) < 4 * trace.stderr
    dimension = got.effective_dimension(1e-6 * largest)
    assert abs(dimension.value - 2) < 4 * dimension.stderr + 1e-3
    nothing = ntk.spectral_density(lambda p, x: 0 * (x @ p), jnp.ones((2, 2)), x, key=jax.random.key(0))
    assert nothing.trace_of(lambda v: v).value == 0
    assert nothing.effective_dimension(1.0).value == 0


def test_bad_arguments():
    f, params, x, _ = ntk_cases.make("dense")
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        ntk.spectral_density(f, params, x, key=key, steps=0)
    with pytest.raises(ValueError, match="apply_fn: expected finite gradients"):
        ntk.spectral_density(f, params, x.at[0].set(jnp.nan), key=key, steps=2, probes=1)
    with pytest.raises(TypeError, match="x: expected arrays, got traced ones"):
        jax.jit(lambda x: ntk.spectral_density(f, params, x, key=key).nodes)(x)
    single = ntk.spectral_density(f, params, x, key=key, steps=2, probes=1)
    assert np.isnan(single.effective_dimension(1.0).stderr)
    with pytest.raises(ValueError, match="ridge: expected a positive number"):
        single.effective_dimension(0)
    with pytest.raises(ValueError, match="width: expected a positive number, got 0"):
        single.density(np.ones(2), width=0)
    with pytest.raises(ValueError, match=r"values: expected positive eigenvalues, got 0"):
        single.density(np.arange(3.0))


@pytest.mark.parametrize("name", ["dense", "batch-normalised"])
def test_diagonals(name, x64):
    f, params, x, _ = ntk_cases.make(name)
    rows = ntk_cases.jacobian(f, params, x)
    exact = ntk.diagonal(f, params, x, chunk=5)
    np.testing.assert_allclose(exact.value, np.sum(rows**2, axis=2), rtol=1e-10)
    assert exact.cost == 18
    assert not np.any(exact.stderr)
    got = ntk.diagonal(f, params, x, method="hutchinson", key=jax.random.key(0), probes=400, chunk=64)
    assert (np.abs(got.value - exact.value) < 4.5 * got.stderr).all()
    assert got.cost == 800


def test_diagonals_of_named_outputs(x64):
    heads = lambda p, x: {"a": x @ p, "b": (x @ p)[:, 0] ** 2}  # noqa: E731
    p, x = jnp.arange(6.0).reshape(3, 2), jnp.arange(12.0).reshape(4, 3)
    got = ntk.diagonal(heads, p, x).value
    np.testing.assert_allclose(got["a"], np.tile(np.sum(x**2, axis=1)[:, None], 2), rtol=1e-10)
    np.testing.assert_allclose(got["b"], 4 * (x @ p)[:, 0] ** 2 * np.sum(x**2, axis=1), rtol=1e-10)
    with pytest.raises(ValueError, match="method: expected 'exact' or 'hutchinson', got 'guess'"):
        ntk.diagonal(heads, p, x, method="guess")
    with pytest.raises(ValueError, match="key: expected a random key"):
        ntk.diagonal(heads, p, x, method="hutchinson")
