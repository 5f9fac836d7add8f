import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from nasi_jax import data, scores, search, spaces
from nasi_jax.scores.linear import LinearCost, by_regression

NASBENCH201 = spaces.get("nasbench201")


@dataclasses.dataclass(frozen=True)
class Small(toys.TokenSpace):
    """The toy space at a size at which its networks compile in no time."""

    evaluation_size = toys.ChainSize(2)


def test_costs_are_those_of_the_published_size():
    costs = scores.Costs(NASBENCH201, 10)
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    found = costs(NASBENCH201.parse(text))
    assert set(found) == {"params", "flops", "memory"}
    assert found["params"] == 1531546  # the benchmark's params_m of this cell is 1.531546


def test_the_expected_cost_is_the_mean_over_architectures_and_has_its_exact_gradient(x64):
    """d E[c] / d alpha_k = p_k (c_k - sum_m p_m c_m), row by row (specification of SNAS, oracle c)."""
    space = Small()
    counter = scores.Counter(space, data.shapes(space.noise(3), 2).x, space.evaluation_size, 3)
    linear = counter.linear["params"]
    assert linear.error == 0
    alphas = {"layers": jax.random.normal(jax.random.key(0), (5, 4))}
    p = np.asarray(jax.nn.softmax(alphas["layers"]))
    extra = linear.extra["layers"]
    np.testing.assert_allclose(linear.expected(alphas), linear.base + (p * extra).sum(), rtol=1e-12)
    gradient = jax.grad(linear.expected)(alphas)["layers"]
    np.testing.assert_allclose(gradient, p * (extra - (p * extra).sum(axis=1, keepdims=True)), rtol=1e-9, atol=1e-12)
    for seed in range(5):
        genotype = space.sample(jax.random.key(seed))
        assert float(linear.of(space.encode(genotype))) == counter(genotype)["params"]


def test_a_cost_that_is_a_sum_is_fitted_exactly():
    space = spaces.get("darts")
    extra = {kind: np.random.default_rng(i).normal(size=a.shape) for i, (kind, a) in enumerate(space.alphas().items())}
    true = LinearCost(50.0, extra)
    genotypes = [space.sample(jax.random.key(i)) for i in range(300)]
    costs = np.array([float(true.of(space.encode(g))) for g in genotypes])
    fitted = by_regression(space, genotypes[:250], costs[:250])
    found = [float(fitted.of(space.encode(g))) for g in genotypes[250:]]
    np.testing.assert_allclose(found, costs[250:], rtol=1e-3)
    assert fitted.error < 1e-3


def test_the_most_likely_architecture_within_limits_is_exact_on_a_small_space():
    space = Small()
    costs = scores.Costs(space, 3)
    alphas = {"layers": jax.random.normal(jax.random.key(1), (5, 4))}
    logs = np.asarray(jax.nn.log_softmax(alphas["layers"]))
    everything = list(space.enumerate())
    likely = [logs[np.arange(5), g.operations].sum() for g in everything]
    sizes = np.array([costs(g)["params"] for g in everything])
    for quantile in (0.05, 0.3, 0.9):
        limits = scores.Limits(max_params=float(np.quantile(sizes, quantile)))
        found = search.most_likely(space, alphas, limits, costs, costs.linear(limits.bounds))
        best = max((value, i) for i, value in enumerate(likely) if sizes[i] <= limits.max_params)[1]
        assert space.format(found) == space.format(everything[best])
    with pytest.raises(scores.InfeasibleError, match=rf"the smallest seen is {sizes.min():.6g}"):
        search.most_likely(space, alphas, scores.Limits(max_params=1), costs, costs.linear(["params"]))


def test_in_a_large_space_prices_find_architectures_within_limits():
    space = spaces.get("darts")
    extra = {
        kind: jnp.abs(jax.random.normal(jax.random.key(i), a.shape))
        for i, (kind, a) in enumerate(space.alphas().items())
    }
    linear = {"params": LinearCost(1.0, {kind: np.asarray(v) for kind, v in extra.items()})}
    alphas = {kind: 2 * jax.random.normal(jax.random.key(9), a.shape) for kind, a in space.alphas().items()}

    def costs(genotype):
        return {"params": float(linear["params"].of(space.encode(genotype)))}

    free = costs(space.decode(alphas))["params"]
    for share in (0.9, 0.6, 0.4):
        limits = scores.Limits(max_params=share * free)
        assert costs(search.most_likely(space, alphas, limits, costs, linear))["params"] <= share * free


@pytest.mark.parametrize("bounds", [{"max_params": 0}, {"max_flops": -1.0}, {"max_latency_ms": float("nan")}])
def test_bounds_that_are_none(bounds):
    with pytest.raises(ValueError, match=f"{next(iter(bounds))}: expected a positive number"):
        scores.Limits(**bounds)


def test_measured_times_are_kept_with_the_name_of_the_device(tmp_path):
    space, file = Small(), tmp_path / "latency.json"
    arguments = (space, data.shapes(space.noise(3), 2).x, space.evaluation_size, 3)
    genotype = space.sample(jax.random.key(0))
    measured = scores.Latency(*arguments, method="measured", file=file, repeats=3)
    time = measured(genotype)
    assert time > 0
    record = json.loads(file.read_text())
    assert record["device"].startswith("cpu")
    assert record["milliseconds"] == {space.format(genotype): time}
    assert scores.Latency(*arguments, method="measured", file=file)(genotype) == time
    file.write_text(json.dumps(record | {"device": "tpu: v9"}))
    with pytest.raises(ValueError, match=r"times of something else \(device 'tpu: v9' there"):
        scores.Latency(*arguments, file=file)
    file.write_text("[")
    with pytest.raises(ValueError, match="cannot read it"):
        scores.Latency(*arguments, file=file)


def test_times_that_are_sums_are_added_up(monkeypatch):
    space = Small()
    true = np.random.default_rng(0).uniform(0.1, 1, (5, 4))
    latency = scores.Latency(space, data.shapes(space.noise(3), 2).x, space.evaluation_size, 3, fitted=60)
    monkeypatch.setattr(latency, "_time", lambda g: 2 + true[np.arange(5), np.asarray(g.operations)].sum())
    for seed in range(100, 110):
        genotype = space.sample(jax.random.key(seed))
        np.testing.assert_allclose(latency(genotype), latency.measured(genotype), rtol=1e-4)
    assert latency.linear.error < 1e-4
