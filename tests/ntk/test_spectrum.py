import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest
import scipy.stats

from nasi_jax import ntk


@pytest.mark.parametrize("form", [pytest.param("traced", marks=pytest.mark.slow), "summed", "full"])
def test_of_a_network_by_numpy(form, x64):
    f, params, x, _ = ntk_cases.make("batch-statistics")
    kernel = ntk.kernel(f, params, x, form=form)
    rows = ntk_cases.jacobian(f, params, x)
    rows = rows.sum(axis=1) if form == "summed" else rows.reshape(18, -1)
    dense = rows @ rows.T
    if form == "traced":
        dense = np.einsum("ikjk->ij", dense.reshape(6, 3, 6, 3))
    values = np.linalg.eigvalsh(dense)[::-1]
    got = jax.jit(ntk.spectrum)(kernel)
    np.testing.assert_allclose(got.eigenvalues, values, rtol=1e-8, atol=1e-10 * values[0])
    np.testing.assert_allclose(got.trace, values.sum(), rtol=1e-10)
    np.testing.assert_allclose(got.participation_ratio, values.sum() ** 2 / np.sum(values**2), rtol=1e-10)
    np.testing.assert_allclose(got.effective_rank, np.exp(scipy.stats.entropy(np.maximum(values, 0))), rtol=1e-8)
    if values[-1] > 1e-6 * values[0]:
        np.testing.assert_allclose(got.condition_number, values[0] / values[-1], rtol=1e-6)


def test_in_closed_form(x64):
    """Identity and all ones: every direction the same, and one alone."""
    even = ntk.spectrum(2 * jnp.eye(4))
    np.testing.assert_allclose([*even[1:]], [8, 1, 4, 4])
    single = ntk.spectrum(jnp.full((4, 4), 3.0) + 1e-9 * jnp.eye(4))
    np.testing.assert_allclose(single.eigenvalues, [12, 1e-9, 1e-9, 1e-9], atol=1e-8)
    np.testing.assert_allclose([single.effective_rank, single.participation_ratio], 1, rtol=1e-6)
    assert single.condition_number > 1e9


@pytest.mark.parametrize(
    "dtype",
    [jnp.bfloat16, jnp.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (jnp.float16, jnp.float64))],
)
def test_a_sample_that_is_there_twice_makes_the_kernel_singular(dtype, x64):
    f, params, x, _ = ntk_cases.make("dense")
    params, twice = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x.at[3].set(x[1])))
    for form in ("traced", "summed", "full"):
        assert ntk.spectrum(ntk.kernel(f, params, twice, form=form)).condition_number == np.inf
    different = ntk.spectrum(ntk.kernel(f, params, x.astype(dtype))).condition_number
    assert different < 100 * np.linalg.cond(ntk.kernel(f, *ntk_cases.make("dense")[1:3]))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
def test_of_kernels_in_half_precision_and_of_integers(dtype, x64):
    kernel = jnp.array([[4, 2, 0], [2, 8, 1], [0, 1, 2]], dtype)
    got, values = ntk.spectrum(kernel), np.linalg.eigvalsh(np.asarray(kernel, float))[::-1]
    assert {leaf.dtype for leaf in got} == {jnp.dtype("float32")}
    np.testing.assert_allclose(got.eigenvalues, values, rtol=1e-6)
    np.testing.assert_allclose(got.condition_number, values[0] / values[-1], rtol=1e-6)


def test_singular_zero_and_bad_kernels():
    assert ntk.spectrum(jnp.diag(jnp.array([1.0, 0.0]))).condition_number == np.inf
    zero = ntk.spectrum(jnp.zeros((3, 3)))
    assert zero.trace == 0
    assert np.isnan(zero.effective_rank)
    assert np.isnan(ntk.spectrum(jnp.full((3, 3), jnp.nan)).condition_number)
    for shape in ((3,), (3, 2), (0, 0), (3, 3, 2), (3, 3, 2, 1)):
        with pytest.raises(ValueError, match="kernel: expected shape"):
            ntk.spectrum(jnp.zeros(shape))


@pytest.mark.parametrize("name", ntk_cases.slow_but(ntk_cases.QUICK))
def test_the_largest_eigenvalue_without_a_kernel(name, x64):
    case = ntk_cases.make(name)[:3]
    values = np.linalg.eigvalsh(ntk_cases.dense_kernel(*case))
    got = ntk.largest_eigenvalue(*case, key=jax.random.key(0), tolerance=1e-8)
    np.testing.assert_allclose(got, values[-1], rtol=1e-7)
    assert ntk.largest_eigenvalue(*case, key=jax.random.key(0)) == pytest.approx(values[-1], rel=1e-3)


def test_the_largest_eigenvalue_of_small_constant_and_bad_networks():
    linear, key = lambda p, x: x @ p, jax.random.key(0)
    assert ntk.largest_eigenvalue(linear, jnp.ones((2, 1)), jnp.full((1, 2), 3.0), key=key) == pytest.approx(18)
    assert ntk.largest_eigenvalue(linear, jnp.ones((2, 1)), jnp.eye(2), key=key) == pytest.approx(1)
    assert ntk.largest_eigenvalue(lambda p, x: 0 * (x @ p), jnp.ones((2, 2)), jnp.eye(2), key=key) == 0
    assert np.isnan(ntk.largest_eigenvalue(linear, jnp.ones((2, 2)), jnp.full((3, 2), jnp.nan), key=key))
    with pytest.raises(ValueError, match="tolerance: expected"):
        ntk.largest_eigenvalue(linear, jnp.ones((2, 1)), jnp.eye(2), key=key, tolerance=0)
