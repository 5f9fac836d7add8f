"""What every score promises, for every score of the catalogue, on token ids and graphs; images are in test_scorer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from nasi_jax import data, scores

SPACES = {space.name: space for space in toys.TOYS}


def applicable(space):
    x, y = data.shapes(toys.small_noise(space), 2)
    floating = any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x))
    classes = jnp.issubdtype(y.dtype, jnp.integer)
    stages = "stages" in space.network(None, space.Size(), 1).capabilities
    return [
        name
        for name, score in scores.SCORES.items()
        if (floating or not score.floating) and (classes or not score.classes) and (stages or not score.trains)
    ]


@pytest.fixture(params=sorted(SPACES), scope="module")
def scored(request):
    """A space, its scorer of all applicable scores, and the scores of three architectures at two seeds."""
    space = SPACES[request.param]
    config = scores.ScoreConfig(toys.smallest(space), 8)
    scorer = scores.Scorer(space, toys.small_noise(space), applicable(space), config)
    genotypes = [space.sample(jax.random.key(i)) for i in range(3)]
    return space, scorer, genotypes, {seed: scorer.score(scorer.draw(seed), genotypes) for seed in (0, 1)}


@pytest.mark.parametrize("name", scores.SCORES)
def test_a_score_is_a_number_that_depends_on_the_seed_as_it_says(scored, name):
    space, _, _, found = scored
    if name not in applicable(space):
        needs = "inputs that are numbers|labels that are classes|networks of three stages"
        with pytest.raises(ValueError, match=f"{name} needs ({needs})"):
            scores.Scorer(space, toys.small_noise(space), [name], scores.ScoreConfig(toys.smallest(space), 4))
        return
    first, second = ([row[name] for row in found[seed]] for seed in (0, 1))
    assert not np.isnan(first).any()
    assert (first == second) == (scores.SCORES[name].compute is None)


def test_the_same_seed_gives_the_same_scores(scored):
    _, scorer, genotypes, found = scored
    again = scorer.score(scorer.draw(0), genotypes[::-1])[::-1]
    for row, expected in zip(again, found[0], strict=True):
        assert row == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_an_evaluator_at_a_seed_hands_out_the_scores_of_that_seed(scored):
    _, scorer, genotypes, found = scored
    evaluator = scores.ScoreEvaluator(scorer, 1)
    assert evaluator.names == scorer.names
    for row, expected in zip(evaluator.stream(iter(genotypes)), found[1], strict=True):
        assert row == pytest.approx(expected, rel=1e-4, nan_ok=True)


@pytest.mark.slow
def test_several_probes_are_a_mean_whose_first_is_the_single_one():
    space = toys.TOYS[0]
    names = ["ntk-probe", "ntk-probe(probes=64)", "ntk-trace"]
    scorer = scores.Scorer(space, toys.small_noise(space), names, scores.ScoreConfig(toys.smallest(space), 4))
    row = scorer.score(scorer.draw(0), [space.sample(jax.random.key(0))])[0]
    assert abs(row[names[1]] / row["ntk-trace"] - 1) < 0.3
    assert row[names[0]] != row[names[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zicoo", "did you mean 'zico'"),
        ("gennas(batch=1)", "an integer of at least 2 for batch"),
        ("gennas(steps=0)", "a positive integer for steps"),
        ("gennas(task=nb110)", "did you mean 'nb101'"),
        ("zico(probes=2)", "zico has no options"),
        ("ntk-probe(probs=2)", "ntk-probe has options probes"),
        ("ntk-probe(probes=0)", "expected a positive integer for probes"),
        ("ntk-probe(probes=1.5)", "expected a positive integer for probes"),
        ("ntk-probe(probes", "expected 'name' or 'name"),
        ("", "expected 'name' or 'name"),
    ],
)
def test_what_is_no_score_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        scores.score(text)
