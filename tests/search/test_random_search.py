import jax
import numpy as np
import pytest
from strategy_cases import DecisionSpace

from nasi_jax import search, spaces, tabular
from nasi_jax.search import RandomSearch

SPACE = DecisionSpace((3, 2, 4, 5))
KEY = jax.random.key(0)


@pytest.mark.parametrize("replace", [True, False])
def test_runs_are_distributed_as_the_closed_form_says(replace):
    rng = np.random.default_rng(0)
    value, outcome = rng.integers(0, 60, SPACE.cardinality) / 60, rng.normal(size=SPACE.cardinality)
    found = search.simulate(RandomSearch(replace), SPACE, value, jax.random.split(KEY, 3000), 30)
    for evaluations in (1, 5, 30):
        expected = tabular.best_of_random(value, outcome, evaluations, replace=replace)
        reached = outcome[found.incumbents[:, evaluations - 1]]
        assert abs(reached.mean() - expected.mean) < 4 * expected.sd / np.sqrt(len(reached))
        assert 0.9 < reached.std() / expected.sd < 1.1


def test_without_replacement_no_architecture_comes_twice_before_all_have():
    strategy = RandomSearch(replace=False)
    genotypes, state = strategy.ask(KEY, strategy.init(KEY, SPACE), SPACE.cardinality)
    assert sorted(np.asarray(jax.vmap(SPACE.index)(genotypes)).tolist()) == [*range(SPACE.cardinality)]
    assert state.asked == 0


def test_what_cannot_be_listed_cannot_be_drawn_without_replacement():
    with pytest.raises(ValueError, match="expected at most"):
        RandomSearch(replace=False).init(KEY, spaces.get("darts"))
