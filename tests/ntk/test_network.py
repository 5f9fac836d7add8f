import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ntk_cases import squared_error

from nasi_jax import ntk, proxies

SLOW = pytest.mark.slow


@pytest.fixture(params=[False, pytest.param(True, marks=[SLOW, ntk_cases.needs_neural_tangents])])
def peers(request):
    """Whether neural-tangents computes the same, which takes long to compile."""
    return request.param


@pytest.fixture
def tokens(x64):
    case = ntk_cases.tokens()
    return case, ntk_cases.jacobian(*case[:3])


@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize("implementation", ntk_cases.slow_but((None,), ntk_cases.IMPLEMENTATIONS))
def test_kernels_of_inputs_that_are_trees(implementation, batch_statistics, tokens):
    (f, params, x1, _), j1 = tokens
    x2 = ntk_cases.tokens(batch=3, seed=1).x
    options = {"implementation": implementation, "batch_statistics": batch_statistics}
    full = ntk.kernel(f, params, x1, x2, form="full", **options)
    expected = np.einsum("ikp,jlp->ijkl", j1, ntk_cases.jacobian(f, params, x2))
    np.testing.assert_allclose(full, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_traces_and_bounds_of_inputs_and_targets_that_are_trees(batch_statistics, tokens):
    (f, params, x, y), rows = tokens
    options = {"loss": squared_error, "chunk": 4, "batch_statistics": batch_statistics, "key": jax.random.key(0)}
    total = np.sum(rows**2)
    np.testing.assert_allclose(ntk.trace(f, params, x, **options).value, total, rtol=1e-10)
    hutch = ntk.trace(f, params, x, method="hutch++", probes=36, **options)
    np.testing.assert_allclose(hutch.value, total, rtol=1e-10)
    slopes = np.asarray(y[1][:, None] * (f(params, x) - y[0]))
    gradients = np.einsum("bc,bcp->bp", slopes, rows)
    for method, size in (("per-sample", 1), ("per-batch", 2), ("one-batch", 6)):
        got = ntk.trace(f, params, x, y, method=method, batch_size=size, **options)
        expected = size * np.sum(gradients.reshape(6 // size, size, -1).mean(axis=1) ** 2)
        np.testing.assert_allclose(got.value, expected, rtol=1e-10)
    np.testing.assert_allclose(ntk.per_sample(f, params, x, y, squared_error), np.sum(gradients**2), rtol=1e-10)
    one_batch = np.sum(gradients.mean(axis=0) ** 2)
    np.testing.assert_allclose(ntk.one_batch(f, params, x, y, loss=squared_error), one_batch, rtol=1e-10)


def test_products_and_eigenvalues_of_inputs_that_are_trees(tokens):
    (f, params, x, _), rows = tokens
    dense = rows.reshape(18, -1) @ rows.reshape(18, -1).T
    got = ntk.largest_eigenvalue(f, params, x, key=jax.random.key(0), tolerance=1e-8)
    np.testing.assert_allclose(got, np.linalg.eigvalsh(dense)[-1], rtol=1e-7)
    v = np.asarray(jax.random.rademacher(jax.random.key(1), (6, 3), jnp.float64)).ravel()
    ratio = ntk.participation_ratio(f, params, x, jax.random.key(1)).ratio
    np.testing.assert_allclose(ratio, (v @ dense @ v) ** 2 / np.sum((dense @ v) ** 2), rtol=1e-10)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({}, "x: expected at least one array"),
        ({"a": jnp.ones((2, 3)), "b": jnp.ones((3,))}, r"got shapes \(2, 3\) at \['a'\], \(3,\) at \['b'\]"),
        ((jnp.ones((2, 3)), 1.0), r"x: expected arrays .* scalar at \[1\]"),
        ([[1.0, 2.0], [3.0, 4.0]], r"x: expected arrays .* scalar at \[0\]\[0\]; make lists of numbers an array"),
        (jnp.float32(1), r"x: expected arrays .* got a scalar;"),
        (jnp.ones((0, 3)), r"x: expected arrays .* not empty, got shape \(0, 3\)"),
    ],
)
def test_inputs_without_one_batch_axis_are_refused(x, message):
    for function in (ntk.kernel, ntk.trace):
        with pytest.raises(ValueError, match=message):
            function(lambda p, x: p, jnp.ones((2, 2)), x)


def test_a_loss_of_another_shape_is_refused(tokens):
    (f, params, x, y), _ = tokens
    for loss in (lambda o, y: jnp.mean(squared_error(o, y)), lambda o, y: (o - y[0]) ** 2):
        for function in (ntk.one_batch, ntk.per_sample):
            with pytest.raises(ValueError, match=r"loss: expected one number for each sample, \(6,\), got"):
                function(f, params, x, y, loss)
        with pytest.raises(ValueError, match="loss: expected"):
            ntk.trace(f, params, x, y, loss=loss, method="one-batch")


def figures(f, params, x, y, loss=ntk.cross_entropy, peers=False):
    """Everything that has a dense oracle, by every way to compute it."""
    key = jax.random.key(0)
    methods = {"exact": {}, "hutch++": {"key": key, "probes": 100}} | ({"neural-tangents": {}} if peers else {})
    implementations = ntk_cases.IMPLEMENTATIONS if peers else (None,)
    ratio, one_batch, per_sample = (
        jax.jit(function, static_argnums=static)  # one program, for many small ones take longer to compile
        for function, static in ((ntk.participation_ratio, 0), (ntk.one_batch, (0, 4)), (ntk.per_sample, (0, 4)))
    )
    return {
        **{name: ntk.trace(f, params, x, method=name, **options).value for name, options in methods.items()},
        **{name: jnp.trace(ntk.kernel(f, params, x, implementation=name)) for name in implementations},
        "independent": jnp.trace(ntk.kernel(f, params, x, batch_statistics=False)),
        "eigenvalue": ntk.largest_eigenvalue(f, params, x, key=key, tolerance=1e-6),
        "ratio": ratio(f, params, x, key).ratio,
        "one-batch": one_batch(f, params, x, y, loss),
        "bound": ntk.trace(f, params, x, y, method="one-batch", loss=loss).value,
        "per-sample": per_sample(f, params, x, y, loss),
    }


def dense_figures(f, reals, x, y, loss=ntk.cross_entropy):
    """The same from the dense Jacobian by real parameters."""
    rows = ntk_cases.jacobian(f, reals, x)
    slopes = np.asarray(jax.grad(lambda outputs: jnp.sum(loss(outputs, y)))(f(reals, x)))
    gradients = np.einsum("bc,bcp->bp", slopes, rows)
    dense = rows.reshape(-1, rows.shape[-1]) @ rows.reshape(-1, rows.shape[-1]).T
    v = np.asarray(jax.random.rademacher(jax.random.key(0), slopes.shape, slopes.dtype)).ravel()
    one_batch = np.sum(gradients.mean(axis=0) ** 2)
    traces = ["exact", "neural-tangents", "hutch++", *ntk_cases.IMPLEMENTATIONS, "independent"]
    return dict.fromkeys(traces, np.trace(dense)) | {
        "eigenvalue": np.linalg.eigvalsh(dense)[-1],
        "ratio": (v @ dense @ v) ** 2 / np.sum((dense @ v) ** 2),
        "one-batch": one_batch,
        "bound": len(slopes) * one_batch / 2,
        "per-sample": np.sum(gradients**2),
    }


def assert_equal(got, expected, rtol):
    for name, value in got.items():
        assert jnp.result_type(value) in {jnp.dtype("float32"), jnp.dtype("float64")}, name
        np.testing.assert_allclose(value, expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float16, 3e-3), pytest.param(jnp.bfloat16, 3e-2, marks=SLOW)])
