import jax
import jax.flatten_util
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import proxies


@pytest.fixture(params=["dense", "batch-statistics"])
def case(request, x64):
    return ntk_cases.make(request.param)


def loss(f, params, x, y):
    logits = f(params, x)
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


def layers(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def test_grad_norm_and_snip_by_hand(case):
    f, params, x, y = case
    gradients = layers(jax.grad(lambda p: loss(f, p, x, y))(params))
    expected = sum(np.linalg.norm(g) for g in gradients)
    np.testing.assert_allclose(proxies.grad_norm(f, params, x, y), expected, rtol=1e-10)
    expected = sum(np.abs(p * g).sum() for p, g in zip(layers(params), gradients, strict=True))
    np.testing.assert_allclose(proxies.snip(f, params, x, y), expected, rtol=1e-10)
    expected = sum((p * g).sum() for p, g in zip(layers(params), gradients, strict=True))
    np.testing.assert_allclose(proxies.plain(f, params, x, y), expected, rtol=1e-10)
    expected = sum(np.linalg.norm(p) for p in layers(params))
    np.testing.assert_allclose(proxies.l2_norm(params), expected, rtol=1e-10)


def test_grasp_from_the_dense_hessian(x64):
    f, params, x, y = ntk_cases.make("dense")
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    of_flat = lambda v: loss(f, unravel(v), x, y)  # noqa: E731
    mask = np.concatenate([np.full(leaf.size, leaf.ndim > 1) for leaf in jax.tree.leaves(params)])
    gradient, hessian = np.asarray(jax.grad(of_flat)(flat)), np.asarray(jax.hessian(of_flat)(flat))
    expected = -(np.asarray(flat) * mask) @ hessian @ (gradient * mask)
    np.testing.assert_allclose(proxies.grasp(f, params, x, y), expected, rtol=1e-9)


def test_synflow_of_a_linear_chain_in_closed_form(x64):
    """Every layer of a chain without branches sees the whole flow, so that the sum is layers times R."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(key, (4, 4)) for key in keys]
    chain = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p[0]) @ p[1]) @ p[2]  # noqa: E731
    absolute = [np.abs(p) for p in params]
    flow = (np.ones(4) @ absolute[0] @ absolute[1] @ absolute[2]).sum()
    got = proxies.synflow(chain, params, -5 * jnp.ones((3, 4)))
    np.testing.assert_allclose(got, np.log(3 * flow), rtol=1e-12)


def test_nothing_flows_through_a_network_that_is_zero():
    assert proxies.synflow(lambda p, x: 0 * (x @ p), jnp.ones((3, 2)), jnp.ones((2, 3))) == -np.inf


def test_zico_by_hand(case):
    f, params, x, y = case
    gradients = [layers(jax.grad(lambda p, i=i: loss(f, p, x[i], y[i]))(params)) for i in np.split(np.arange(6), 2)]
    expected = 0
    for first, second in zip(*np.abs(np.array(gradients, dtype=object)), strict=True):
        stacked = np.stack([first, second]).astype(float)
        deviation = stacked.std(axis=0)
        ratios = stacked.mean(axis=0)[deviation > 0] / deviation[deviation > 0]
        expected += np.log(ratios.sum())
    np.testing.assert_allclose(proxies.zico(f, params, x, y), expected, rtol=1e-8)
    with pytest.raises(ValueError, match="splits into 4 parts"):
        proxies.zico(f, params, x, y, batches=4)


def test_layers_out_of_use_add_nothing_to_zico(x64):
    f, params, x, y = ntk_cases.make("dense")
    more = params | {"unused": jnp.ones((3, 3))}
    np.testing.assert_allclose(proxies.zico(f, more, x, y), proxies.zico(f, params, x, y), rtol=1e-12)
    assert proxies.grad_norm(f, more, x, y) == proxies.grad_norm(f, params, x, y)


def test_a_loss_and_inputs_of_another_kind(x64):
    f, params, x, y = ntk_cases.tokens()
    halves = [jax.tree.map(lambda leaf, i=i: leaf[3 * i : 3 * i + 3], (x, y)) for i in range(2)]
    of = lambda x, y: jax.grad(lambda p: jnp.mean(ntk_cases.squared_error(f(p, x), y)))(params)  # noqa: E731
    gradients = layers(of(x, y))
    options = {"loss": ntk_cases.squared_error}
    expected = sum(np.linalg.norm(g) for g in gradients)
    np.testing.assert_allclose(proxies.grad_norm(f, params, x, y, **options), expected, rtol=1e-10)
    expected = sum(np.abs(p * g).sum() for p, g in zip(layers(params), gradients, strict=True))
    np.testing.assert_allclose(proxies.snip(f, params, x, y, **options), expected, rtol=1e-10)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = jax.hessian(lambda v: jnp.mean(ntk_cases.squared_error(f(unravel(v), x), y)))(flat)
    gradient = np.concatenate([g.ravel() for g in gradients])
    expected = -np.asarray(flat) @ np.asarray(hessian) @ gradient
    np.testing.assert_allclose(proxies.grasp(f, params, x, y, **options), expected, rtol=1e-9)
    expected = 0
    for pair in zip(*(layers(of(*half)) for half in halves), strict=True):
        sizes = np.abs(np.stack(pair))
        varying = sizes.std(axis=0) > 0
        expected += np.log(np.sum(sizes.mean(axis=0)[varying] / sizes.std(axis=0)[varying]))
    np.testing.assert_allclose(proxies.zico(f, params, x, y, **options), expected, rtol=1e-8)
    slopes = jax.grad(lambda o: jnp.mean(ntk_cases.squared_error(o, y)))(f(params, x))
    expected = np.sum(np.asarray(f(params, x) * slopes) ** 2) / 12
    scaled = lambda s, x: s * f(params, x)  # noqa: E731
    np.testing.assert_allclose(proxies.fisher(scaled, jnp.ones((6, 3)), x, y, **options), expected, rtol=1e-10)


def test_flow_through_a_network_with_a_mask(x64):
    """Floating inputs become ones, and others stay what they are in the first sample."""
    x = {"values": -5 * jnp.ones((2, 3)), "mask": jnp.array([[True, False, True], [True, True, True]])}
    network = lambda p, x: jnp.where(x["mask"], x["values"], 0) @ p  # noqa: E731
    weights = jnp.array([[1.0, -2], [3, 4], [5, 6]])
    np.testing.assert_allclose(proxies.synflow(network, weights, x), np.log(1 + 2 + 5 + 6), rtol=1e-12)
    with pytest.raises(TypeError, match=r"x: expected at least one floating array, .* got bool, int32"):
        proxies.synflow(*ntk_cases.tokens()[:2], {"ids": jnp.ones((2, 3), jnp.int32), "mask": x["mask"]})


def test_a_gradient_that_is_not_a_number_is_not_hidden(case):
    f, params, x, y = case
    for bad in (jnp.nan, jnp.inf):
        x = x.at[(1,) + (0,) * (x.ndim - 1)].set(bad)
        for score in (proxies.zico, proxies.grad_norm, proxies.snip, proxies.grasp):
            assert np.isnan(score(f, params, x, y))
    params = params | {"second": jnp.full_like(params["second"], jnp.nan)} if "second" in params else params
    if "second" in params:
        assert np.isnan(proxies.synflow(f, params, x))


def test_numbers_of_parts_are_integers():
    with pytest.raises(TypeError, match=r"batches: expected a positive integer, got 2\.0"):
        proxies.zico(*ntk_cases.make("dense"), batches=2.0)
    with pytest.raises(ValueError, match="batches: expected a positive integer, got 0"):
        proxies.zico(*ntk_cases.make("dense"), batches=0)


def test_fisher_from_activations_and_their_gradients(x64):
    key = jax.random.key(0)
    x, y = jax.random.normal(key, (5, 4, 4, 2)), jnp.array([0, 1, 2, 1, 0])
    kernel, head = jax.random.normal(key, (2, 3)), jax.random.normal(key, (3, 3))

    def from_activation(a, scales=1.0):
        return jax.nn.relu(a * scales).mean(axis=(1, 2)) @ head

    activation = x @ kernel
    gradient = jax.grad(lambda a: loss(lambda _, x: from_activation(x), None, a, y))(activation)
    per_channel = np.sum(np.asarray(activation * gradient), axis=(1, 2))
    expected = np.sum(np.mean(per_channel**2, axis=0) / 2)
    got = proxies.fisher(lambda s, x: from_activation(x @ kernel, s), jnp.ones((5, 1, 1, 3)), x, y)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
