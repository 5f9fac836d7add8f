import itertools

import numpy as np
import pytest

from nasi_jax import tabular

EXACT = {
    1: ("87.063±12.935", "61.406±12.172", "33.586±9.512"),
    10: ("92.578±1.053", "68.932±1.819", "41.995±2.694"),
    50: ("93.467±0.564", "70.594±1.263", "44.195±1.503"),
    100: ("93.730±0.362", "71.183±1.024", "44.861±1.136"),
    200: ("93.880±0.253", "71.626±0.911", "45.314±0.967"),
    500: ("93.999±0.226", "72.088±0.767", "45.698±0.802"),
    1000: ("94.064±0.224", "72.329±0.631", "45.840±0.724"),
}
"""Random search on NAS-Bench-201: CIFAR-10, CIFAR-100 and ImageNet16-120, each searched on itself."""


@pytest.mark.parametrize("evaluations", EXACT)
def test_random_search_on_the_benchmark(benchmark_table, evaluations):
    for data, exact in zip(("cifar10", "cifar100", "imagenet16"), EXACT[evaluations], strict=True):
        columns = tabular.Table.read(benchmark_table, [f"{data}_val_12ep", f"{data}_test"]).columns
        found = tabular.best_of_random(*columns.values(), evaluations)
        assert f"{found.mean:.3f}±{found.sd:.3f}" == exact


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_all_draws_of_a_small_table(evaluations, replace):
    """The mean over every sequence of draws, ties shared, not-a-number last."""
    value = np.array([0.3, np.nan, 0.3, 0.9, -1.0])
    outcome = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    order = np.where(np.isnan(value), -np.inf, value)
    every = itertools.product(range(5), repeat=evaluations)
    draws = [drawn for drawn in every if replace or len(set(drawn)) == evaluations]
    # a tie goes to the first one drawn, which is each one of them as often
    found = [outcome[max(drawn, key=lambda i: order[i])] for drawn in draws]
    expected = tabular.best_of_random(value, outcome, evaluations, replace=replace)
    np.testing.assert_allclose(expected, (np.mean(found), np.std(found)), rtol=1e-12)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="outcome: expected shape"):
        tabular.best_of_random(np.ones(3), np.ones(4), 1)
    with pytest.raises(ValueError, match="evaluations: expected at least 1"):
        tabular.best_of_random(np.ones(3), np.ones(3), 0)
    with pytest.raises(ValueError, match="evaluations: expected 1 to 3"):
        tabular.best_of_random(np.ones(3), np.ones(3), 4, replace=False)
