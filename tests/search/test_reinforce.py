import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategy_cases import DecisionSpace, reached

from nasi_jax import search, spaces
from nasi_jax.search import Reinforce

SPACE = DecisionSpace((4, 2, 3))
KEY = jax.random.key(0)
MEANS = [
    [65.507, 69.383, 72.614, 72.859, 63.896],
    [66.369, 69.158, 71.350, 71.736, 65.646],
    [69.020, 68.212, 69.704, 70.236, 67.086],
    [59.548, 72.455, 73.325, 73.598, 65.334],
    [66.792, 69.083, 70.911, 71.148, 66.323],
    [65.451, 69.141, 72.014, 72.234, 65.419],
]
"""NAS-Bench-201, CIFAR-10 validation after 12 epochs: mean over all cells with an operation on an edge."""
OVERALL = 68.852


def by_hand(theta, strategy, options, values):
    """The policy after these, in float64 and from the gradient worked out on paper, for logits that are all there."""
    theta, m, v, steps, baseline, weight = np.array(theta, float), 0.0, 0.0, 0, 0.0, 0.0
    for start in range(0, len(values) - len(values) % strategy.samples, strategy.samples):
        chosen, rewards = options[start : start + strategy.samples], values[start : start + strategy.samples]
        baseline = strategy.decay * baseline + (1 - strategy.decay) * rewards.mean()
        weight = strategy.decay * weight + (1 - strategy.decay)
        advantages = rewards - baseline / weight
        if strategy.normalise:
            advantages = advantages / (rewards.std() + 1e-8)
        one_hot = np.eye(theta.shape[1])[chosen]
        before = None
        for _ in range(strategy.epochs):
            pi = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)
            now = np.log((one_hot * pi).sum(axis=2)).sum(axis=1)
            before = now if before is None else before
            rho = np.exp(now - before)
            counts = np.where(advantages > 0, rho < 1 + strategy.clip, rho > 1 - strategy.clip)
            gradient = -np.mean((counts * rho * advantages)[:, None, None] * (one_hot - pi), axis=0)
            entropy = -(pi * np.log(pi)).sum(axis=1, keepdims=True)
            gradient -= strategy.entropy * -pi * (np.log(pi) + entropy)
            if strategy.max_norm is not None:
                gradient *= min(1, strategy.max_norm / np.sqrt((gradient**2).sum()))
            steps += 1
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            theta = theta - strategy.learning_rate * (m / (1 - 0.9**steps)) / (np.sqrt(v / (1 - 0.999**steps)) + 1e-8)
    return theta


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"samples": 5, "learning_rate": 0.1},
        {"samples": 5, "epochs": 4, "normalise": True, "learning_rate": 0.1},
        {"samples": 4, "epochs": 8, "clip": 0.05},
        {"entropy": 0.3, "decay": 0.5},
        {"max_norm": 0.1},
    ],
)
def test_the_policy_follows_the_gradient_by_hand(options, x64):
    space, strategy = DecisionSpace((3, 3, 3, 3)), Reinforce(**options)
    genotypes = jax.vmap(space.sample)(jax.random.split(KEY, 43))
    values = np.random.default_rng(0).normal(size=43)
    state = strategy.init(KEY, space)
    expected = by_hand(state.policy, strategy, np.asarray(genotypes.options), values)
    state = jax.jit(strategy.tell)(state, genotypes, jnp.asarray(values))
    np.testing.assert_allclose(state.policy, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(expected).max() > 0.1


def test_one_epoch_never_clips():
    """The first inner step of PPO is the gradient of the batch: rho is 1."""
    genotypes = jax.vmap(SPACE.sample)(jax.random.split(KEY, 20))
    states = [
        strategy.tell(strategy.init(KEY, SPACE), genotypes, jnp.arange(20.0) % 7)
        for strategy in (Reinforce(samples=5, clip=0.2), Reinforce(samples=5, clip=1e-6))
    ]
    np.testing.assert_array_equal(states[0].policy, states[1].policy)


def test_gradient_of_the_expected_value_on_the_benchmark(benchmark_table):
    """At the uniform policy it is 0.2 (mean with that operation - mean of all): four standard errors of the draws."""
    from nasi_jax import tabular

    space = spaces.get("nasbench201")
    table = tabular.Table.read(benchmark_table, ["cifar10_val_12ep"]).lookup([
        space.format(g) for g in space.enumerate()
    ])
    values = jnp.asarray(table["cifar10_val_12ep"])
    strategy = Reinforce()
    uniform = dataclasses.replace(strategy.init(KEY, space), policy=jnp.zeros((6, 5)))
    genotypes, _ = strategy.ask(KEY, uniform, 100_000)
    gradient = jax.grad(lambda policy, options: strategy.likelihood(policy, space, options)[0])
    of_each = jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(uniform.policy, genotypes.operations)
    of_each *= (values[jax.vmap(space.index)(genotypes)] - OVERALL)[:, None, None]
    error = np.asarray(of_each.mean(axis=0)) - 0.2 * (np.array(MEANS) - OVERALL)
    assert (np.abs(error) < 4 * np.asarray(of_each.std(axis=0)) / np.sqrt(len(of_each))).all()


@pytest.mark.parametrize("name", ["reinforce", "reinforce-ppo", "reinforce-lstm"])
def test_a_bandit_comes_to_its_best_arm(name):
    space = DecisionSpace((5,))
    values = np.array([0.1, 0.3, 0.2, 0.9, 0.4])
    found = search.simulate(search.VARIANTS[name], space, values, jax.random.split(KEY, 10), 1500)
    # 2.5 tanh bounds the LSTM's probability to e^5 / (e^5 + 4) = 0.97
    assert (found.evaluated[:, -300:] == 3).mean() > 0.85


@pytest.mark.parametrize("name", ["reinforce", "reinforce-lstm"])
def test_draws_are_as_likely_as_said(name):
    """All likelihoods add to one, also where decisions differ in their options, and draws come as often."""
    strategy = search.VARIANTS[name]
    state = strategy.init(KEY, SPACE)
    state = dataclasses.replace(state, policy=jax.tree.map(lambda leaf: 3 * leaf / leaf.std(), state.policy))
    every = jax.vmap(SPACE.at)(jnp.arange(SPACE.cardinality))
    log, _ = jax.vmap(strategy.likelihood, in_axes=(None, None, 0))(state.policy, SPACE, every.options)
    np.testing.assert_allclose(jnp.exp(log).sum(), 1, rtol=1e-5)
    genotypes, _ = jax.jit(strategy.ask, static_argnums=2)(KEY, state, 20_000)
    drawn = np.bincount(np.asarray(jax.vmap(SPACE.index)(genotypes)), minlength=SPACE.cardinality)
    expected = 20_000 * np.exp(np.asarray(log))
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected) + 3).all()
    assert expected.max() > 5 * expected.min()


