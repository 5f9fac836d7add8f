import numpy as np
import pytest
import scipy.stats

from nasi_jax import tabular


def test_every_statistic_on_a_perfect_and_a_reversed_score():
    truth = np.random.default_rng(0).permutation(300).astype(float)
    perfect = tabular.rank(np.exp(truth / 100), truth, resamples=20)
    values = {name: s.value for name, s in perfect.statistics.items()}
    for name in ("kendall", "spearman", "pearson of log", "weighted tau", "precision at 1%", "precision at 5%"):
        assert values[name] == pytest.approx(1)
    assert values["best of 100"] > 290
    reverse = tabular.rank(-truth, truth, resamples=20).statistics
    assert reverse["kendall"].value == pytest.approx(-1)
    assert reverse["precision at 5%"].value == 0
    assert reverse["best of 100"].value < 10


def test_agrees_with_scipy_and_its_intervals_cover():
    """Spearman of correlated normals: over 60 samples, the 95% interval holds the truth about as often as it says."""
    exact, rho, covered = 6 / np.pi * np.arcsin(0.6 / 2), 0.6, 0
    for seed in range(60):
        x, y = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 120).T
        found = tabular.rank(x, y, resamples=200, seed=seed).statistics["spearman"]
        assert found.value == pytest.approx(scipy.stats.spearmanr(x, y)[0])
        covered += found.low <= exact <= found.high
    assert covered >= 52


def test_ties_at_the_top_are_broken_at_random():
    truth = np.arange(100.0)
    score = np.where(truth < 50, 0.0, 1.0)
    values = [tabular.rank(score, truth, resamples=2, seed=i).statistics["precision at 5%"].value for i in range(20)]
    assert len(set(values)) > 1
    assert 0 < np.mean(values) < 0.5


def test_bad_arrays():
    with pytest.raises(ValueError, match="expected as many"):
        tabular.rank(np.ones(4), np.ones(5))
    with pytest.raises(ValueError, match="at least 3 numbers"):
        tabular.rank(np.array([1.0, np.nan, 2.0]), np.ones(3))


def test_infinite_scores_rank_last_or_first_and_others_are_left_out():
    truth = np.arange(10.0)
    score = truth.copy()
    score[0], score[9], score[4] = -np.inf, np.inf, np.nan
    found = tabular.rank(score, truth, resamples=10)
    assert (found.count, found.left_out, found.infinite, found.ties) == (9, 1, 2, 0)
    assert found.statistics["kendall"].value == pytest.approx(1)
    assert np.isfinite(found.statistics["spearman"].value)


def test_figures_that_are_not_numbers_are_left_out_and_counted():
    """As SciPy has it for the architectures that are left."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(50, 95, 39)
    score = truth + rng.normal(0, 10, 39)
    score[0], score[1] = np.nan, np.nan
    truth[1], truth[5], truth[7], truth[9] = np.nan, np.nan, np.inf, -np.inf
    found = tabular.rank(score, truth, resamples=20)
    assert (found.count, found.left_out, found.without_truth) == (34, 2, 3)
    kept = np.isfinite(truth) & np.isfinite(score)
    assert found.statistics["kendall"].value == pytest.approx(scipy.stats.kendalltau(score[kept], truth[kept])[0])
    assert all(np.isfinite(statistic).all() for statistic in found.statistics.values())
    with pytest.raises(ValueError, match="at least 3 numbers whose architectures have a figure, got 2 of 4"):
        tabular.rank(np.arange(4.0), np.array([1, 2, np.nan, np.nan]))


def test_rank_sums():
    sums = tabular.rank_sum([np.array([3.0, 1, 2]), np.array([10.0, 30, 20])])
    np.testing.assert_array_equal(sums, [4, 4, 4])
    assert np.isnan(tabular.rank_sum([np.array([1.0, np.nan]), np.array([1.0, 2])])[1])


def test_a_score_of_two_values_has_no_logarithm_but_ranks():
    truth = np.arange(50.0)
    found = tabular.rank(np.where(truth < 25, 0.0, 1.0), truth, resamples=10).statistics
    assert np.isnan(found["pearson of log"].value)
    assert found["spearman"].value > 0.8


def test_rank_sums_with_weights_and_logarithms():
    a, b = np.array([3.0, 1, 2, 1]), np.array([10.0, 30, 20, 40])
    ranks = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    np.testing.assert_allclose(tabular.rank_sum([a, b], [2, 0.5]), 2 * ranks[0] + ranks[1] / 2)
    np.testing.assert_allclose(tabular.rank_sum([a, b], log=True), np.log(ranks[0]) + np.log(ranks[1]))


@pytest.mark.parametrize("levels", [4, 1000])
def test_ndcg_is_the_mean_over_the_orders_of_ties(levels):
    """The formula of scikit-learn's ndcg_score with k, here by hand over random orders of equal scores."""
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, levels, 40).astype(float), rng.uniform(50, 95, 40)
    discounts = np.where(np.arange(40) < 4, 1 / np.log2(np.arange(40) + 2), 0)
    found = [
        np.sum(truth[np.lexsort((rng.random(40), -score))] * discounts) for _ in range(1 if levels == 1000 else 20000)
    ]
    expected = np.mean(found) / np.sum(np.sort(truth)[::-1] * discounts)
    got = tabular.STATISTICS["ndcg at 10%"](score, truth, rng)
    assert got == pytest.approx(expected, rel=1e-9 if levels == 1000 else 1e-3)
    assert tabular.STATISTICS["ndcg at 10%"](truth, truth, rng) == pytest.approx(1)
    assert np.isnan(tabular.STATISTICS["ndcg at 10%"](score, truth - 60, rng))
