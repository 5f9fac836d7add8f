"""Predicted trainings, beside those that are predicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from nasi_jax import ntk

CLASSES = 3


def network(p, x):
    return jnp.tanh(x @ p["w"] / 2) @ p["v"] / p["v"].shape[0] ** 0.5


def problem(width, samples=5, outputs=CLASSES, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    params = {"w": jax.random.normal(keys[0], (4, width)), "v": jax.random.normal(keys[1], (width, outputs))}
    x, z = jax.random.normal(keys[2], (samples, 4)), jax.random.normal(keys[3], (2, 4))
    return params, x, z, jax.random.normal(keys[4], (samples, outputs))


def kernels(params, x, z):
    full = lambda x1, x2=None: ntk.kernel(network, params, x1, x2, form="full", batch_statistics=False)  # noqa: E731
    return full(x), full(z, x)


def train(apply_fn, params, loss, rate, steps):
    descend = lambda _, p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p))  # noqa: E731
    return jax.jit(lambda p: jax.lax.fori_loop(0, steps, descend, p))(params)


def mse(apply_fn, x, y):
    return lambda p: jnp.sum((apply_fn(p, x) - y) ** 2) / (2 * len(x))


def cross_entropy(apply_fn, x, y):
    return lambda p: jnp.mean(ntk.cross_entropy(apply_fn(p, x), y))


def test_the_linearised_network_touches_the_network(x64):
    params, x, _, _ = problem(6)
    linear = ntk.linearize(network, params)
    np.testing.assert_allclose(linear(params, x), network(params, x), rtol=1e-12)
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=float)).reshape(leaf.shape), params)
    near = [jax.tree.map(lambda a, d, h=h: a + h * d, params, direction) for h in (1e-2, 1e-3)]
    away = [np.abs(network(p, x) - linear(p, x)).max() for p in near]
    assert away[1] < away[0] / 50
    moved = ntk.kernel(linear, near[0], x, batch_statistics=False)
    np.testing.assert_allclose(moved, ntk.kernel(network, params, x, batch_statistics=False), rtol=1e-10)


def test_linearising_what_is_no_plain_array(x64):
    """Several outputs, complex parameters, a derivative of its own, and leaves that are no parameters."""

    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))

    def heads(p, x):
        return {"a": square(x @ p["w"]), "b": jnp.abs(x @ p["c"])[:, 0] * p["count"] * p["scale"]}

    x = jnp.arange(6.0).reshape(2, 3) + 1
    params = {"w": jnp.ones((3, 2)), "c": jnp.ones((3, 1)) * (1 + 2j), "count": 2, "scale": 1.0}
    new = params | {"w": params["w"] * 1.1, "c": params["c"] * 1.5}
    got, outputs = ntk.linearize(heads, params)(new, x), heads(params, x)
    np.testing.assert_allclose(got["a"], outputs["a"] * 1.2, rtol=1e-12)
    np.testing.assert_allclose(got["b"], outputs["b"] * 1.5, rtol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_gradient_descent_of_the_linearised_network_is_predicted_to_rounding(loss, x64):
    params, x, z, y = problem(8)
    linear, target = ntk.linearize(network, params), y if loss == "mse" else jnp.arange(5) % CLASSES
    kernel, cross = kernels(params, x, z)
    options = {"test_kernel": cross, "test_outputs": network(params, z), "rate": 0.3, "loss": loss}
    got = ntk.predict(kernel, target, network(params, x), times=[0, 7, 40], **options)
    made = {"mse": mse, "cross-entropy": cross_entropy}[loss](linear, x, target)
    for i, steps in enumerate((0, 7, 40)):
        trained = train(linear, params, made, 0.3, steps)
        np.testing.assert_allclose(got.outputs[i], linear(trained, x), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(got.test_outputs[i], linear(trained, z), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_gradient_flow_is_the_limit_of_small_steps(loss, x64):
    params, x, z, y = problem(8)
    target = y if loss == "mse" else jnp.arange(5) % CLASSES
    kernel, cross = kernels(params, x, z)
    options = {"test_kernel": cross, "test_outputs": network(params, z), "loss": loss, "ridge": 0.2}
    flow = ntk.predict(kernel, target, network(params, x), times=3.0, **options)
    apart = []
    for steps in (100, 200):
        got = ntk.predict(kernel, target, network(params, x), times=steps, rate=3.0 / steps, **options)
        apart.append(np.abs(got.test_outputs - flow.test_outputs).max())
    assert apart[1] < 0.6 * apart[0]
    assert apart[1] < 0.05 * np.abs(flow.test_outputs - network(params, z)).max()


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_the_wider_a_network_the_better_its_training_is_predicted(loss, x64):
    apart = []
    for width in (32, 2048):
        params, x, z, y = problem(width)
        target = y if loss == "mse" else jnp.arange(5) % CLASSES
        kernel, cross = kernels(params, x, z)
        options = {"test_kernel": cross, "test_outputs": network(params, z), "loss": loss}
        got = ntk.predict(kernel, target, network(params, x), times=100, rate=0.5, **options)
        made = {"mse": mse, "cross-entropy": cross_entropy}[loss](network, x, target)
        trained = train(network, params, made, 0.5, 100)
        change = np.abs(network(trained, z) - network(params, z)).max()
        apart.append(np.abs(got.test_outputs - network(trained, z)).max() / change)
    assert apart[1] < 0.05
    assert apart[1] < apart[0] / 4


def test_the_end_of_training_is_kernel_regression(x64):
    params, x, z, y = problem(8)
    kernel, cross = kernels(params, x, z)
    square, beside = (np.transpose(k, (0, 2, 1, 3)).reshape(len(k) * 3, 15) for k in (kernel, cross))
    for ridge in (0.0, 0.5):
        got = ntk.predict(kernel, y, test_kernel=cross, ridge=ridge)
        coefficients = scipy.linalg.solve(square + ridge * np.eye(15), np.ravel(y))
        np.testing.assert_allclose(np.ravel(got.test_outputs), beside @ coefficients, rtol=1e-8)
        np.testing.assert_allclose(np.ravel(got.outputs), square @ coefficients, rtol=1e-8)
    late = ntk.predict(kernel, y, test_kernel=cross, times=1e9)
    np.testing.assert_allclose(late.test_outputs, ntk.predict(kernel, y, test_kernel=cross).test_outputs, rtol=1e-6)


def test_a_kernel_of_one_output_serves_all(x64):
    """A kernel (n, n) is the full one of outputs alike and apart."""
    params, x, z, y = problem(8)
    one = lambda a, b=None: ntk.kernel(network, params, a, b) / CLASSES  # noqa: E731
    full = lambda kernel: jnp.einsum("ij,kl->ijkl", kernel, jnp.eye(CLASSES))  # noqa: E731
    for loss, target in (("mse", y), ("cross-entropy", jnp.arange(5) % CLASSES)):
        options = {"times": [1.0, 4.0], "loss": loss, "ridge": 0.1}
        got = ntk.predict(one(x), target, y, test_kernel=one(z, x), **options)
        expected = ntk.predict(full(one(x)), target, y, test_kernel=full(one(z, x)), **options)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    got = ntk.predict(one(x), y[:, 0], test_kernel=one(z, x), times=2.0)
    assert (got.outputs.shape, got.test_outputs.shape, got.coefficients.shape) == ((5,), (2,), (5,))


def test_directions_that_the_network_cannot_move_stay(x64):
    """An input that is there twice, with two targets: both come to the mean."""
    params, x, _, _ = problem(8, outputs=1)
    x = x.at[1].set(x[0])
    y = jnp.array([0.0, 1.0, 2.0, 3.0, 4.0])
    kernel = ntk.kernel(network, params, x)
    got = ntk.predict(kernel, y)
    np.testing.assert_allclose(got.outputs, [0.5, 0.5, 2, 3, 4], rtol=1e-6)
    assert np.isfinite(got.coefficients).all()


def test_steps_that_are_too_long_diverge(x64):
    params, x, _, y = problem(8)
    kernel = kernels(params, x, x)[0]
    largest = ntk.largest_eigenvalue(network, params, x, key=jax.random.key(0))
    limit = 2 * len(x) / largest
    short, long = (ntk.predict(kernel, y, times=[200, 201], rate=limit * factor).outputs for factor in (0.98, 1.02))
    short, long = (np.asarray(outputs) - np.asarray(y) for outputs in (short, long))
    assert np.abs(short).max() < np.abs(y).max()
    assert np.abs(long).max() > 10 * np.abs(y).max()
    worst = np.abs(long[0]).argmax()
    assert np.sign(long[0].ravel()[worst]) == -np.sign(long[1].ravel()[worst])
    endless = ntk.predict(kernel, y, times=jnp.inf, rate=limit * 0.98)
    np.testing.assert_allclose(endless.outputs, ntk.predict(kernel, y).outputs, rtol=1e-8)


def test_predictions_are_jitted_and_differentiated(x64):
    params, x, z, y = problem(4)
    target = y[:2]

    def error(p):
        kernel, cross = kernels(p, x, z)
        return jnp.sum((ntk.predict(kernel, y, test_kernel=cross, ridge=0.1).test_outputs - target) ** 2)

    gradient = jax.jit(jax.grad(error))(params)
    for name in params:
        direction = jnp.zeros_like(params[name]).at[1, 1].set(1)
        ahead, behind = (error(params | {name: params[name] + h * direction}) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(gradient[name][1, 1], (ahead - behind) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss: expected one of"),
        ({"ridge": -1.0}, "ridge: expected a number from 0 on"),
        ({"rate": 0.0}, "rate: expected a positive number"),
        ({"kernel": jnp.ones((3, 4))}, r"kernel: expected shape \(n, n\) or .* got \(3, 4\)"),
        ({"y": jnp.ones((4, 2))}, r"y: expected shape \(3, 2\), got \(4, 2\)"),
        ({"outputs": jnp.ones((3, 5))}, r"outputs: expected shape \(3, 2\), got \(3, 5\)"),
        ({"test_kernel": jnp.ones((2, 4))}, r"test_kernel: expected shape \(m, 3\), got \(2, 4\)"),
        ({"test_outputs": jnp.ones((2, 2))}, "test_kernel: expected one with test_outputs"),
        ({"loss": "cross-entropy"}, "outputs: expected those before the training"),
        ({"loss": "cross-entropy", "outputs": jnp.ones((3, 2))}, "times: expected finite"),
        ({"loss": "cross-entropy", "outputs": jnp.ones((3, 2)), "times": 1.0}, "y: expected integer labels"),
        (
            {"loss": "cross-entropy", "outputs": jnp.ones((3, 2)), "times": 1.0, "y": jnp.array([0, 1, 2])},
            "y: expected labels from 0 to 1, got 0 to 2",
        ),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"kernel": jnp.eye(3), "y": jnp.ones((3, 2))} | options
    with pytest.raises(ValueError, match=message):
        ntk.predict(**arguments)


def test_parameters_of_another_structure_are_refused():
    params, x, _, _ = problem(4)
    linear = ntk.linearize(network, params)
    with pytest.raises(ValueError, match=r"params: expected the structure of those at which .* got"):
        linear({"w": params["w"]}, x)
    with pytest.raises(ValueError, match=r"params: expected the shape of those .* \(4, 4\) at \['w'\], got \(3, 4\)"):
        linear(params | {"w": params["w"][:3]}, x)
    with pytest.raises(ValueError, match=r"vector: expected the shape of the outputs, \(5, 3\), got \(5, 2\)"):
        ntk.vector_product(network, params, x, jnp.ones((5, 2)))
    with pytest.raises(ValueError, match=r"vector: expected the structure of the outputs"):
        ntk.vector_product(network, params, x, {"a": jnp.ones((5, 3))})
