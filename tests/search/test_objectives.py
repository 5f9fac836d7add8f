import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.nn import Style

SLOW = pytest.param((spaces.get("nasbench201"), "ntk"), marks=pytest.mark.slow, id="nasbench201-ntk")
SLOW_STANDARD = pytest.param((spaces.get("nasbench201"), "standard"), marks=pytest.mark.slow, id="nasbench201")


@pytest.fixture(scope="module", params=[pytest.param((ToySpace(), "standard"), id="toy"), SLOW, SLOW_STANDARD])
def case(request):
    space, parameterisation = request.param
    with jax.enable_x64(True):
        module = space.network(None, space.Size(2, 1), 3, Style(False, parameterisation))
        keys = jax.random.split(jax.random.key(0), 4)
        x = jax.random.normal(keys[0], (4, 8, 8, 3), jnp.float64)
        weights = {"cell": jax.nn.softmax(jax.random.normal(keys[1], (6, 5), jnp.float64))}
        params = jax.jit(module.init)(keys[2], x, weights)["params"]

        def network(p, w, x):
            return module.apply({"params": p}, x, w)

        batch = data.Batch(x, jnp.array([0, 2, 1, 1]))
        yield network, params, weights, search.Sample(batch, data.cross_entropy, keys[3])


@pytest.mark.parametrize("objective", search.OBJECTIVES)
def test_forward_over_reverse_equals_reverse_over_reverse(case, objective):
    network, params, weights, sample = case
    with jax.enable_x64(True):

        def value(w):
            return search.measure(objective, network, params, w, sample)

        expected = jax.jit(jax.jacrev(value))(weights)
        measured, gradient = jax.jit(lambda w: search.measure_with_gradient(objective, network, params, w, sample))(
            weights
        )
        for got, want in zip(measured, jax.jit(value)(weights), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10)
        for field in search.Measurement._fields:
            want = getattr(expected, field)["cell"]
            scale = np.abs(want).max()
            np.testing.assert_allclose(getattr(gradient, field)["cell"] / scale, want / scale, atol=1e-9)


def test_one_batch_gradient_by_finite_differences(case):
    network, params, weights, sample = case
    with jax.enable_x64(True):
        value = jax.jit(lambda w: search.measure("one-batch", network, params, w, sample).value)
        _, gradient = search.measure_with_gradient("one-batch", network, params, weights, sample)
        step = 1e-5
        for row, column in ((0, 3), (3, 1), (5, 4), (2, 0)):
            above = {"cell": weights["cell"].at[row, column].add(step)}
            below = {"cell": weights["cell"].at[row, column].add(-step)}
            slope = (value(above) - value(below)) / (2 * step)
            np.testing.assert_allclose(gradient.value["cell"][row, column], slope, rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradient_of_the_whole_batch(case):
    """Written out for two halves, each with batch statistics of its own, and differentiated in reverse twice."""
    network, params, weights, sample = case
    with jax.enable_x64(True):
        x, y = sample.batch

        def loss(p, w):
            logits = jnp.concatenate([network(p, w, x[:2]), network(p, w, x[2:])])
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), y])

        def value(w):
            return sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(params, w)))

        expected = jax.jit(jax.grad(value))(weights)["cell"]
        measured, gradient = search.measure_with_gradient("one-batch", network, params, weights, sample, 2)
        np.testing.assert_allclose(measured.value, value(weights), rtol=1e-10)
        alone = search.measure("one-batch", network, params, weights, sample, 2)
        np.testing.assert_allclose(alone.value, measured.value, rtol=1e-10)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient.value["cell"] / scale, expected / scale, atol=1e-9)
        whole = search.measure("one-batch", network, params, weights, sample)
        assert abs(float(whole.value / measured.value) - 1) > 1e-3  # statistics of four samples are other ones
