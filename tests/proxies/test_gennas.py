import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasi_jax import proxies
from nasi_jax.proxies import signals
from nasi_jax.proxies.gennas import Heads, Regression, losses

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
TASK = signals.Task(
    (
        signals.Stage(0.05, (signals.Dot(partial=0.5),)),
        signals.Stage(0.08, (signals.Sin1D(frequencies=(0.1, 0.3)),)),
        signals.Stage(0.1, (signals.Resize(), signals.GDot(partial=0.3, local=True))),
    ),
    "uniform",
    0.1,
)


def silent(key, x):
    return x


def parameters(key):
    first, second = jax.random.split(key)
    return {"a": 0.5 * jax.random.normal(first, (3, 4)), "b": 0.5 * jax.random.normal(second, (4, 5))}


def network(params, statistics, x, training):
    """Two layers of 1x1 convolutions between three stages of 8x8, 4x4 and 4x4 pixels."""
    y = jnp.tanh(x @ params["a"])
    z = jnp.tanh(y[:, ::2, ::2] @ params["b"])
    return [y, z, z**2], statistics


def frozen(*maps):
    return lambda params, statistics, x, training: (maps, statistics)


def run(stages_fn, params, regression, noisy=silent, **options):
    return jax.jit(lambda p, x: losses(stages_fn, p, (), x, regression, noisy, KEY, **options))(params, X)


def test_heads_on_a_frozen_trunk_approach_the_least_squares_fit():
    keys = jax.random.split(KEY, 6)
    maps = [jax.random.normal(key, (4, 4, 4, 3)) for key in keys[:3]]
    targets = [jax.random.normal(key, (4, 4, 4, 2)) for key in keys[3:]]
    best = 0.0
    for weight, x, y in zip((0.25, 0.5, 1.0), maps, targets, strict=True):
        design = np.c_[np.reshape(x, (-1, 3)), np.ones(64)]
        rest = np.linalg.lstsq(design, np.reshape(y, (-1, 2)), rcond=None)[1]
        best += weight * rest.sum() / 128
    found = run(frozen(*maps), {}, Regression.of(targets), steps=2000, every=500)
    assert best < found[-1] < 1.003 * best  # running variances are unbiased ones, which the batch's are not
    assert found[0] > found[-1] - 1e-6


@pytest.mark.slow
def test_constant_maps_can_fit_no_more_than_the_mean_of_each_channel():
    """What a cell without any operation leaves."""
    targets = TASK.targets(KEY, X, 4)
    spread = [jnp.mean(jnp.var(t, axis=(0, 1, 2))) for t in targets]
    best = 0.25 * spread[0] + 0.5 * spread[1] + spread[2]
    constant = frozen(*(jnp.full((4, 4, 4, 2), value) for value in (0.0, 1.0, -2.0)))
    found = run(constant, {}, Regression.of(targets), steps=2000, every=100)
    assert (found > best * (1 - 1e-5)).all()
    np.testing.assert_allclose(found[-1], best, rtol=1e-3)