def test_half_precision_is_summed_in_single(dtype, rtol, peers, x64):
    f, params, x, y = ntk_cases.make("dense")
    half_params, half_x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
    exact_params, exact_x = jax.tree.map(lambda leaf: leaf.astype(float), (half_params, half_x))
    assert_equal(figures(f, half_params, half_x, y, peers=peers), dense_figures(f, exact_params, exact_x, y), rtol)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_what_half_precision_cannot_hold(dtype):
    """A linear network: the trace is the number of outputs times the sum of squares, beyond 65,504 and three digits."""
    x = jnp.full((4, 8), 73, dtype)
    got = ntk.trace(lambda p, x: x @ p, jnp.ones((8, 2), dtype), x).value
    assert got == 2 * 32 * 73**2
    assert got.dtype == jnp.float32
    assert jnp.trace(ntk.kernel(lambda p, x: x @ p, jnp.ones((8, 2), dtype), x)) == got
    assert proxies.grad_norm(lambda p, x: x @ p, jnp.ones((8, 2), dtype), x, jnp.zeros(4, jnp.int32)).dtype == "float32"


def test_complex_parameters_count_as_two_real_ones(peers, x64):
    keys = jax.random.split(jax.random.key(0), 5)
    parts = jax.random.normal(keys[0], (2, 5, 4))
    scalar, w = jax.random.normal(keys[1], (2,)), jax.random.normal(keys[2], (4, 3))
    x, y = jax.random.normal(keys[3], (6, 5)), jnp.arange(6) % 3

    def network(p, x):
        return jnp.abs(x @ p["c"] + p["scalar"]) ** 2 @ p["w"] / 5

    def of_reals(p, x):
        return network({"c": p[0][0] + 1j * p[0][1], "scalar": p[1][0] + 1j * p[1][1], "w": p[2]}, x)

    reals = [parts, scalar, w]
    params = {"c": parts[0] + 1j * parts[1], "scalar": scalar[0] + 1j * scalar[1], "w": w}
    assert_equal(figures(network, params, x, y, peers=peers), dense_figures(of_reals, reals, x, y), 1e-8)
    np.testing.assert_allclose(ntk.squared_norm(params), sum(np.sum(np.asarray(r) ** 2) for r in reals), rtol=1e-12)
    slopes = jax.grad(lambda p: jnp.mean(ntk.cross_entropy(of_reals(p, x), y)))(reals)
    expected = np.linalg.norm(slopes[0]) + np.linalg.norm(slopes[2])
    np.testing.assert_allclose(proxies.grad_norm(network, params, x, y), expected, rtol=1e-10)


