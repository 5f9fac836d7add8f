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
