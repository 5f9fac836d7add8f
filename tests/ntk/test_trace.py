import importlib

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import ntk


def independent(p, x):
    return jnp.tanh(x @ p["first"]) @ p["second"]


def coupled(p, x):
    return jax.nn.relu(jax.nn.standardize(x @ p["first"], axis=0, epsilon=1e-5)) @ p["second"]


def problem(width=9, outputs=4, batch=6):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "first": jax.random.normal(keys[0], (5, width), jnp.float64),
        "second": jax.random.normal(keys[1], (width, outputs), jnp.float64),
    }
    return params, jax.random.normal(keys[2], (batch, 5), jnp.float64)


def dense_trace(f, params, x):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return float(jnp.sum(jax.jacrev(lambda p: f(unravel(p), x))(flat) ** 2))


@pytest.mark.parametrize("f", [independent, coupled])
@pytest.mark.parametrize("chunk", [1, 5, 24, 1000])
def test_exact_in_any_chunks_equals_the_dense_jacobian(f, chunk, x64):
    params, x = problem()
    got = ntk.trace(f, params, x, chunk=chunk)
    np.testing.assert_allclose(got.value, dense_trace(f, params, x), rtol=1e-10)
    assert (float(got.stderr), got.cost) == (0.0, 24)


@pytest.mark.parametrize("f", [independent, coupled])
def test_by_neural_tangents(f, x64):
    params, x = problem()
    got = ntk.trace(f, params, x, method="neural-tangents")
    np.testing.assert_allclose(got.value, dense_trace(f, params, x), rtol=1e-10)


def test_float32_agrees_to_single_precision(x64):
    params, x = problem()
    exact = dense_trace(coupled, params, x)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    got = ntk.trace(coupled, single, x.astype(jnp.float32))
    assert got.value.dtype == jnp.float32
    np.testing.assert_allclose(got.value, exact, rtol=1e-4)


def test_hutchinson_is_unbiased_and_knows_its_error(x64):
    """Over 300 keys: mean within 4 standard errors, reported standard error within 20% of the empirical one."""
    params, x = problem()
    exact = dense_trace(coupled, params, x)
    estimates = [
        ntk.trace(coupled, params, x, method="hutchinson", key=jax.random.key(i), probes=16) for i in range(300)
    ]
    values = np.array([float(e.value) for e in estimates])
    reported = np.sqrt(np.mean([float(e.stderr) ** 2 for e in estimates]))
    assert abs(values.mean() - exact) < 4 * values.std(ddof=1) / np.sqrt(len(values))
    assert abs(reported / values.std(ddof=1) - 1) < 0.2
    assert {e.cost for e in estimates} == {16}


def test_probes_are_added_until_the_tolerance_is_met(x64):
    params, x = problem()
    options = {"method": "hutchinson", "key": jax.random.key(1), "probes": 4000}
    loose = ntk.trace(independent, params, x, tolerance=0.2, **options)
    tight = ntk.trace(independent, params, x, tolerance=0.02, **options)
    assert loose.stderr <= 0.2 * loose.value
    assert tight.stderr <= 0.02 * tight.value
    assert 4 <= loose.cost < tight.cost < 4000
    bounded = ntk.trace(independent, params, x, tolerance=1e-9, **(options | {"probes": 6}))
    assert bounded.cost == 6
    assert bounded.stderr > 1e-9 * bounded.value


def test_a_single_probe_cannot_tell_its_error(x64):
    params, x = problem()
    assert np.isnan(ntk.trace(independent, params, x, method="hutchinson", key=jax.random.key(0), probes=1).stderr)


def test_constant_network_has_trace_zero_and_a_bad_one_is_not_hidden():
    params, x = {"w": jnp.ones((3, 2))}, jnp.ones((4, 3))
    assert ntk.trace(lambda p, x: 0 * (x @ p["w"]), params, x).value == 0
    assert np.isnan(ntk.trace(lambda p, x: x @ p["w"], params, x.at[0, 0].set(jnp.nan)).value)
    assert not np.isfinite(ntk.trace(lambda p, x: jnp.exp(50 * x @ p["w"]), params, x).value)


def test_memory_is_bounded_by_the_chunk_and_not_by_the_outputs():
    """Temporary memory of the compiled chunk, from XLA's own analysis."""

    def temporary(outputs, chunk):
        params = {"first": jnp.ones((50, 400)), "second": jnp.ones((400, outputs))}
        x = jnp.ones((32, 50))
        compiled = (
            importlib.import_module("nasi_jax.ntk.trace")._basis_chunk.lower(independent, params, x, 0, chunk).compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(10, 2) < temporary(10, 32) / 4
    rows = 32 * 10
    jacobian_bytes = rows * (50 * 400 + 400 * 10) * 4
    assert temporary(10, 2) < jacobian_bytes / 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "method: expected"),
        ({"method": "hutchinson"}, "key: expected"),
        ({"probes": 0}, "probes: expected"),
        ({"chunk": 0}, "chunk: expected"),
        ({"tolerance": -0.1}, "tolerance: expected"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ntk.trace(independent, {"w": jnp.ones(2)}, jnp.ones((4, 3)), **options)
