import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search

SPACE = ToySpace()
SOURCE = data.Gaussian((8, 8, 3), outputs=3)
SMALL = {"batch": 4, "size": SPACE.Size(2, 1)}
RELAXED = {"objective": "one-batch", "estimator": "soft", "rounds": 1, "radius": 1.0}


@functools.cache
def params(config):
    return jax.jit(lambda key: config.init_params(SPACE, SOURCE, key))(jax.random.key(9))


@functools.cache
def compiled(config):
    return jax.jit(lambda state, p, key: config.step(SPACE, SOURCE, state, p, key))


def run(config, state=None, seed=0, steps=None):
    state = config.init(SPACE) if state is None else state
    infos = []
    for t in range(config.steps if steps is None else steps):
        state, info = compiled(config)(state, params(config), jax.random.fold_in(jax.random.key(seed), t))
        infos.append(info)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *infos)


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_adaptive_nu_follows_its_start_and_the_traces_before(rule):
    config = search.NASI(steps=5, nu=7.0, mu=1.0, adaptive=rule, **RELAXED, **SMALL)
    _, info = run(config)
    expected = [getattr(np, rule)([7.0, *info.trace[:t]]) for t in range(5)]
    np.testing.assert_allclose(info.nu, expected, rtol=1e-5)


def test_penalty_is_equation_13():
    config = search.NASI(steps=6, nu=3.0, mu=1.5, **RELAXED, **SMALL)
    _, info = run(config)
    np.testing.assert_allclose(info.penalty, 1.5 * np.maximum(0, info.trace - 3.0), rtol=1e-6)
    np.testing.assert_allclose(info.nu, 3.0)


@pytest.mark.parametrize("estimator", ["soft", "hard"])
def test_above_the_constraint_the_gradient_is_scaled_by_one_minus_mu(estimator):
    """dR = (1 - mu) dT where T > nu: mu = 2 reverses the direction, mu = 1 stops it, nu = infinity ignores mu."""
    settings = RELAXED | {"estimator": estimator} | SMALL
    free, _ = run(search.NASI(steps=1, mu=0.0, **settings))
    config = search.NASI(steps=1, **settings)
    for mu, nu, factor in ((2.0, 0.0, -1), (1.0, 0.0, 0), (2.0, np.inf, 1)):
        state, _ = run(config, config.init(SPACE, mu=mu, nu=nu))
        np.testing.assert_allclose(state.alphas["cell"], factor * free.alphas["cell"], atol=1e-5)


def test_one_round_is_the_closed_form_of_equation_18(x64):
    """Logits equal xi / T times the sum of G_t over the largest norm so far, with every G_t taken at alpha_0 = 0."""
    config = search.NASI(steps=4, **(RELAXED | {"radius": 2.0}), **SMALL)
    state, info = run(config)
    gradients = []
    for t in range(4):
        single = search.NASI(steps=1, **(RELAXED | {"radius": 1.0}), **SMALL)
        one, one_info = compiled(single)(single.init(SPACE), params(config), jax.random.fold_in(jax.random.key(0), t))
        gradients.append(one.alphas["cell"] * one_info.gradient_norm)
        np.testing.assert_allclose(one_info.gradient_norm, info.gradient_norm[t], rtol=1e-9)
    largest = np.maximum.accumulate(info.gradient_norm)
    expected = 2.0 / 4 * sum(g / n for g, n in zip(gradients, largest, strict=True))
    np.testing.assert_allclose(state.alphas["cell"], expected, rtol=1e-8, atol=1e-10)


def test_each_round_takes_a_step_of_the_radius_and_starts_from_there():
    config = search.NASI(steps=12, rounds=3, radius=2.0, **SMALL)
    state, origins = config.init(SPACE), []
    for t in range(12):
        state, _ = run(config, state, seed=t, steps=1)
        origins.append(np.asarray(state.origin["cell"]))
    moved = [t for t in range(12) if t == 0 or not np.array_equal(origins[t], origins[t - 1])]
    assert moved == [0, 3, 7, 11]
    for before, after in ((origins[2], origins[3]), (origins[6], origins[7]), (origins[10], origins[11])):
        np.testing.assert_allclose(np.linalg.norm(after - before), 2.0, rtol=1e-5)
    np.testing.assert_array_equal(state.alphas["cell"], origins[-1])


