"""Every strategy on every kind of input: images, token ids, graphs."""

import itertools
import math

import jax
import numpy as np
import pytest
import toys

from nasi_jax import scores, search
from nasi_jax.programs import Execution

TOYS = {space.name: space for space in toys.TOYS}


@pytest.fixture(params=sorted(TOYS), scope="module")
def space(request):
    return TOYS[request.param]


@pytest.fixture(scope="module")
def evaluator(space):
    config = scores.ScoreConfig(toys.smallest(space), 4)
    scorer = scores.Scorer(space, toys.small_noise(space), ["ntk-one-batch", "params"], config)
    return scores.ScoreEvaluator(scorer, 0)


@pytest.mark.parametrize("name", search.VARIANTS)
def test_a_strategy_by_values_alone(space, evaluator, name):
    value = scores.Combination.fit(scores.Formula.parse("ntk-one-batch"), {"ntk-one-batch": 1})
    only = {"ntk-one-batch": 1}
    one = search.BlackBox(
        jax.random.key(0), search.VARIANTS[name], space, evaluator, lambda row: value({n: row[n] for n in only}),
        parallel=4,
    )  # fmt: skip
    found = list(one.run(12))
    assert len(found) == 12
    assert one.best is not None
    assert one.best.value == max(e.value for e in found if not math.isnan(e.value))
    assert all(space.parse(space.format(e.genotype)) == e.genotype for e in found)


@pytest.mark.parametrize(("objective", "estimator"), itertools.product(search.OBJECTIVES, ("soft", "score-function")))
def test_nasi(space, objective, estimator):
    strategy = search.NASI(
        steps=4, rounds=1, batch=4, objective=objective, estimator=estimator, size=toys.smallest(space)
    )
    found = search.search(jax.random.key(0), space, toys.small_noise(space), strategy)
    assert np.isfinite(jax.tree.leaves(found.history)).all()
    assert space.parse(space.format(found.genotype)) == found.genotype
    assert any((values != 0).any() for values in found.alphas.values())


def test_nasi_side_by_side_and_scanned(space):
    strategy = search.NASI(steps=4, rounds=2, batch=4, size=toys.smallest(space))
    keys = jax.random.split(jax.random.key(0), 2)
    arguments = (keys, space, toys.small_noise(space), strategy)
    host = list(search.iterate(*arguments, execution=Execution("one-hot")))[-1][0]
    scanned = list(search.iterate(*arguments, execution=Execution("one-hot", scan=True)))[-1][0]
    for a, b in zip(jax.tree.leaves(host.alphas), jax.tree.leaves(scanned.alphas), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
