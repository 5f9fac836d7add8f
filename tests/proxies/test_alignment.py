import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import proxies

RNG = np.random.default_rng(0)


def by_definition(features, inputs):
    n = len(features)
    h = np.eye(n) - np.full((n, n), 1 / n)
    rows = features.reshape(n, -1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    k, m = (h @ v.reshape(n, -1) @ v.reshape(n, -1).T @ h for v in (rows, inputs))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 2, 3), (7, 40)])
def test_alignment_is_that_of_centred_kernels(shape, x64):
    features, inputs = RNG.normal(size=shape), RNG.normal(size=(7, 4))
    np.testing.assert_allclose(proxies.alignment(features, inputs), by_definition(features, inputs), rtol=1e-12)


def test_rotations_and_lengths_leave_all_of_it_and_large_values_do_not_overflow():
    directions = RNG.normal(size=(9, 4))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    turned = directions @ np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    for scale in (1.0, 1e30, 1e-30, np.arange(1, 10, dtype=np.float32)[:, None]):
        features, inputs = jnp.asarray(scale * turned, jnp.float32), jnp.asarray(3e15 * directions + 1e15)
        assert float(proxies.alignment(features, inputs)) == pytest.approx(1, abs=1e-4)


def test_features_that_are_all_alike_or_zero_have_none():
    inputs = jnp.arange(10.0).reshape(5, 2)
    for features in (jnp.ones((5, 2)), jnp.zeros((5, 2))):
        assert float(proxies.alignment(features, inputs)) == pytest.approx(0, abs=1e-6)
