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
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-5)


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
        nn.conv(x, kernel, strides), layer.apply({"params": {"kernel": kernel}}, x), rtol=1e-10, atol=1e-12
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


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("strides", [1, 2])
def test_pools_are_those_of_pytorch(kind, strides):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype(np.float32)
    options = {} if kind == "max" else {"count_include_pad": False}
    pool = torch.nn.MaxPool2d if kind == "max" else torch.nn.AvgPool2d
    expected = pool(3, strides, 1, **options)(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    found = (nn.max_pool if kind == "max" else nn.average_pool)(jnp.asarray(x), 3, strides)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "size"), [(3, 1, 6), (3, 2, 7), (2, 2, 6), (5, 1, 6)])
def test_the_first_of_equal_pixels_has_the_gradient_of_the_maximum(window, strides, size):
    """As where XLA selects and scatters; of pixels of which many are equal."""
    x = jax.random.randint(jax.random.key(0), (3, size, size, 2), 0, 3).astype(jnp.float32)
    pad = (window - 1) // 2

    def oracle(x):
        padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, strides, strides, 1), padding
        )

    (found, pullback), (expected, expected_pullback) = (
        jax.vjp(f, x) for f in (lambda x: nn.max_pool(x, window, strides), oracle)
    )
    np.testing.assert_array_equal(found, expected)
    cotangent = jax.random.normal(jax.random.key(1), found.shape)
    np.testing.assert_allclose(pullback(cotangent)[0], expected_pullback(cotangent)[0], rtol=1e-5, atol=1e-6)
    assert jnp.isnan(nn.max_pool(x.at[1].set(jnp.nan), window, strides)[1]).all()


def test_maximum_is_that_of_the_window_without_padding():
    x = -jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(nn.max_pool(x, 3, 2)[0, :, :, 0], [[-1, -2], [-5, -6]])


@pytest.mark.parametrize(("window", "strides", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_a_separable_convolution_is_a_dense_one(window, strides, dilation, x64):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4), jnp.float64)
    layers = [nn.ReLUConvNorm(6, window, strides, nn.Style(fused=fused), dilation, True) for fused in (True, False)]
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
        style = nn.Style(fused=fused)
        joint = nn.relu_conv_norm(module, "n", x, branches, style)
        for together, branch in zip(joint, branches, strict=True):
            alone = nn.relu_conv_norm(module, "n", x, [branch], style._replace(blocks=True))[0]
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
