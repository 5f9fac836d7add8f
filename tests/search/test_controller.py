import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from strategy_cases import DecisionSpace
from strategy_cases import search as search_planted

from nasi_jax import spaces
from nasi_jax.search import LSTMController

SPACE = DecisionSpace((4, 2, 3, 4))
KEY = jax.random.key(0)
GATES = ("i", "f", "g", "o")


def test_the_policy_is_the_lstm_of_flax():
    """Two layers: the start vector, then the embedding of each option taken."""
    strategy = LSTMController(hidden=5, layers=2, temperature=3.0, bound=1.5)
    policy = jax.tree.map(lambda leaf: 10 * leaf, strategy.init_policy(KEY, SPACE))
    taken = jnp.array([3, 0, 2, 1])
    _, found = strategy.walk(policy, SPACE, lambda row, _: taken[row])
    cell, kinds = nn.LSTMCell(5), [2, 0, 1, 2]  # decisions with as many options share their weights
    parameters = []
    for layer in policy["layers"]:
        kernels, biases = jnp.split(layer["kernel"], 4), jnp.split(layer["bias"], 4)
        tree = {}
        for gate, kernel, bias in zip(GATES, kernels, biases, strict=True):
            tree[f"i{gate}"] = {"kernel": kernel[:, :5].T}
            tree[f"h{gate}"] = {"kernel": kernel[:, 5:].T, "bias": bias}
        parameters.append({"params": tree})
    memory = [(jnp.zeros(5), jnp.zeros(5))] * 2
    x = policy["start"]
    for row, count in enumerate(SPACE.decisions):
        for i in range(2):
            memory[i], x = cell.apply(parameters[i], memory[i], x)
        logits = 1.5 * jnp.tanh(policy["logits"][kinds[row]][:count] @ x / 3.0)
        np.testing.assert_allclose(found[row, :count], jax.nn.log_softmax(logits), rtol=1e-4, atol=1e-6)
        assert (jnp.exp(found[row, count:]) == 0).all()
        x = policy["embeddings"][kinds[row], taken[row]]


def test_a_decision_depends_on_those_before_it():
    strategy = LSTMController(hidden=8)
    policy = jax.tree.map(lambda leaf: 10 * leaf, strategy.init_policy(KEY, SPACE))
    first, second = (strategy.walk(policy, SPACE, lambda row, _, a=a: a * (row == 0))[1] for a in (0, 3))
    np.testing.assert_array_equal(first[0], second[0])
    assert (np.abs(first[1:] - second[1:]).max(axis=1) > 1e-3).all()


def test_it_learns_in_the_darts_space():
    """The share of right entries goes up over searches, of which some end early at a poor policy."""
    keys, strategy = jax.random.split(KEY, 4), LSTMController(hidden=16, learning_rate=1e-2)
    values, _ = jax.vmap(lambda key: search_planted(strategy, spaces.get("darts"), key, 3000))(keys)
    assert values[:, :200].mean() < 0.45
    assert values[:, -200:].mean() > 0.55


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"layers": 0}, {"temperature": 0.0}, {"bound": -1.0}, {"samples": 0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LSTMController(**bad)
