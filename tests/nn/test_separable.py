"""Separable convolution of tokens, against Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax.nn.separable import SeparableConv

MASK = jnp.arange(9)[None] < jnp.array([[9], [5], [1]])
STATES = np.random.default_rng(0).normal(size=(3, 9, 6))


@pytest.mark.parametrize("window", [3, 5, 7])
def test_it_is_flaxs_depthwise_and_dense_layers(window, x64):
    x = jnp.asarray(STATES)
    module = SeparableConv(window)
    params = jax.tree.map(lambda leaf: leaf + 0.1, module.init(jax.random.key(0), x, MASK)["params"])
    depthwise = flax_nn.Conv(6, (window,), padding="SAME", feature_group_count=6)
    y = depthwise.apply(
        {"params": {"kernel": params["depthwise"][:, None], "bias": params["bias"]}}, x * MASK[..., None]
    )
    y = flax_nn.gelu(flax_nn.Dense(6).apply({"params": params["pointwise"]}, y), approximate=False)
    np.testing.assert_allclose(module.apply({"params": params}, x, MASK), y, rtol=1e-9, atol=1e-9)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6 * window + 6 + 6 * 6 + 6


def test_padding_changes_nothing_at_other_places(x64):
    x = jnp.asarray(STATES)
    other = jnp.where(MASK[..., None], x, 99.0)
    module = SeparableConv(5)
    params = module.init(jax.random.key(0), x, MASK)
    found, expected = (np.asarray(module.apply(params, states, MASK)) for states in (other, x))
    np.testing.assert_array_equal(found[MASK], expected[MASK])
