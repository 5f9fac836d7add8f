import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.programs import Execution
from nasi_jax.search.darts import architecture_gradient

SPACE = ToySpace()
SOURCE = data.halves(data.Gaussian((8, 8, 3), outputs=3), 0.5, 4)
SMALL = {
    "steps": 8,
    "batch": 4,
    "moments": 4,
    "window": 2,
    "stop_ratio": 1.3,
    "auxiliary_skip": 0.0,
    "size": SPACE.Size(2, 1),
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("xi", [0.0, 0.1, 0.25, 0.5])
def test_the_fixed_point_of_the_papers_example(x64, xi, exact):
    """L_val = a w - 2 a + 1, L_train = w^2 - 2 a w + a^2, from (2, -2): a = w = 2 / (1 + 2 xi); 1 is the optimum."""

    def training(w, a):
        return w**2 - 2 * a["a"] * w + a["a"] ** 2

    def validation(w, a):
        return a["a"] * w - 2 * a["a"] + 1

    def step(_, point):
        a, w = point
        _, slope = architecture_gradient(
            training, validation, w, {"a": a}, jnp.asarray(xi), lambda g, rate: w - rate * g, exact=exact
        )
        a = a - 0.1 * slope["a"]
        return a, w - 0.1 * jax.grad(training)(w, {"a": a})

    a, w = jax.lax.fori_loop(0, 2000, step, (jnp.asarray(2.0), jnp.asarray(-2.0)))
    np.testing.assert_allclose([a, w], 2 / (1 + 2 * xi), rtol=1e-6)


def test_a_linear_operation_beside_a_skip_gets_the_weight_that_is_known(x64):
    """Training brings w to 3; the validation loss wants p w + (1 - p) = 2, hence p = 1/2, from any start."""

    def training(w, p):
        return (w - 3.0) ** 2

    def validation(w, p):
        return (p["edge"] @ jnp.stack([w, 1.0]) - 2.0) ** 2

    def step(_, point):
        alphas, w = point
        p, pullback = jax.vjp(lambda a: {"edge": jax.nn.softmax(a)}, alphas)
        _, slope = architecture_gradient(training, validation, w, p, jnp.zeros(()), None, exact=True)
        alphas = alphas - pullback(slope)[0]
        return alphas, w - 0.1 * jax.grad(training)(w, p)

    alphas, _ = jax.lax.fori_loop(0, 500, step, (jnp.array([-1.0, 1.0]), jnp.asarray(0.0)))
    np.testing.assert_allclose(jax.nn.softmax(alphas), 0.5, rtol=1e-6)


@functools.cache
def case():
    """Losses of a smooth network, its weights, and weights of the operations."""
    strategy = search.DARTS(**SMALL)
    state, _ = strategy.begin(SPACE, SOURCE, jax.random.key(0))
    loss = strategy.mean_loss(SPACE, SOURCE, Execution())
    batches = [SOURCE.batch(jax.random.key(i), 16) for i in range(2)]
    weights = {"cell": jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 5)))}
    training, validation = (lambda p, w, b=batch: loss(p, w, b) for batch in batches)
    return training, validation, state.params, weights


def slope(xi, exact=True, order="second"):
    training, validation, params, weights = case()

    def ahead(gradient, rate):
        return jax.tree.map(lambda w, g: w - rate * g, params, gradient)

    ahead = None if order == "first" else ahead
    return architecture_gradient(training, validation, params, weights, jnp.asarray(xi), ahead, exact=exact)[1]["cell"]


def test_second_order_is_the_gradient_through_a_step_of_training(x64):
    case.cache_clear()
    training, validation, params, weights = case()

    def unrolled(w):
        ahead = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(training)(params, w))
        return validation(ahead, w)

    expected = jax.jit(jax.grad(unrolled))(weights)["cell"]
    exact, difference, first = slope(0.1), slope(0.1, exact=False), slope(0.1, order="first")
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(exact - expected) < 1e-10 * scale
    assert np.linalg.norm(difference - expected) < 1e-4 * scale
    assert np.linalg.norm(first - expected) > 1e-2 * scale
    np.testing.assert_array_equal(slope(0.0), first)
    case.cache_clear()