def test_leaves_that_are_no_parameters_are_constants_and_numbers_are_parameters(peers, x64):
    f, params, x, y = ntk_cases.make("dense")
    more = {
        "net": {name: np.asarray(leaf) for name, leaf in params.items()},
        "scale": 1.5,
        "count": jnp.arange(3),
        "key": jax.random.key(3),
        "mask": np.array([True, False]),
        "step": 2,
    }

    def network(p, x):
        noise = jax.random.normal(p["key"], (1, 3))
        return p["scale"] * f(p["net"], x) * jnp.sum(p["count"]) / p["step"] + noise * p["mask"][0]

    def of_reals(p, x):
        return network(more | {"net": p[0], "scale": p[1]}, x)

    expected = dense_figures(of_reals, [params, jnp.array(1.5)], x, y)
    assert_equal(figures(network, more, x, y, peers=peers), expected, 1e-8)
    scores = (proxies.grad_norm, proxies.snip, proxies.grasp, proxies.zico)
    for score in scores:
        np.testing.assert_allclose(score(network, more, x, y), score(of_reals, [params, 1.5], x, y), rtol=1e-10)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"w": jnp.ones((3, 2)), "f": [jnp.tanh]}, TypeError, r"params: expected arrays, got .* at \['f'\]\[0\]"),
        ({"w": jnp.ones((3, 2)), "name": "dense"}, TypeError, r"params: expected arrays, got str at \['name'\]"),
        ({"w": jnp.ones((3, 2), jnp.int32)}, TypeError, "params: expected at least one floating array, .* got int32"),
        (jax.random.key(0), TypeError, "params: expected at least one floating array, .* got key"),
        ([], ValueError, "params: expected at least one array"),
    ],
)
def test_what_are_no_parameters_is_named(params, error, message):
    x, y, f = jnp.ones((4, 3)), jnp.zeros(4, jnp.int32), lambda p, x: x @ p["w"]
    for call in (
        lambda: ntk.kernel(f, params, x),
        lambda: ntk.trace(f, params, x),
        lambda: ntk.one_batch(f, params, x, y),
        lambda: ntk.participation_ratio(f, params, x, jax.random.key(0)),
        lambda: proxies.zico(f, params, x, y),
        lambda: proxies.synflow(f, params, x),
    ):
        with pytest.raises(error, match=message):
            call()


@jax.custom_vjp
def tanh(x):
    return jnp.tanh(x)


tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


@jax.custom_vjp
def product(x, w):
    return x @ w, 2 * (x @ w)


product.defvjp(
    lambda x, w: (product(x, w), (x, w)),
    lambda xw, g: ((g[0] + 2 * g[1]) @ xw[1].T, xw[0].T @ (g[0] + 2 * g[1])),
)


