import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn

from nasi_jax import nn
from nasi_jax.programs import Execution, conv


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


def test_derivatives_of_batch_norm_are_those_of_flax(x64):
    """The variance is taken around a centre without derivative; it must show in none of the derivatives."""
    x, direction = 3 + jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 2), jnp.float64)
    layer = flax_nn.BatchNorm(use_running_average=False, epsilon=1e-5, use_bias=False, use_scale=False)

    def derivatives(normalised):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(normalised(x))))
        second = jax.grad(lambda x: jnp.vdot(jax.jvp(gradient, (x,), (direction,))[1], direction))
        return gradient(x), jax.jvp(gradient, (x,), (direction,))[1], second(x)

    expected = derivatives(lambda x: layer.init_with_output(jax.random.key(1), x)[0])
    ours = derivatives(lambda x: nn.normalise(x, None, None, nn.Style()))
    for found, value in zip(ours, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-8, atol=1e-10)


def test_batch_norm_of_images_far_from_zero_keeps_its_digits(x64):
    x = 30 + jax.random.normal(jax.random.key(0), (8, 16, 16, 3), jnp.float32)
    wide = x.astype(jnp.float64)
    found, exact = (nn.normalise(images, None, None, nn.Style()) for images in (x, wide))
    np.testing.assert_allclose(exact.std((0, 1, 2)), np.sqrt(wide.var((0, 1, 2)) / (wide.var((0, 1, 2)) + 1e-5)))

    def flax_error(fast: bool) -> float:
        norm = flax_nn.BatchNorm(False, use_fast_variance=fast, use_bias=False, use_scale=False)
        return float(jnp.abs(norm.apply({}, x, mutable=["batch_stats"])[0] - exact).max())

    error = float(jnp.abs(found - exact).max())
    assert error < 2 * flax_error(fast=False)
    assert error < 0.1 * flax_error(fast=True)


def test_constant_input_normalises_to_zero_with_finite_gradient():
    x = jnp.ones((2, 4, 4, 3))
    assert (nn.normalise(x, None, None, nn.Style()) == 0).all()
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(nn.normalise(x, None, None, nn.Style()) ** 2))(x)).all()


@pytest.mark.parametrize(("window", "strides"), [(1, 1), (3, 1), (3, 2), (1, 2)])
def test_conv_pads_as_flax_does_with_explicit_padding(window, strides, x64):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3), jnp.float64)
    kernel = jax.random.normal(jax.random.key(1), (window, window, 3, 4), jnp.float64)
    layer = flax_nn.Conv(4, (window, window), (strides, strides), padding=window // 2, use_bias=False)
    np.testing.assert_allclose(
        conv(x, kernel, strides), layer.apply({"params": {"kernel": kernel}}, x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("affine", [False, True])
def test_branches_that_share_an_input_compute_as_each_alone(affine, x64):
    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 4), jnp.float64)

    def weights(key, window, features):
        kernel = jax.random.normal(key, (window, window, 4, features), jnp.float64)
        if not affine:
            return nn.ConvNormWeights(kernel, None, None, None)
        return nn.ConvNormWeights(kernel, None, jnp.linspace(1.0, 2.0, features), jnp.linspace(-1.0, 1.0, features))

    keys = jax.random.split(jax.random.key(1), 4)
    branches = [weights(key, window, 2 + i) for i, (key, window) in enumerate(zip(keys, (3, 1, 1, 3), strict=True))]
    module, style = flax_nn.Dense(1).bind({}), nn.Style()
    joint = nn.relu_conv_norm(module, "n", x, branches, style)
    for together, branch in zip(joint, branches, strict=True):
        np.testing.assert_allclose(
            together, nn.relu_conv_norm(module, "n", x, [branch], style)[0], rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("affine", [False, True])
def test_a_factor_of_the_output_may_go_into_normalisation(affine, x64):
    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 4), jnp.float64)
    layer = nn.ReLUConvNorm(5, style=nn.Style(affine=affine))
    params = layer.init(jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)

    def inside(factor, x):
        return jnp.sum(jnp.sin(layer.apply(params, x, factor)))

    def outside(factor, x):
        return jnp.sum(jnp.sin(factor * layer.apply(params, x)))

    for derivative in (lambda f: f, lambda f: jax.grad(f, (0, 1)), lambda f: jax.hessian(f)):
        found, expected = (derivative(f)(jnp.array(0.7), x) for f in (inside, outside))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


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