def test_second_order_without_a_rate_is_first_order_bit_by_bit():
    """The whole step: what it looks ahead includes the velocity and the weight decay."""
    states = []
    for order in ({}, {"order": "second", "xi": 0.0}, {"order": "second", "xi": 0.1}):
        strategy = search.DARTS(**SMALL, **order)
        state, _ = strategy.begin(SPACE, SOURCE, jax.random.key(0))
        step = jax.jit(lambda s, key, own=strategy: own.step(SPACE, SOURCE, s, (), key))
        for number in range(3):
            state, _ = step(state, jax.random.key(number))
        states.append(state)
    first, zero, second = (np.asarray(state.alphas["cell"]) for state in states)
    np.testing.assert_array_equal(first, zero)
    assert not np.array_equal(first, second)


def test_the_eigenvalue_is_that_of_the_whole_hessian(x64):
    strategy = search.DARTS(**SMALL, logits_decay=0.01)
    state, _ = strategy.begin(SPACE, SOURCE, jax.random.key(0))
    state = state.replace(alphas={"cell": jax.random.normal(jax.random.key(3), (6, 5))}, step=strategy.warmup_steps + 1)
    key = jax.random.key(4)
    loss, batch = strategy.mean_loss(SPACE, SOURCE, Execution()), SOURCE.validation.batch(key, strategy.batch)

    def of_logits(flat):
        return loss(state.params, {"cell": jax.nn.softmax(flat.reshape(6, 5))}, batch)

    hessian = jax.jit(jax.hessian(of_logits))(state.alphas["cell"].ravel()) + 0.01 * np.eye(30)
    found = strategy._measured(SPACE, SOURCE, state, key, Execution())["eigenvalue"]
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[-1], rtol=1e-3)


def test_lanczos_is_exact_for_any_symmetric_matrix():
    rng = np.random.default_rng(0)
    for size in (1, 2, 30):
        matrix = rng.normal(size=(size, size))
        matrix = matrix + matrix.T
        found = search.largest_eigenvalue(lambda v, m=matrix: m @ v, size, tolerance=1e-12)
        np.testing.assert_allclose(found, np.linalg.eigvalsh(matrix)[-1], rtol=1e-10)
    assert search.largest_eigenvalue(lambda v: 0 * v, 5) == 0
    assert np.isnan(search.largest_eigenvalue(lambda v: v * np.nan, 5))


def test_the_stop_rule_on_sequences():
    """25 values, one every second epoch; 1.4 times as large after epoch 20."""
    constant, jump = np.ones(25), np.where(2 * np.arange(25) > 20, 1.4, 1.0)
    first = {
        name: next(((n, stop) for n in range(1, 26) if (stop := search.stop_at(values[:n])) is not None), None)
        for name, values in {"constant": constant, "jump": jump, "falling": jump[::-1]}.items()
    }
    assert first["constant"] is None
    assert first["falling"] is None
    # four of the last five values are larger, 1.32 in the mean, and none of the five that end four before
    assert first["jump"] == (15, 8)
    assert search.stop_at(-jump) is None
    early = np.where(np.arange(25) > 3, 2.0, 1.0)
    assert all(search.stop_at(early[:n]) is None for n in range(1, 26))


def test_a_search_that_stops_goes_back_to_the_earlier_logits(monkeypatch):
    values = iter([1.0] * 10 + [2.0] * 15)
    monkeypatch.setattr(search.darts, "largest_eigenvalue", lambda *_: next(values))
    strategy = search.DARTS(**SMALL | {"steps": 25, "moments": 25, "window": 5})
    chunks = list(search.iterate(jax.random.key(0)[None], SPACE, SOURCE, strategy))
    state = jax.tree.map(lambda leaf: leaf[0], chunks[-1][0])
    expected = next(n for n in range(1, 26) if search.stop_at(np.array([1.0] * 10 + [2.0] * 15)[:n]) is not None)
    assert len(chunks) == expected
    moment = int(state.stopped)
    np.testing.assert_array_equal(state.alphas["cell"], state.moments["cell"][moment])
    assert int(state.step) > strategy.moments_at[moment]


