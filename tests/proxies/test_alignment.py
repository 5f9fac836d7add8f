import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import proxies

RNG = np.random.default_rng(0)


def by_definition(features, inputs):
    n = len(features)
    h = np.eye(n) - np.full((n, n), 1 / n)
    k, m = (h @ v.reshape(n, -1) @ v.reshape(n, -1).T @ h for v in (features, inputs))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 2, 3), (7, 40)])
def test_alignment_is_that_of_centred_kernels(shape, x64):
    features, inputs = RNG.normal(size=shape), RNG.normal(size=(7, 4))
    np.testing.assert_allclose(proxies.alignment(features, inputs), by_definition(features, inputs), rtol=1e-12)


def test_rotation_scale_and_shift_leave_all_of_it_and_large_values_do_not_overflow():
    inputs = RNG.normal(size=(9, 4)).astype(np.float32)
    turned = inputs @ np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    for features in (inputs, 1e15 * turned + 3e15, 1e-15 * turned):
        assert float(proxies.alignment(jnp.asarray(features), jnp.asarray(inputs))) == pytest.approx(1, abs=1e-4)


def test_features_that_are_all_alike_have_none():
    assert float(proxies.alignment(jnp.ones((5, 2)), jnp.arange(10.0).reshape(5, 2))) == 0
