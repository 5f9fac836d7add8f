import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from nasi_jax import scores, search, spaces
from nasi_jax.scores.linear import LinearCost
from nasi_jax.search.relaxation import concrete_score, gumbel_softmax, perturbed
from nasi_jax.search.snas import COST_GRADIENTS, cost_gradient, row_costs, total_cost

ALPHAS = {"cell": jnp.array([[0.5, -0.3, 1.2, 0.0]])}
DRAWS = 40_000


def drawn(function, seed=0, draws=DRAWS):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(seed), draws)))


@pytest.mark.parametrize(("temperature", "largest"), [(0.03, 0.986), (0.3, 0.864), (1.0, 0.624), (3.0, 0.393)])
def test_the_law_of_the_concrete_sample(temperature, largest):
    """The largest entry follows softmax(alpha) at every temperature; the mean is not softmax(alpha) but at low ones."""
    sample = drawn(lambda key: gumbel_softmax(key, ALPHAS, temperature, "soft")["cell"][0])
    expected = np.asarray(jax.nn.softmax(ALPHAS["cell"][0]))
    np.testing.assert_allclose(expected, [0.2457, 0.1104, 0.4948, 0.1490], atol=5e-5)
    frequency = np.eye(4)[sample.argmax(axis=-1)].mean(axis=0)
    assert (abs(frequency - expected) < 5 * np.sqrt(expected * (1 - expected) / DRAWS)).all()
    np.testing.assert_allclose(sample.max(axis=-1).mean(), largest, atol=4e-3)
    if temperature == 1:
        np.testing.assert_allclose(sample.mean(axis=0), [0.258, 0.145, 0.418, 0.180], atol=4e-3)
    if temperature == 0.03:
        np.testing.assert_allclose(sample.mean(axis=0), expected, atol=0.01)


def test_the_search_gradient_is_that_of_the_paper(x64):
    """dL/dalpha_k = 1/lambda sum_m dL/dZ_m Z_m (delta_mk - Z_k)."""
    alphas = {"cell": jax.random.normal(jax.random.key(0), (6, 5))}
    slope = {"cell": jax.random.normal(jax.random.key(1), (6, 5))}
    z, pullback = jax.vjp(lambda a: gumbel_softmax(jax.random.key(2), a, 0.3, "soft"), alphas)
    g, z = np.asarray(slope["cell"]), np.asarray(z["cell"])
    expected = (g * z - z * (g * z).sum(axis=1, keepdims=True)) / 0.3
    np.testing.assert_allclose(pullback(slope)[0]["cell"], expected, rtol=1e-9)


COST = LinearCost(7.0, {"cell": np.array([[0.0, 3.0, 10.0, 1.0]])})


def exact():
    p, c = np.asarray(jax.nn.softmax(ALPHAS["cell"])), COST.extra["cell"]
    return p * (c - (p * c).sum(axis=1, keepdims=True))


def gradients(form, temperature, log=False):
    def gradient(key):
        return cost_gradient(form, (COST,), ALPHAS, perturbed(key, ALPHAS), temperature, log=log)["cell"]

    return drawn(gradient)


def test_the_expectation_has_the_exact_gradient(x64):
    alphas = {"cell": ALPHAS["cell"].astype(jnp.float64)}
    found = cost_gradient("expectation", (COST,), alphas, perturbed(jax.random.key(0), alphas), 1.0)
    p, c = np.asarray(jax.nn.softmax(alphas["cell"])), COST.extra["cell"]
    np.testing.assert_allclose(found["cell"], p * (c - (p * c).sum(axis=1, keepdims=True)), rtol=1e-12)


@pytest.mark.parametrize("form", ["reparametrised", "policy-gradient"])
def test_both_samples_have_it_in_the_mean_at_low_temperatures(form):
    """A loss that is linear in Z: pathwise and score-function gradient agree, and the former varies as 1 / lambda."""
    found = gradients(form, 0.03)
    error = abs(found.mean(axis=0) - exact()) / (found.std(axis=0) / np.sqrt(DRAWS))
    assert error.max() < 4.5
    if form == "reparametrised":
        ratio = found.var(axis=0) / gradients(form, 0.06).var(axis=0)
        np.testing.assert_allclose(ratio, 2, rtol=0.35)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_policy_gradient_is_that_of_the_expected_cost_of_the_sample(temperature):
    """At any temperature, unlike the gradient of the expectation over one-hot choices; also of the logarithm."""
    for log in (False, True):
        found = [gradients(form, temperature, log) for form in ("reparametrised", "policy-gradient")]
        means = [values.mean(axis=0) for values in found]
        deviations = [values.std(axis=0) / np.sqrt(DRAWS) for values in found]
        assert (abs(means[0] - means[1]) < 4.5 * np.hypot(*deviations)).all()