def test_values_that_are_not_numbers_are_left_out():
    strategy = Reinforce(samples=2)
    genotypes = jax.vmap(SPACE.sample)(jax.random.split(KEY, 6))
    some = jnp.array([0.3, jnp.nan, 0.9, jnp.nan, 0.1, 0.7])
    known = jnp.array([0, 2, 4, 5])
    state = strategy.tell(strategy.init(KEY, SPACE), genotypes, some)
    alone = strategy.tell(strategy.init(KEY, SPACE), jax.tree.map(lambda leaf: leaf[known], genotypes), some[known])
    np.testing.assert_array_equal(state.policy, alone.policy)
    assert state.told == 6


@pytest.mark.parametrize("name", ["reinforce", "reinforce-natsbench", "reinforce-ppo"])
def test_the_planted_optimum_of_darts_is_found(name):
    assert reached(search.VARIANTS[name], spaces.get("darts"), 3000)


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0.0},
        {"samples": 0},
        {"decay": 1.0},
        {"epochs": 0},
        {"clip": 0.0},
        {"normalise": True},
        {"entropy": -1.0},
        {"max_norm": 0.0},
    ],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Reinforce(**bad)


def test_a_learning_rate_at_which_the_policy_freezes_warns():
    with pytest.warns(UserWarning, match="freezes"):
        Reinforce(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reinforce(0.1)