def test_a_search_never_goes_back_into_the_warm_up(monkeypatch):
    """Eigenvalues count from the first moment after it, as if the search began there."""
    values = iter([1.0] * 10 + [2.0] * 15)
    monkeypatch.setattr(search.darts, "largest_eigenvalue", lambda *_: next(values))
    strategy = search.DARTS(**SMALL | {"steps": 30, "moments": 30, "window": 5, "warmup": 0.2})
    last = list(search.iterate(jax.random.key(0)[None], SPACE, SOURCE, strategy))[-1][0]
    expected = next(
        (n, stop) for n in range(1, 25) if (stop := search.stop_at(np.array([1.0] * 10 + [2.0] * 15)[:n])) is not None
    )
    assert (int(last.step[0]), int(last.stopped[0])) == (expected[0] + 6, expected[1] + 6)
    assert np.isnan(last.looks["eigenvalue"][0, :6]).all()


def test_logits_stay_while_weights_warm_up():
    strategy = search.DARTS(**SMALL | {"warmup": 0.5, "stop_ratio": 0.0})
    states = [jax.tree.map(lambda leaf: leaf[0], s) for s, _ in
              search.iterate(jax.random.key(0)[None], SPACE, SOURCE, strategy)]  # fmt: skip
    first = strategy.begin(SPACE, SOURCE, jax.random.fold_in(jax.random.key(0), strategy.steps)).state
    moved = [not np.array_equal(state.alphas["cell"], first.alphas["cell"]) for state in states]
    assert moved == [False] * 4 + [True] * 4
    assert not any(np.array_equal(a, b) for a, b in zip(
        jax.tree.leaves(first.params), jax.tree.leaves(states[0].params), strict=True))  # fmt: skip