def test_the_score_of_a_concrete_sample_is_the_derivative_of_its_log_density(x64):
    noisy, temperature = perturbed(jax.random.key(3), ALPHAS)["cell"], 0.7
    z = jax.nn.softmax(noisy / temperature)

    def log_density(a):
        return jnp.sum(a - (temperature + 1) * jnp.log(z)) - 4 * jax.nn.logsumexp(a - temperature * jnp.log(z))

    found = concrete_score(ALPHAS, {"cell": noisy}, temperature)["cell"]
    np.testing.assert_allclose(found, jax.grad(log_density)(ALPHAS["cell"]), rtol=1e-9)


def test_the_cost_of_one_hot_weights_is_the_projects_own(x64):
    space = toys.TokenSpace()
    costs = scores.Costs(space, 3)
    strategy = search.SNAS(resource=("params",), eta=0.1)
    (relative,) = strategy._resources(space, toys.small_noise(space), costs)
    mean = float(costs.linear(["params"])["params"].expected(space.alphas()))
    for seed in range(5):
        genotype = space.sample(jax.random.key(seed))
        found = float(total_cost((relative,), space.encode(genotype))) * mean
        np.testing.assert_allclose(found, costs(genotype)["params"], rtol=1e-9)


def test_the_logarithm_counts_rows_above_their_cheapest_choice():
    cost = LinearCost(5.0, {"cell": np.array([[-2.0, 0.0, 98.0], [4.0, 4.5, 4.0]])})
    weights = {"cell": jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])}
    np.testing.assert_allclose(row_costs(cost, weights, log=True)["cell"], [np.log(100), 0], rtol=1e-6)
    np.testing.assert_allclose(row_costs(cost, weights)["cell"], [98, 4.5])
    np.testing.assert_allclose(total_cost((cost, cost), weights), 107.5)


def test_memory_access_is_what_convolutions_and_products_read_and_write():
    space = toys.TokenSpace()
    counted = {name: scores.Costs(space, 3)(space.parse(f"Chain(operations={[name] * 5})")) for name in
               ("identity", "dense")}  # fmt: skip
    # six tokens of eight numbers in and out, and 64 weights, in each of five layers
    assert counted["dense"]["memory"] - counted["identity"]["memory"] == 5 * (2 * 6 * 8 + 64)


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow if number else ()) for number, form in enumerate(COST_GRADIENTS)]
)
def test_a_large_weight_of_the_cost_leaves_the_choices_without_weights(form):
    space = toys.TokenSpace()
    strategy = search.SNAS(
        steps=150, batch=4, moments=1, logits_learning_rate=0.1, resource=("params",), eta=100.0, cost_gradient=form,
        final_temperature=0.3, size=toys.smallest(space),
    )  # fmt: skip
    found = search.search(jax.random.key(0), space, toys.small_noise(space), strategy)
    assert {space.operations[i] for i in found.genotype.operations} == {"identity"}
    assert found.history.cost[-1] < found.history.cost[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"resource": ("parameters",), "eta": 0.1}, "resource: expected some of"),
        ({"resource": ("params",)}, "eta: expected a positive number with a resource"),
        ({"eta": 0.1}, "eta: expected 0 without a resource"),
        ({"eta": -1.0}, "eta: expected a number"),
        ({"final_temperature": 0.0}, "final_temperature: expected a positive number"),
        ({"cost_gradient": "exact"}, "cost_gradient: expected one of"),
        ({"validation": 1.0}, "validation: expected a share"),
    ],
)
def test_bad_settings_are_refused_by_name(bad, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        search.SNAS(**bad)


def test_a_resource_in_which_architectures_do_not_differ():
    """Without the identity, all operations have as many parameters."""
    space = spaces.restricted(toys.TokenSpace(), ["identity"])
    strategy = search.SNAS(steps=2, batch=4, moments=1, resource=("params",), eta=0.1)
    with pytest.raises(ValueError, match=r"resource: expected a cost in which .* of toy-tokens differ, got 'params'"):
        strategy.begin(space, toys.small_noise(space), jax.random.key(0))