def test_the_largest_probability_is_that_of_the_architecture_selected_so_far():
    state, info = run(search.NASI(steps=12, rounds=3, radius=2.0, **SMALL))
    logits = np.asarray(state.alphas["cell"], float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    selected = np.asarray(SPACE.encode(SPACE.decode(state.alphas))["cell"])
    np.testing.assert_allclose(info.largest_probability[-1], (probabilities * selected).sum(axis=1).prod(), rtol=1e-5)
    assert info.largest_probability[0] < 2 / probabilities.shape[1] ** len(probabilities)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_few_steps_still_move_the_logits(steps):
    state, _ = run(search.NASI(steps=steps, **SMALL))
    assert float(jnp.abs(state.alphas["cell"]).max()) > 0


def test_score_function_gradient_is_unbiased(monkeypatch):
    """Against the exact gradient of the expectation over all 15,625 cells, for an objective known in closed form."""
    table = np.random.default_rng(0).normal(size=(6, 5))
    pair = np.random.default_rng(1).normal(size=(5, 5))

    def objective(weights):
        w = weights["cell"]
        return jnp.sum(w * table) + w[0] @ pair @ w[3]

    monkeypatch.setattr(
        search.nasi, "measure", lambda _objective, _net, _params, w, *_: search.Measurement(objective(w), 0.0)
    )
    config = search.NASI(steps=4, rounds=1, optimizer="sgd", learning_rate=1.0, **SMALL)
    alphas = {"cell": jnp.asarray(np.random.default_rng(2).normal(size=(6, 5)), jnp.float32)}
    # multilinear, so that the expectation under a product distribution is the value at the probabilities
    expected = jax.grad(lambda a: objective({"cell": jax.nn.softmax(a["cell"])}))(alphas)["cell"]
    start = config.init(SPACE).replace(alphas=alphas, step=jnp.array(1), objective_sum=jnp.array(0.5))

    def gradient(key):
        state, _ = config.step(SPACE, SOURCE, start, params(config), key)
        return state.alphas["cell"] - alphas["cell"]

    drawn = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(3), 20_000)))
    error = np.abs(drawn.mean(axis=0) - expected) / (drawn.std(axis=0) / np.sqrt(len(drawn)) + 1e-12)
    assert error.max() < 4.5


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("estimator", ["soft", "hard"])
def test_gumbel_samples_follow_p_alpha(estimator, temperature):
    """The largest weight of a Gumbel-Softmax sample is distributed as softmax(alpha), at any temperature."""
    logits = {"cell": jnp.tile(jnp.array([0.0, 1.0, -1.0, 0.5, 2.0]), (6, 1))}
    sample = jax.jit(jax.vmap(lambda key: search.gumbel_softmax(key, logits, temperature, estimator)["cell"]))
    weights = np.asarray(sample(jax.random.split(jax.random.key(0), 5000)))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    frequency = np.eye(5)[weights.argmax(axis=-1)].mean(axis=(0, 1))
    expected = np.asarray(jax.nn.softmax(logits["cell"][0]))
    assert np.abs(frequency - expected).max() < 5 * np.sqrt(0.25 / 30_000)
    if estimator == "hard":
        assert ((weights < 1e-6) | (weights > 1 - 1e-6)).all()


def test_vmap_over_settings_evaluates_the_network_once():
    config = search.NASI(steps=3, mu=1.0, **RELAXED, **SMALL)
    mu, nu = jnp.linspace(0.0, 2.0, 7), jnp.linspace(0.5, 3.0, 7)
    states = jax.vmap(lambda m, n: config.init(SPACE, mu=m, nu=n))(mu, nu)
    step = jax.vmap(functools.partial(config.step, SPACE, SOURCE), in_axes=(0, None, None))
    products = [
        line
        for line in str(jax.make_jaxpr(step)(states, params(config), jax.random.key(0))).splitlines()
        if "dot_general" in line
    ]
    assert products
    assert not any("f32[7," in line for line in products)

    keys = [jax.random.fold_in(jax.random.key(0), t) for t in range(3)]
    for key in keys:
        states, _ = jax.jit(step)(states, params(config), key)
    for i in range(7):
        alone, _ = run(config, config.init(SPACE, mu=mu[i], nu=nu[i]))
        np.testing.assert_allclose(states.alphas["cell"][i], alone.alphas["cell"], atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_optimiser_moves_the_logits_uphill(optimizer):
    """On a fixed batch and sample, following the gradient raises the objective."""
    config = search.NASI(
        steps=15, optimizer=optimizer, learning_rate=0.03, **(RELAXED | {"estimator": "soft"}), **SMALL
    )
    state, values = config.init(SPACE), []
    for _ in range(15):
        state, info = compiled(config)(state, params(config), jax.random.key(5))
        values.append(float(info.objective))
    assert values[-1] > values[0]
    assert float(jnp.abs(state.alphas["cell"]).max()) > 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"batch": 0}, "batch"),
        ({"micro_batches": 5, "objective": "one-batch"}, "micro_batches"),
        ({"micro_batches": 32, "objective": "one-batch"}, "micro_batches"),
        ({"micro_batches": 2}, "micro_batches"),
        ({"mu": -1.0}, "mu"),
        ({"nu": -0.5}, "nu"),
        ({"nu": float("nan")}, "nu"),
        ({"temperature": 0.0}, "temperature"),
        ({"radius": float("inf")}, "radius"),
        ({"rounds": 0}, "rounds"),
        ({"objective": "accuracy"}, "objective"),
        ({"estimator": "exact"}, "estimator"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"parameterisation": "mup"}, "parameterisation"),
        ({"learning_rate": -0.1}, "learning_rate"),
    ],
)
def test_bad_settings_are_refused_by_name(bad, message):
    with pytest.raises(ValueError, match=f"^{message}: expected"):
        search.NASI(**bad)


@pytest.mark.parametrize("estimator", ["soft", "score-function"])
def test_mixed_precision_measures_nearly_the_same_and_keeps_the_state(estimator):
    config = search.NASI(steps=8, batch=8, size=SPACE.Size(4, 1), **RELAXED | {"estimator": estimator})
    half = dataclasses.replace(config, mixed_precision=True)
    (exact, info), (rough, rough_info) = run(config), run(half)
    assert jax.tree.map(lambda leaf: leaf.dtype, rough) == jax.tree.map(lambda leaf: leaf.dtype, exact)
    np.testing.assert_allclose(rough_info.trace, info.trace, rtol=0.1)
    assert not np.array_equal(rough_info.trace, info.trace)
    a, b = (state.alphas["cell"].ravel() for state in (exact, rough))
    assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.95
    program = jax.make_jaxpr(lambda s, p: half.step(SPACE, SOURCE, s, p, jax.random.key(0)))
    assert "bf16" in str(program(exact, params(config)))
