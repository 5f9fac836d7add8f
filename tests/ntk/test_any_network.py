"""Every kind of network that JAX users write, against a dense Jacobian in float64."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from nasi_jax import ntk
from nasi_jax.ntk._coupling import is_coupled

BATCH = 3
NETWORKS = {}
COUPLED = {"batch statistics", "layers over the batch", "noise by closure", "nnx, batch statistics and dropout"}


def network(name, *marks):
    def register(make):
        NETWORKS[name] = pytest.param((name, make), marks=marks)
        return make

    return register


def keys(count=8):
    return jax.random.split(jax.random.key(0), count)


def normal(i, *shape, dtype=float):
    return jax.random.normal(jax.random.fold_in(jax.random.key(1), i), shape, dtype)


def perceptron_params():
    return {"w": normal(0, 4, 3), "b": normal(1, 1, 3), "v": normal(2, 3, 2)}


def perceptron(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]


@network("linen")
def _():
    class Perceptron(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(2, param_dtype=float)(jnp.tanh(linen.Dense(3, param_dtype=float)(x)))

    module, x = Perceptron(), normal(0, BATCH, 4)
    return module.apply, module.init(jax.random.key(0), x), x


@network("linen, convolutions and pools")
def _():
    class Convolutional(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(2, (3, 3), strides=2, param_dtype=float)(x))
            x = linen.Conv(4, (2, 2), feature_group_count=2, padding="VALID", param_dtype=float)(x)
            return linen.Dense(2, param_dtype=float)(jnp.mean(x, axis=(1, 2)) * 10)

    module, x = Convolutional(), normal(0, BATCH, 5, 5, 2)
    return module.apply, module.init(jax.random.key(0), x), x


@network("linen, transposed convolution", pytest.mark.slow)
def _():
    module, x = linen.ConvTranspose(2, (2, 2), param_dtype=float), normal(0, BATCH, 2, 2, 2)
    return (lambda p, x: module.apply(p, x).mean(axis=1)), module.init(jax.random.key(0), x), x


@network("linen, attention over token ids")
def _():
    class Attention(linen.Module):
        @linen.compact
        def __call__(self, ids):
            x = linen.Embed(5, 4, param_dtype=float)(ids)
            x = linen.LayerNorm(param_dtype=float)(x)
            x = linen.MultiHeadDotProductAttention(2, param_dtype=float)(x, mask=linen.make_causal_mask(ids))
            return linen.Dense(2, param_dtype=float)(x)

    module, ids = Attention(), jax.random.randint(keys()[0], (BATCH, 3), 0, 5)
    return module.apply, module.init(jax.random.key(0), ids), ids


@network("linen, recurrent", pytest.mark.slow)
def _():
    module, x = linen.RNN(linen.GRUCell(2, param_dtype=float)), normal(0, BATCH, 3, 2)
    return (lambda p, x: module.apply(p, x)[:, -1]), module.init(jax.random.key(0), x), x


@network("batch statistics")
def _():
    class Normalised(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.BatchNorm(use_running_average=False, param_dtype=float)(linen.Dense(3, param_dtype=float)(x))
            return linen.Dense(2, param_dtype=float)(jnp.tanh(x))

    x = normal(0, BATCH, 4)
    variables = Normalised().init(jax.random.key(0), x)
    rest = jax.tree.map(lambda leaf: leaf.astype(float), variables["batch_stats"])
    apply_fn = lambda p, x: Normalised().apply(p | {"batch_stats": rest}, x, mutable=["batch_stats"])[0]  # noqa: E731
    return apply_fn, {"params": variables["params"]}, x


@network("running statistics", pytest.mark.slow)
def _():
    module, x = linen.BatchNorm(use_running_average=True, param_dtype=float), normal(0, BATCH, 3)
    variables = jax.tree.map(lambda leaf: leaf.astype(float), module.init(jax.random.key(0), x))
    apply_fn = lambda p, x: module.apply(variables | {"params": p}, x) @ jnp.ones((3, 2))  # noqa: E731
    return apply_fn, variables["params"], x


@network("nnx")
def _():
    model = nnx.Sequential(
        nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=float),
        nnx.LayerNorm(3, rngs=nnx.Rngs(0), param_dtype=float),
        jnp.tanh,
        nnx.Linear(3, 2, rngs=nnx.Rngs(1), param_dtype=float),
    )
    graph, params = nnx.split(model)
    return (lambda p, x: nnx.merge(graph, p)(x)), params, normal(0, BATCH, 4)


@network("nnx, batch statistics and dropout")
def _():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(4, 3, rngs=rngs, param_dtype=float), nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.4, rngs=rngs)
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, (params, rest))
    return (lambda p, x: nnx.merge(graph, p, rest, copy=True)(x)), params, normal(0, BATCH, 4)


@network("equinox")
def _():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(4, 2, 3, 1, key=jax.random.key(0), dtype=float)
    params, rest = equinox.partition(model, equinox.is_inexact_array)
    return (lambda p, x: jax.vmap(equinox.combine(p, rest))(x)), params, normal(0, BATCH, 4)


@network("haiku", pytest.mark.slow)
def _():
    haiku = pytest.importorskip("haiku")
    net = haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP([3, 2])(x)))
    x = normal(0, BATCH, 4)
    return net.apply, net.init(jax.random.key(0), x), x


@network("init and apply pairs, as of stax")
def _():
    def serial(*layers):
        return lambda p, x: functools.reduce(lambda x, layer: layer[1](p[layer[0]], x), enumerate(layers), x)

    dense = lambda p, x: x @ p[0] + p[1]  # noqa: E731
    params = [(normal(0, 4, 3), normal(1, 1, 3)), (), (normal(2, 3, 2), normal(3, 1, 2))]
    return serial(dense, lambda p, x: jax.nn.softplus(x), dense), params, normal(4, BATCH, 4)


@network("tuple of inputs")
def _():
    return (
        (lambda p, x: (x[0] @ p["w"]) * jnp.sin(x[1] @ p["w"])),
        {"w": normal(0, 4, 2)},
        (normal(1, BATCH, 4), normal(2, BATCH, 4)),
    )


@network("dictionary of inputs, ids and a mask")
def _():
    x = {
        "ids": jax.random.randint(keys()[0], (BATCH, 5), 0, 4),
        "mask": jax.random.bernoulli(keys()[1], 0.6, (BATCH, 5)),
    }
    pooled = lambda p, x: jnp.sum(jnp.where(x["mask"][..., None], p["table"][x["ids"]], 0), axis=1)  # noqa: E731
    return (lambda p, x: jnp.tanh(pooled(p, x)) @ p["w"]), {"table": normal(0, 4, 3), "w": normal(1, 3, 2)}, x


@network("tuple of outputs")
def _():
    return (lambda p, x: (perceptron(p, x), x @ p["w"])), perceptron_params(), normal(5, BATCH, 4)


@network("named outputs of several ranks")
def _():
    def heads(p, x):
        hidden = jnp.tanh(x @ p["w"] + p["b"])
        return {"logits": hidden @ p["v"], "value": hidden[:, 0] ** 2, "map": hidden[:, :, None] * hidden[:, None]}

    return heads, perceptron_params(), normal(5, BATCH, 4)


@network("one number a sample")
def _():
    return (lambda p, x: perceptron(p, x)[:, 0]), perceptron_params(), normal(5, BATCH, 4)


@network("integer inputs, one-hot")
def _():
    return (lambda p, x: perceptron(p, jax.nn.one_hot(x, 4))), perceptron_params(), jnp.arange(BATCH)


@network("complex parameters")
def _():
    params = {"c": normal(0, 4, 3) + 1j * normal(1, 4, 3), "scale": jnp.asarray(0.3 - 0.2j), "w": normal(2, 3, 2)}
    return (lambda p, x: jnp.abs(jnp.sin(x @ p["c"] * p["scale"])) @ p["w"]), params, normal(3, BATCH, 4)


@network("spectral layer")
def _():
    def fourier(p, x):
        return jnp.fft.irfft(jnp.fft.rfft(x, axis=1) * p["c"], axis=1)

    return fourier, {"c": normal(0, 1, 3) + 1j * normal(1, 1, 3)}, normal(2, BATCH, 4)


@network("gradient of its own")
def _():
    @jax.custom_vjp
    def tanh(x):
        return jnp.tanh(x)

    tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))
    return (lambda p, x: tanh(x @ p["w"] + p["b"]) @ p["v"]), perceptron_params(), normal(5, BATCH, 4)


@network("derivative of its own", pytest.mark.slow)
def _():
    @jax.custom_jvp
    def tanh(x):
        return jnp.tanh(x)

    tanh.defjvp(lambda x, t: (jnp.tanh(x[0]), (1 - jnp.tanh(x[0]) ** 2) * t[0]))
    return (lambda p, x: tanh(x @ p["w"] + p["b"]) @ p["v"]), perceptron_params(), normal(5, BATCH, 4)


@network("straight-through rounding")
def _():
    def rounded(p, x):
        hidden = x @ p["w"] + p["b"]
        return (hidden + jax.lax.stop_gradient(jnp.round(hidden) - hidden)) ** 2 @ p["v"]

    return rounded, perceptron_params(), normal(5, BATCH, 4)


@network("half precision, sums beyond its range and its digits")
def _():
    """A gradient is an input, and inner products of them are integers above 65,504."""
    params = {"w": jnp.ones((8, 2), jnp.float16), "b": jnp.ones((1, 2), jnp.float16)}
    x = jnp.arange(BATCH * 8, dtype=jnp.float16).reshape(BATCH, 8) + 200
    return (lambda p, x: x @ p["w"] + p["b"]), params, x


@network("bfloat16 between parameters in float32")
def _():
    params = {"w": jnp.ones((8, 2), jnp.float32), "b": jnp.ones((1, 2), jnp.float32)}
    x = jnp.arange(BATCH * 8, dtype=jnp.bfloat16).reshape(BATCH, 8) + 100
    return (lambda p, x: x @ p["w"].astype(x.dtype) + p["b"].astype(x.dtype)), params, x


@network("layers by scan")
def _():
    def deep(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"])[0] @ p["last"]

    return deep, {"layers": normal(0, 3, 4, 4), "last": normal(1, 4, 2)}, normal(2, BATCH, 4)


@network("one layer again and again, by scan")
def _():
    def recurrent(p, x):
        step = lambda h, x: (jnp.tanh(h @ p["h"] + x @ p["x"]), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((len(x), 2)), jnp.swapaxes(x, 0, 1))[0]

    return recurrent, {"h": normal(0, 2, 2), "x": normal(1, 3, 2)}, normal(2, BATCH, 4, 3)


@network("a weight used twice")
def _():
    tied = lambda p, x: jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"]) @ p["w"].T + x @ p["w"]  # noqa: E731
    return tied, {"w": normal(0, 4, 4)}, normal(1, BATCH, 4)


@network("branches")
def _():
    def branching(p, x):
        branches = (lambda x: jnp.tanh(x @ p["w"]), lambda x: (x @ p["w"]) ** 2)
        return jax.lax.cond(p["b"][0, 0] > 100, *branches, x) @ p["v"] + jax.lax.switch(1, branches, x) @ p["v"]

    return branching, perceptron_params(), normal(5, BATCH, 4)


@network("a branch for each sample", pytest.mark.slow)
def _():
    def expert(p, x):
        return jax.lax.cond(x[0] > 0, lambda: x @ p["w"], lambda: jnp.sin(x @ p["w"]))

    return jax.vmap(expert, in_axes=(None, 0)), {"w": normal(0, 4, 2)}, normal(1, BATCH, 4)


@network("checkpoints")
def _():
    def remembered(p, x):
        hidden = jax.checkpoint(lambda p, x: jnp.tanh(x @ p["w"] + p["b"]))(p, x)
        return jax.checkpoint(jnp.matmul)(hidden, p["v"])

    return remembered, perceptron_params(), normal(5, BATCH, 4)


@network("parts under jit")
def _():
    hidden = jax.jit(lambda p, x: jnp.tanh(x @ p["w"] + p["b"]))
    return jax.jit(lambda p, x: hidden(p, x) @ p["v"]), perceptron_params(), normal(5, BATCH, 4)


@network("noise by closure")
def _():
    key = jax.random.key(9)

    def dropped(p, x):
        hidden = jnp.tanh(x @ p["w"] + p["b"])
        return jnp.where(jax.random.bernoulli(key, 0.5, hidden.shape), 2 * hidden, 0) @ p["v"]

    return dropped, perceptron_params(), normal(5, BATCH, 4)


@network("a key among the parameters")
def _():
    noisy = lambda p, x: perceptron(p["net"], x) * jax.random.normal(p["key"], (1, 2)) * p["steps"]  # noqa: E731
    return noisy, {"net": perceptron_params(), "key": jax.random.key(3), "steps": 2}, normal(5, BATCH, 4)


@network("layers over the batch")
def _():
    def graph(p, x):
        neighbours = jax.ops.segment_sum(x[jnp.array([0, 1, 2, 0])], jnp.array([1, 2, 0, 2]), BATCH)
        return jnp.tanh(neighbours @ p["w"] + x @ p["w"]) @ p["v"]

    return graph, perceptron_params(), normal(5, BATCH, 4)


@network("gather, scatter, sort and maximum")
def _():
    def indexed(p, x):
        hidden = jnp.sort(x @ p["w"], axis=1)
        hidden = jnp.zeros((len(x), 4)).at[:, jnp.array([2, 0, 2])].add(hidden)
        return jnp.maximum(hidden[:, :2], 0.1) + jax.lax.top_k(hidden, 2)[0] ** 2

    return indexed, perceptron_params(), normal(5, BATCH, 4)


@network("matrix functions", pytest.mark.slow)
def _():
    def solved(p, x):
        return jnp.linalg.solve(p["a"] @ p["a"].T + jnp.eye(3), (x @ p["w"]).T).T @ p["v"]

    return solved, perceptron_params() | {"a": normal(6, 3, 3)}, normal(5, BATCH, 4)


@network("a bilinear form of parameters", pytest.mark.slow)
def _():
    low_rank = lambda p, x: jnp.einsum("bi,ir,rj->bj", x, p["w"], p["v"]) + x @ (p["w"] @ p["v"])  # noqa: E731
    return low_rank, perceptron_params(), normal(5, BATCH, 4)


@network("weights on the left, in batches, and normalised")
def _():
    def odd(p, x):
        left = jnp.einsum("oi,bi->bo", p["left"], x)
        heads = jnp.einsum("bi,hio->bho", x, p["heads"])
        normed = p["left"] / jnp.linalg.norm(p["left"], axis=1, keepdims=True)
        return left + heads[:, 0] * heads[:, 1] + x @ normed.T

    return odd, {"left": normal(0, 2, 4), "heads": normal(1, 2, 4, 2)}, normal(2, BATCH, 4)


@network("parameters that do nothing")
def _():
    params = perceptron_params() | {"unused": normal(6, 7), "zero": normal(7, 1, 2)}
    return (lambda p, x: perceptron(p, x) + 0 * p["zero"]), params, normal(5, BATCH, 4)


@network("ensemble by vmap", pytest.mark.slow)
def _():
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), perceptron_params())
    return (lambda p, x: jax.vmap(perceptron, in_axes=(0, None), out_axes=1)(p, x)), members, normal(5, BATCH, 4)


@network("inner loop over a number of steps")
def _():
    loop = lambda p, x: jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["w"] + i), x)  # noqa: E731
    return loop, {"w": normal(0, 3, 3)}, normal(1, BATCH, 3)


@network("fixed point with a derivative by the implicit function theorem")
def _():
    def implicit(p, x):
        target = x @ p["w"]
        solve = lambda f, guess: jax.lax.while_loop(  # noqa: E731
            lambda z: jnp.max(jnp.abs(f(z))) > 1e-12, lambda z: z - f(z) / (1 + jnp.cosh(z)), guess
        )
        tangent = lambda g, y: y / g(jnp.ones_like(y))  # noqa: E731
        return jax.lax.custom_root(lambda z: z + jnp.sinh(z) - target, jnp.zeros_like(target), solve, tangent)

    return implicit, {"w": normal(0, 4, 2)}, normal(1, BATCH, 4)


def of_reals(apply_fn, params, x):
    """Dense Jacobians (batch, outputs, parameters), a list for all outputs, by real parameters in their order."""
    leaves, structure = jax.tree.flatten(params)
    parts = [
        [leaf.real, leaf.imag] if jnp.iscomplexobj(leaf) else [jnp.asarray(leaf)]
        for leaf in leaves
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    flat, unravel = jax.flatten_util.ravel_pytree(parts)

    def outputs(flat):
        found = iter(unravel(flat))
        filled = [
            (lambda part: part[0] + 1j * part[1] if len(part) == 2 else part[0])(next(found))
            if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
            else leaf
            for leaf in leaves
        ]
        return jax.tree.leaves(apply_fn(jax.tree.unflatten(structure, filled), x))

    found = jax.jit(jax.jacrev(outputs))(flat)
    return [np.asarray(j, float).reshape(j.shape[0], -1, len(flat)) for j in found]


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def case(request, x64):
    name, make = request.param
    apply_fn, params, x = make()
    return name, apply_fn, params, x, of_reals(apply_fn, params, x)


def test_there_are_thirty():
    assert len(NETWORKS) >= 40


def assert_kernels(kernels, apply_fn, params, x, expected):
    assert jax.tree.structure(kernels) == jax.tree.structure(jax.eval_shape(apply_fn, params, x))
    for kernel, dense in zip(jax.tree.leaves(kernels), expected, strict=True):
        np.testing.assert_allclose(kernel, dense, rtol=1e-9, atol=1e-9 * np.abs(dense).max())


def test_the_kernel_of_any_network(case):
    name, apply_fn, params, x, rows = case
    assert is_coupled(apply_fn, params, x, None) == (name in COUPLED)
    expected = [np.einsum("ikp,jlp->ijkl", j, j) for j in rows]
    assert_kernels(ntk.kernel(apply_fn, params, x, form="full"), apply_fn, params, x, expected)


@pytest.mark.slow
def test_traces_and_products_of_any_network(case):
    """The same under jit, where samples are taken together, and by every other way."""
    _, apply_fn, params, x, rows = case
    traced = [np.einsum("ikp,jkp->ij", j, j) for j in rows]
    compute = jax.jit(lambda p, x: ntk.kernel(apply_fn, p, x))
    assert_kernels(compute(params, x), apply_fn, params, x, traced)
    diagonals = ntk.kernel(apply_fn, params, x, form="diagonal")
    assert_kernels(diagonals, apply_fn, params, x, list(map(np.diag, traced)))
    summed = [np.einsum("ikp,jlp->ij", j, j) for j in rows]
    assert_kernels(ntk.kernel(apply_fn, params, x, form="summed"), apply_fn, params, x, summed)
    np.testing.assert_allclose(ntk.trace(apply_fn, params, x).value, sum(map(np.trace, traced)), rtol=1e-9)
    outputs = jax.eval_shape(apply_fn, params, x)
    if any(leaf.dtype != float for leaf in jax.tree.leaves(outputs)):
        return  # products with anything but integers are rounded
    vector = jax.tree.map(lambda leaf: normal(8, *leaf.shape), outputs)
    product = ntk.vector_product(apply_fn, params, x, vector)
    assert jax.tree.structure(product) == jax.tree.structure(outputs)
    weights = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(vector)]
    gradient = sum(np.einsum("ikp,ik->p", j, v) for j, v in zip(rows, weights, strict=True))
    for got, j in zip(jax.tree.leaves(product), rows, strict=True):
        scale = np.abs(j).max() * np.abs(gradient).max()
        np.testing.assert_allclose(np.asarray(got).reshape(j.shape[:2]), j @ gradient, rtol=1e-9, atol=1e-9 * scale)