def test_steps_are_those_of_sgd_with_momentum_and_decay_of_weights(x64):
    """Against a loop written out with optax, in float64."""
    x, params = X.astype(jnp.float64), jax.tree.map(lambda leaf: leaf.astype(jnp.float64), parameters(KEY))
    targets = TASK.targets(KEY, x, 4)
    found = losses(network, params, (), x, Regression.of(targets), silent, KEY, steps=6, every=2)

    drawn = Heads(4, tuple(t.shape[-1] for t in targets)).lazy_init(
        jax.random.split(KEY, 3)[0], jax.eval_shape(lambda: network(params, (), x, True)[0])
    )["params"]
    moments = [(0.0, 1.0)] * 3

    def loss(trained, given):
        maps, _ = network(trained["network"], (), x, True)
        total, seen = 0.0, []
        for i, (y, target) in enumerate(zip([maps[0][:, ::2, ::2], *maps[1:]], targets, strict=True)):
            mean, variance = (y.mean((0, 1, 2)), y.var((0, 1, 2))) if given is None else given[i]
            head = trained["heads"]
            normal = (y - mean) / jnp.sqrt(variance + 1e-5) * head[f"norm_{i}"]["scale"] + head[f"norm_{i}"]["bias"]
            output = jnp.einsum("nhwc,cd->nhwd", normal, head[f"kernel_{i}"]) + head[f"bias_{i}"]
            total += (0.25, 0.5, 1.0)[i] * jnp.mean((output - target) ** 2)
            seen.append((y.mean((0, 1, 2)), y.var((0, 1, 2), ddof=1)))
        return total, seen

    decayed = optax.add_decayed_weights(4e-5, lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree))
    sgd = optax.chain(decayed, optax.sgd(0.1, 0.9))
    trained, expected = {"network": params, "heads": drawn}, []
    state = sgd.init(trained)
    slopes_of = jax.jit(jax.grad(lambda trained: loss(trained, None), has_aux=True))
    with jax.numpy_rank_promotion("allow"):
        for i in range(6):
            slopes, seen = slopes_of(trained)
            moments = [
                tuple(0.9 * a + 0.1 * b for a, b in zip(*pair, strict=True)) for pair in zip(moments, seen, strict=True)
            ]
            updates, state = jax.jit(sgd.update)(slopes, state, trained)
            trained = optax.apply_updates(trained, updates)
            if i % 2:
                expected.append(jax.jit(loss)(trained, moments)[0])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_one_by_one_on_the_host_in_a_program_and_several_at_once_give_the_same():
    params = [parameters(key) for key in jax.random.split(KEY)]

    def score(p):
        return proxies.gennas(network, p, (), X, TASK, KEY, steps=5)

    expected = [float(score(p)) for p in params]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    np.testing.assert_allclose(jax.jit(score)(params[0]), expected[0], rtol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(together), expected, rtol=1e-4)
    assert len(set(expected)) == 2
    assert max(expected) < 0


@pytest.mark.slow
def test_noise_is_fresh_in_each_step_and_a_longer_training_begins_as_a_shorter_one():
    regression = Regression.of(TASK.targets(KEY, X, 4))
    long = run(network, parameters(KEY), regression, TASK.noisy, steps=4, every=2)
    short = run(network, parameters(KEY), regression, TASK.noisy, steps=2, every=2)
    still = run(network, parameters(KEY), regression, steps=4, every=2)
    np.testing.assert_allclose(long[:1], short, rtol=1e-5)
    assert np.abs(long - still).min() > 1e-5


def test_a_training_that_diverges_has_no_score():
    params = {"a": jnp.full((3, 4), jnp.inf), "b": jnp.ones((4, 5))}
    found = jax.jit(lambda p: proxies.gennas(network, p, (), 0 * X, TASK, KEY, steps=2))(params)
    assert np.isnan(found)


@pytest.mark.parametrize(
    ("stages_fn", "x", "options", "message"),
    [
        (network, X[:1], {}, "x: expected at least 2 images, which batch normalisation takes apart, got 1"),
        (network, X[:, :2, :2], {}, "x: expected images of which the last stage leaves at least 2x2 pixels, got 1x1"),
        (lambda p, s, x, t: ([x, x], s), X, {}, "stages_fn: expected feature maps .* of 3 stages"),
        (lambda p, s, x, t: ([x, x, x.mean((1, 2))], s), X, {}, "stages_fn: expected feature maps"),
        (lambda p, s, x, t: ([x[:, :4], x, x], s), X, {}, "stages_fn: expected stages of at least 8x8, as the last"),
        (network, X, {"steps": 0}, "steps: expected a positive integer, got 0"),
    ],
)
def test_bad_input_is_refused(stages_fn, x, options, message):
    with pytest.raises(ValueError, match=message):
        proxies.gennas(stages_fn, parameters(KEY), (), x, TASK, KEY, **options)


def test_evaluations_that_do_not_divide_the_steps_are_refused():
    with pytest.raises(ValueError, match="every: expected a divisor of 10 steps, got 3"):
        run(network, parameters(KEY), Regression.of([jnp.zeros((4, 4, 4, 2))] * 3), steps=10, every=3)