@pytest.mark.parametrize(("window", "strides", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_a_separable_convolution_is_a_dense_one(window, strides, dilation, x64):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4), jnp.float64)
    layers = [
        nn.ReLUConvNorm(6, window, strides, dilation=dilation, separable=True, execution=Execution(fused=fused))
        for fused in (True, False)
    ]
    params = layers[0].init(jax.random.key(1), x)
    assert params["params"]["depthwise"].shape == (window, window, 1, 4)
    fused, apart = (layer.apply(params, x) for layer in layers)
    assert fused.shape == (2, 8 // strides, 8 // strides, 6)
    np.testing.assert_allclose(fused, apart, rtol=1e-10, atol=1e-10)


def test_separable_branches_together_compute_as_each_alone(x64):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4), jnp.float64)
    module, layer = flax_nn.Dense(1).bind({}), nn.ReLUConvNorm(3, 3, separable=True)
    branches = [
        nn.ConvNormWeights(**layer.init(jax.random.key(i), x)["params"])  # names of parameters are those of fields
        for i in range(3)
    ]
    for fused in (True, False):
        joint = nn.relu_conv_norm(module, "n", x, branches, nn.Style(), Execution(fused=fused))
        for together, branch in zip(joint, branches, strict=True):
            alone = nn.relu_conv_norm(module, "n", x, [branch], nn.Style(), Execution(blocks=True))[0]
            np.testing.assert_allclose(together, alone, rtol=1e-10, atol=1e-12)


def test_a_factorised_reduction_reads_both_grids():
    layer = nn.FactorizedReduction(4)
    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0].set(1.0).at[0, 1, 1].set(2.0)
    params = layer.init(jax.random.key(0), x)
    raw = nn.FactorizedReduction(4, nn.Style(affine=False, normalisation="fixed"))
    y = raw.apply({"params": {k: v for k, v in params["params"].items() if k != "norm"}}, x)[0]
    assert y.shape == (2, 2, 4)
    assert (y[0, 0] != 0).all()
    assert (y[1, 1] == 0).all()
    np.testing.assert_allclose(y[0, 0, 2:] / params["params"]["conv_1"]["kernel"][0, 0, 0], 2.0, rtol=1e-4)


def test_running_statistics_move_towards_the_batches(x64):
    """As PyTorch's do: a tenth of the way to the mean and the unbiased variance, from 0 and 1."""
    batches = 3 + 2 * np.random.default_rng(0).standard_normal((4, 5, 6, 7, 3))
    layer, statistics, mean, variance = nn.BatchNorm(nn.Style(affine=False)), {}, np.zeros(3), np.ones(3)
    for batch in batches:
        y, statistics = layer.apply(statistics, jnp.asarray(batch), mutable=[nn.RUNNING_STATISTICS])
        np.testing.assert_allclose(y, layer.apply({}, jnp.asarray(batch)), rtol=1e-12)
        mean += 0.1 * (batch.mean((0, 1, 2)) - mean)
        variance += 0.1 * (batch.var((0, 1, 2), ddof=1) - variance)
    found = jax.tree.leaves(statistics)
    np.testing.assert_allclose(found[0], mean, rtol=1e-12)
    np.testing.assert_allclose(found[1], variance, rtol=1e-12)
    with jax.numpy_rank_promotion("allow"):
        expected = (batches[0] - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer.apply(statistics, jnp.asarray(batches[0])), expected, rtol=1e-10)