def custom(p, x):
    return sum(product(tanh(x @ p["first"] + p["bias"]), p["second"])) / 3


def checkpointed(p, x):
    hidden = jax.checkpoint(lambda p, x: (jnp.tanh(x @ p["first"] + p["bias"]), x))(p, x)[0]
    return jax.checkpoint(jnp.matmul)(hidden, p["second"])


def conditional(p, x):
    """Which branch is taken depends on the parameters, and both give several results."""
    hidden = lambda x: (jnp.tanh(x @ p["first"] + p["bias"]), p["second"])  # noqa: E731
    return jnp.matmul(*jax.lax.cond(p["bias"][0, 0] < 100, hidden, lambda x: (hidden(x)[0] ** 2, hidden(x)[1]), x))


@pytest.mark.parametrize("network", [custom, checkpointed, conditional])
def test_networks_with_gradients_checkpoints_and_branches_of_their_own(network, peers, x64):
    """They are the same function as without."""
    f, params, x, y = ntk_cases.make("dense")
    params = params | {"bias": params["bias"][None]}
    plain = lambda p, x: f(p | {"bias": p["bias"][0]}, x)  # noqa: E731
    expected = dense_figures(plain, params, x, y)
    options = {"implementation": ntk_cases.IMPLEMENTATIONS[-1]}
    jitted = jax.jit(lambda p: jnp.trace(ntk.kernel(network, p, x, **options)))(params)
    np.testing.assert_allclose(jitted, expected["exact"], rtol=1e-10)
    assert_equal(figures(network, params, x, y, peers=peers), expected, 1e-8)


