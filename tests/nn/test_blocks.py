import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax import nn


@pytest.mark.parametrize(
    ("size", "window", "strides"), [((5, 7), 3, 1), ((8, 8), 3, 2), ((8, 6), 2, 2), ((9, 9), 5, 1)]
)
def test_average_pool_does_not_count_padding(size, window, strides, x64):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3), jnp.float64)
    pad = (window - 1) // 2
    expected = flax_nn.avg_pool(
        x, (window, window), (strides, strides), ((pad, pad), (pad, pad)), count_include_pad=False
    )
    np.testing.assert_allclose(nn.average_pool(x, window, strides), expected, rtol=1e-12)


def test_batch_norm_is_flax_batch_norm(x64):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 6, 3), jnp.float64)
    reference = flax_nn.BatchNorm(use_running_average=False, epsilon=1e-5, param_dtype=jnp.float64)
    expected, variables = reference.init_with_output(jax.random.key(1), x)
    ours, own_variables = nn.BatchNorm().init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    assert jax.tree.structure(own_variables["params"]) == jax.tree.structure(variables["params"])


def test_fixed_statistics_are_those_of_flax_at_initialisation(x64):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 6, 3), jnp.float64)
    reference = flax_nn.BatchNorm(use_running_average=True, epsilon=1e-5, param_dtype=jnp.float64)
    expected, _ = reference.init_with_output(jax.random.key(1), x)
    ours, _ = nn.BatchNorm(nn.Style(normalisation="fixed")).init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)  # the running statistics of Flax are float32


def test_constant_input_normalises_to_zero_with_finite_gradient():
    x = jnp.ones((2, 4, 4, 3))
    assert (nn.normalise(x, nn.Style()) == 0).all()
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(nn.normalise(x, nn.Style()) ** 2))(x)).all()


@pytest.mark.parametrize(("window", "strides"), [(1, 1), (3, 1), (3, 2), (1, 2)])
def test_conv_pads_as_flax_does_with_explicit_padding(window, strides, x64):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3), jnp.float64)
    kernel = jax.random.normal(jax.random.key(1), (window, window, 3, 4), jnp.float64)
    layer = flax_nn.Conv(4, (window, window), (strides, strides), padding=window // 2, use_bias=False)
    np.testing.assert_allclose(
        nn.conv(x, kernel, strides), layer.apply({"params": {"kernel": kernel}}, x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("affine", [False, True])
def test_branches_that_share_an_input_compute_as_each_alone(affine, x64):
    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 4), jnp.float64)

    def weights(key, window, features):
        kernel = jax.random.normal(key, (window, window, 4, features), jnp.float64)
        if not affine:
            return nn.ConvNormWeights(kernel, None, None)
        return nn.ConvNormWeights(kernel, jnp.linspace(1.0, 2.0, features), jnp.linspace(-1.0, 1.0, features))

    keys = jax.random.split(jax.random.key(1), 4)
    branches = [weights(key, window, 2 + i) for i, (key, window) in enumerate(zip(keys, (3, 1, 1, 3), strict=True))]
    module, style = flax_nn.Dense(1).bind({}), nn.Style()
    for together, branch in zip(nn.relu_conv_norm(module, "n", x, branches, style), branches, strict=True):
        np.testing.assert_allclose(
            together, nn.relu_conv_norm(module, "n", x, [branch], style)[0], rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_weights_have_the_variance_they_say(gain):
    layers = {p: nn.Conv(64, 3, gain, nn.Style(parameterisation=p)) for p in nn.PARAMETERISATIONS}
    x = jnp.zeros((1, 4, 4, 64))
    kernels = {p: layer.init(jax.random.key(0), x)["params"]["kernel"] for p, layer in layers.items()}
    np.testing.assert_allclose(jnp.var(kernels["standard"]) * 9 * 64, gain, rtol=0.03)
    np.testing.assert_allclose(jnp.var(kernels["ntk"]), 1, rtol=0.03)
    np.testing.assert_allclose(kernels["ntk"] * (gain / (9 * 64)) ** 0.5, kernels["standard"], rtol=1e-6)


def test_residual_reduction_halves_the_image():
    y, variables = nn.ResidualReduction(8).init_with_output(jax.random.key(0), jnp.ones((2, 8, 12, 4)))
    assert y.shape == (2, 4, 6, 8)
    assert set(variables["params"]) == {"conv_a", "conv_b", "shortcut"}
