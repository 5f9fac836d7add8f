"""XTrace and XNysTrace, by leaving vectors out one by one, and beside matfree."""

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk
from nasi_jax.ntk._exchangeable import mean_and_error, xnystrace, xtrace


def problem(decay, size=30, count=6, rank=None):
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(size, size)))[0]
    values = decay ** np.arange(size) * (np.arange(size) < (rank or size))
    matrix = basis * values @ basis.T
    vectors = random.normal(size=(size, count))
    return matrix, vectors, matrix @ vectors


def by_xtrace(matrix, vectors, images):
    basis = np.linalg.qr(images)[0]
    return leaving_out(xtrace(vectors, images, basis, matrix @ basis), vectors.shape[1])


def by_xnystrace(matrix, vectors, images):
    return leaving_out(xnystrace(vectors, images), vectors.shape[1])


def leaving_out(without, count):
    return np.array([without(i, np.delete(np.arange(count), i)) for i in range(count)])


def rest(matrix, vector, subspace):
    """Estimate from one vector of the trace outside of a subspace of a matrix that is zero within it."""
    free = len(vector) - subspace.shape[1]
    outside = vector - subspace @ (subspace.T @ vector)
    return free / (outside @ outside) * (vector @ matrix @ vector)


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_xtrace_leaves_each_vector_out(decay):
    matrix, vectors, images = problem(decay)
    expected = []
    for i in range(6):
        basis = np.linalg.qr(np.delete(images, i, axis=1))[0]
        projected = np.eye(30) - basis @ basis.T
        expected.append(np.trace(basis.T @ matrix @ basis) + rest(projected @ matrix @ projected, vectors[:, i], basis))
    np.testing.assert_allclose(by_xtrace(matrix, vectors, images), expected, rtol=1e-8)


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_xnystrace_leaves_each_vector_out(decay):
    matrix, vectors, images = problem(decay)
    expected = []
    for i in range(6):
        others, seen = np.delete(vectors, i, axis=1), np.delete(images, i, axis=1)
        nystrom = seen @ np.linalg.solve(others.T @ seen, seen.T)
        left = rest(matrix - nystrom, vectors[:, i], np.linalg.qr(others)[0])
        expected.append(np.trace(nystrom) + left)
    np.testing.assert_allclose(by_xnystrace(matrix, vectors, images), expected, rtol=1e-6)


@pytest.mark.parametrize("estimate", [by_xtrace, by_xnystrace])
def test_matrices_of_low_rank_are_known_exactly(estimate):
    for rank in (1, 3, 5):
        matrix, *products = problem(0.7, rank=rank)
        np.testing.assert_allclose(estimate(matrix, *products), np.trace(matrix), rtol=1e-6)
    zero = np.zeros((30, 30))
    np.testing.assert_array_equal(estimate(zero, products[0], zero @ products[0]), np.zeros(6))


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
def test_beside_matfree(method):
    """On the same vectors, estimate by estimate."""
    stochtrace = pytest.importorskip("matfree.stochtrace")
    matrix, vectors, images = problem(0.8)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        integrand = getattr(stochtrace, f"leave_one_out_{method}")()
        expected = integrand(lambda v: jnp.asarray(matrix) @ v, jnp.asarray(vectors.T))
    got = {"xtrace": by_xtrace, "xnystrace": by_xnystrace}[method](matrix, vectors, images)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


SPECTRA = {
    "flat": lambda count: np.linspace(1, 2, 40),
    "power law": lambda count: 1 / np.arange(1, 41),
    "low rank": lambda count: np.where(np.arange(40) <= count, 1.0, 1e-4),
}


@pytest.mark.parametrize("count", [4, *(pytest.param(count, marks=pytest.mark.slow) for count in (8, 16))])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
def test_the_error_is_the_spread_over_draws(method, spectrum, count):
    """Over 200 draws, the mean within 4 standard errors, and the error within a quarter of the spread.

    Where a few eigenvalues hold the trace, the error is not that of independent estimates.
    """
    values, random, found = SPECTRA[spectrum](count), np.random.default_rng(3), []
    matrix = np.diag(values)
    for _ in range(200):
        vectors = random.normal(size=(len(values), count))
        images = matrix @ vectors
        basis = np.linalg.qr(images)[0]
        products = vectors, images, basis, matrix @ basis
        without = xtrace(*products) if method == "xtrace" else xnystrace(vectors, images)
        independent = leaving_out(without, count).std(ddof=1) / count**0.5
        found.append((*mean_and_error(without, count), independent))
    means, errors, independent = np.transpose(found)
    assert abs(means.mean() - values.sum()) < 4 * means.std() / 200**0.5
    assert 0.8 < np.sqrt(np.mean(errors**2)) / means.std() < 1.25
    if spectrum == "low rank":
        assert np.sqrt(np.mean(independent**2)) / means.std() < 0.8


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
def test_the_error_of_few_vectors_and_of_exact_estimates(method):
    matrix, vectors, images = problem(0.7, rank=3)
    basis = np.linalg.qr(images)[0]
    without = xtrace(vectors, images, basis, matrix @ basis) if method == "xtrace" else xnystrace(vectors, images)
    assert np.isnan(mean_and_error(without, 1)[1])
    assert mean_and_error(without, 2)[1] > 0
    for count in (4, 6):  # of rank + 1 vectors the pairs are not exact, and do not count
        assert mean_and_error(without, count)[1] < 1e-6 * np.trace(matrix)


@pytest.mark.parametrize("method", ["xtrace", "xnystrace"])
def test_of_networks_in_both_precisions(method, x64):
    f, params, x, _ = ntk_cases.make("dense", batch=12)
    params, x = jax.tree.map(lambda leaf: leaf / 4, (params, x))
    exact = float(np.trace(ntk_cases.dense_kernel(f, params, x)))
    for dtype in (jnp.float64, jnp.float32):
        case = f, *jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), (params, x))
        got = ntk.trace(*case, method=method, key=jax.random.key(0), probes=24)
        assert abs(got.value - exact) < max(5 * got.stderr, 1e-5 * exact)
        assert got.cost == 48
        assert got.value.dtype == dtype
    everything = ntk.trace(f, params, x, method=method, key=jax.random.key(0), probes=1000)
    np.testing.assert_allclose(everything.value, exact, rtol=1e-6)


def test_bad_arguments():
    case = ntk_cases.make("dense")[:3]
    for method, least in (("xtrace", 4), ("xnystrace", 2)):
        with pytest.raises(ValueError, match=f"key: expected a random key with method='{method}'"):
            ntk.trace(*case, method=method)
        with pytest.raises(ValueError, match=f"probes: expected at least {least}, got 1"):
            ntk.trace(*case, method=method, key=jax.random.key(0), probes=1)
    assert np.isnan(ntk.trace(case[0], case[1], case[2] * np.nan, method="xtrace", key=jax.random.key(0)).value)