def test_weights_follow_sgd_and_logits_follow_adam(x64):
    """One step against the rules written out: clipping before decay, velocity, L2 in the gradient of the logits."""
    settings = SMALL | {"gradient_clip": 0.5, "weight_decay": 0.1, "logits_decay": 0.3, "final_learning_rate": 0.025}
    strategy = search.DARTS(**settings)
    state, _ = strategy.begin(SPACE, SOURCE, jax.random.key(0))
    gradient = jax.tree.map(lambda w: jnp.ones_like(w), state.params)
    velocity = jax.tree.map(jnp.zeros_like, state.params)
    expected = state.params
    for _ in range(2):
        params, optimizer, norm = strategy.descend(state, gradient)
        clipped = jax.tree.map(lambda g, n=norm: g * jnp.minimum(1, 0.5 / n), gradient)
        velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 0.1 * w, velocity, clipped, expected)
        expected = jax.tree.map(lambda w, v: w - 0.025 * v, expected, velocity)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), params, expected)
        state = state.replace(params=params, optimizer=optimizer)
    alphas, _, norm, _ = strategy.move(state, {"cell": jnp.full((6, 5), 0.01)})
    total = 0.01 + 0.3 * state.alphas["cell"]
    np.testing.assert_allclose(alphas["cell"], state.alphas["cell"] - 0.01 * total / (abs(total) + 1e-8), rtol=1e-9)
    np.testing.assert_allclose(norm, 0.01 * np.sqrt(30))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps: expected"),
        ({"validation": 0.0}, "validation: expected a share above 0 and below 1, got 0.0"),
        ({"validation": 1.0}, "validation: expected a share above 0 and below 1, got 1.0"),
        ({"xi": 0.1}, "xi: expected none with order 'first'"),
        ({"xi": 0.1, "order": "single-level"}, "xi: expected none"),
        ({"xi": -1.0, "order": "second"}, "xi: expected a number of at least 0"),
        ({"order": "third"}, "order: expected one of"),
        ({"mixture": "gumbel"}, "mixture: expected one of"),
        ({"moments": 3, "stop_ratio": 1.3}, "window: expected at most 3"),
        ({"moments": 9, "steps": 8}, "moments: expected at most 8"),
        ({"warmup": 1.0}, "warmup: expected a number from 0 to below 1"),
        ({"warmup": 0.6, "perturbation": 0.5}, "warmup: expected fewer than"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive number"),
        ({"weight_decay": float("nan")}, "weight_decay: expected"),
        ({"temperature": 0.0, "mixture": "hard"}, "temperature: expected"),
        ({"recalibration": -1}, "recalibration: expected"),
    ],
)
def test_bad_settings_are_refused_by_name(bad, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        search.DARTS(**bad)


def test_data_that_cannot_be_split():
    x, y = np.zeros((10, 8, 8, 3), np.uint8), np.arange(10) % 2
    strategy = search.DARTS(**SMALL | {"batch": 6})
    with pytest.raises(ValueError, match=r"validation: .* a batch of 6 in both parts of 10 examples, got 0.5"):
        search.check(SPACE, data.from_arrays(x, y), strategy)
    with pytest.raises(ValueError, match=r"labels: expected at least two .* all examples have label 1"):
        search.check(SPACE, data.from_arrays(x, np.ones(10, int)), search.DARTS(**SMALL))
    with pytest.raises(ValueError, match="labels: expected at least two"):
        search.check(SPACE, data.Gaussian((8, 8, 3), outputs=1), search.DARTS(**SMALL))
    with pytest.raises(ValueError, match="drop_path: expected 0, networks of toy have none"):
        search.check(SPACE, SOURCE, search.DARTS(**SMALL, drop_path=0.1))


def test_the_parts_have_no_example_in_common():
    x = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8)
    parts = search.DARTS(**SMALL).prepared(data.from_arrays(x, np.arange(20) % 3))
    seen = [set(np.asarray(part.x[:, 0, 0, 0]).tolist()) for part in (parts.training, parts.validation)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(20))
    np.testing.assert_array_equal(parts.training.mean, parts.validation.mean)


def test_images_change_from_step_to_step_and_those_that_only_watch_do_not():
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    source = data.from_arrays(x, np.arange(20) % 3)
    common = {**SMALL, "crop": 1, "flip": True, "cutout": 2}
    parts = search.DARTS(**common).prepared(source)
    plain = search.DARTS(**SMALL).prepared(source)
    for part, images in zip((parts.training, parts.validation), (plain.training, plain.validation), strict=True):
        assert (part.crop, part.flip, part.cutout) == (1, True, 2)
        np.testing.assert_array_equal(part.images.x, images.x)
        assert len(part) == 10
    watched = search.SNAS(
        **{name: common[name] for name in ("steps", "batch", "moments", "size", "crop")}, validation=0.5
    ).prepared(source)
    assert isinstance(watched.training, data.Augmented)
    assert isinstance(watched.validation, data.Images)


def test_published_settings_change_images_where_there_are_any():
    assert search.method("darts", SPACE, "darts-v1").crop == search.method("snas", SPACE, "snas").crop == 4
    assert search.method("darts", SPACE, "r-darts-dp").cutout == 16
    assert search.method("darts", SPACE).crop == 0
    graphs = search.method("darts", spaces.get("nasbench-graph"), "r-darts-dp")
    assert (graphs.crop, graphs.flip, graphs.cutout, graphs.drop_path) == (0, False, 0, 0.6)


def test_methods_are_hashable_and_presets_fit_every_space():
    for name, presets in search.METHODS.items():
        assert "default" in presets
        for preset in presets:
            strategy = search.method(name, SPACE, preset)
            assert hash(strategy) == hash(dataclasses.replace(strategy))
    with pytest.raises(ValueError, match="strategy: expected one of"):
        search.method("dartz", SPACE)
    with pytest.raises(ValueError, match="preset: expected one of"):
        search.method("darts", SPACE, "snas")