@pytest.mark.slow
def test_inputs_spread_over_a_mesh_with_explicit_axes():
    f, params, x, y = ntk_cases.make("dense", batch=8)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    place = lambda tree, *axes: jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    peers = len(ntk_cases.IMPLEMENTATIONS) > 1
    expected = figures(f, params, x, y, peers=peers)
    for spread in ((params, place(x, "a"), place(y, "a")), (place(params), place(x, ("a", "b")), y)):
        assert_equal(figures(f, *spread, peers=peers), expected, 1e-4)
        for score in (proxies.grad_norm, proxies.snip, proxies.zico):
            np.testing.assert_allclose(score(f, *spread), score(f, params, x, y), rtol=1e-4)
        np.testing.assert_allclose(proxies.synflow(f, *spread[:2]), proxies.synflow(f, params, x), rtol=1e-5)
        np.testing.assert_allclose(proxies.jacob_cov(f, *spread[:2]), proxies.jacob_cov(f, params, x), rtol=0.05)
    spread = place(x, "a")
    with jax.set_mesh(mesh):
        with pytest.raises(ValueError, match=r"mesh: .* got axes a, b; call this outside of it"):
            ntk.trace(f, params, spread)
        jitted = jax.jit(lambda p, inputs: ntk.kernel(f, p, inputs, form="diagonal"))(params, spread)
    np.testing.assert_allclose(jitted, ntk.kernel(f, params, x, form="diagonal"), rtol=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nnx_models_with_statistics_and_dropout(mode, x64):
    """Parameters are the nnx.Param alone: running statistics and random keys count for nothing and stay as they are."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(5, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
    model = nnx.Sequential(model, jnp.tanh, nnx.Linear(4, 3, rngs=rngs))
    getattr(model, mode)()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    x = jax.random.normal(jax.random.key(0), (6, 5))
    mask = jnp.ones((6, 4))
    if mode == "train":
        seen = nnx.merge(graph, params, rest, copy=True).layers[0].layers[2]
        mask = seen(jnp.ones((6, 4)))
        assert 0 < jnp.sum(mask == 0) < 24

    def by_hand(p, x):
        hidden = x @ p["kernel"] + p["bias"][None]
        if mode == "train":
            hidden = (hidden - hidden.mean(0, keepdims=True)) / jnp.sqrt(hidden.var(0, keepdims=True) + 1e-5)
        else:
            hidden = hidden / jnp.sqrt(1 + 1e-5)
        return jnp.tanh((hidden * p["scale"][None] + p["shift"][None]) * mask) @ p["head"] + p["end"][None]

    first, norm, last = model.layers[0].layers[0], model.layers[0].layers[1], model.layers[2]
    plain = {"kernel": first.kernel, "bias": first.bias, "scale": norm.scale, "shift": norm.bias}
    plain = {name: leaf[...] for name, leaf in (plain | {"head": last.kernel, "end": last.bias}).items()}
    apply_fn = lambda p, x: nnx.merge(graph, p, rest, copy=True)(x)  # noqa: E731
    y = jnp.arange(6) % 3
    expected = np.sum(ntk_cases.jacobian(by_hand, plain, x) ** 2)
    np.testing.assert_allclose(ntk.trace(apply_fn, params, x).value, expected, rtol=1e-4)
    np.testing.assert_allclose(jnp.trace(ntk.kernel(apply_fn, params, x)), expected, rtol=1e-4)
    got = ntk.one_batch(apply_fn, params, x, y)
    np.testing.assert_allclose(got, ntk.one_batch(by_hand, plain, x, y), rtol=1e-4)


def test_running_statistics_are_no_parameters():
    x = jnp.arange(12.0).reshape(4, 3)
    module = linen.BatchNorm(use_running_average=True)
    variables = module.init(jax.random.key(0), x)
    model = nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    for params, apply_fn in ((variables, module.apply), (state, lambda p, x: nnx.merge(graph, p)(x))):
        for function in (ntk.kernel, ntk.trace, proxies.synflow):
            with pytest.raises(
                ValueError, match=r"params: expected parameters alone, got running statistics at .*mean"
            ):
                function(apply_fn, params, x)
        part = ntk.select(params, lambda path: "scale" in path or path.endswith(("bias", "bias/value")))
        # each output is an input, standardised by what is constant, times a scale, and a shift
        np.testing.assert_allclose(ntk.trace(apply_fn, part, x).value, jnp.sum(x**2 / (1 + 1e-5) + 1), rtol=1e-5)


@pytest.mark.parametrize(
    "figure",
    [
        lambda f, p, x, y: ntk.participation_ratio(f, p, x, jax.random.key(0)),
        lambda f, p, x, y: ntk.kernel(f, p, x),
        ntk.one_batch,
        ntk.per_sample,
        proxies.grad_norm,
        proxies.snip,
        proxies.grasp,
    ],
)
def test_no_samples_are_refused(figure):
    with pytest.raises(ValueError, match=r"^x[12]?: expected .*, got .*\(0, 3\)"):
        figure(lambda p, x: x @ p, jnp.ones((3, 2)), jnp.zeros((0, 3)), jnp.zeros(0, int))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda *case: ntk.trace(*case, method="hutchinson", key=0),
            TypeError,
            r"key: .* jax\.random\.key\(0\), got 0",
        ),
        (lambda *case: ntk.diagonal(*case, method="hutchinson", key=0), TypeError, "key: expected"),
        (
            lambda *case: ntk.spectral_density(*case, key=jax.random.split(jax.random.key(0))),
            TypeError,
            "key: expected",
        ),
        (lambda *case: ntk.largest_eigenvalue(*case, key=None), TypeError, "key: expected a random key .* got None"),
        (lambda *case: ntk.participation_ratio(*case, 3), TypeError, "key: expected a random key .* got 3"),
        (
            lambda *case: ntk.largest_eigenvalue(*case, key=jax.random.key(0), tolerance="a"),
            TypeError,
            "tolerance: .*'a'",
        ),
        (
            lambda *case: ntk.kernel(*case, memory="1GB"),
            TypeError,
            "memory: expected a positive number of bytes, got '1GB'",
        ),
        (
            lambda *case: ntk.operator(*case, memory=-1),
            ValueError,
            "memory: expected a positive number of bytes, got -1",
        ),
        (
            lambda *case: ntk.kernel(*case, batch_statistics="no"),
            ValueError,
            "batch_statistics: expected True, .* 'no'",
        ),
        (
            lambda _, params, x: ntk.select(params, "kernel"),
            TypeError,
            "where: expected a function of the path of a parameter, got 'kernel'",
        ),
    ],
)
def test_arguments_of_another_kind_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 3)))


def test_keys_of_the_older_kind_are_keys():
    case = (lambda p, x: x @ p, jnp.ones((3, 2)), jnp.arange(12.0).reshape(4, 3))
    assert ntk.participation_ratio(*case, jax.random.PRNGKey(0)) == ntk.participation_ratio(*case, jax.random.key(0))
