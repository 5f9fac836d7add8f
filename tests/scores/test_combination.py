import math

import numpy as np
import pytest
import scipy.stats

from nasi_jax import scores, spaces
from nasi_jax.scores import Combination, Formula
from nasi_jax.spaces.text import named, summands


def drawn(seed, count):
    """Two scores of different scale and shape that agree in part, the second better where it is lower."""
    rng = np.random.default_rng(seed)
    common, noise = rng.normal(size=count), rng.normal(size=(2, count))
    return {"heavy": np.exp(3 * (common + noise[0])), "lower": -(common + noise[1]) * 1e-4}


@pytest.mark.parametrize("text", ["heavy+lower", "3*heavy+lower", "log(heavy+lower)"])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_a_large_sample_is_that_of_the_sum_of_ranks(seed, text):
    signs, formula = {"heavy": 1, "lower": -1}, Formula.parse(text)
    reference, sample = drawn(seed, 100), drawn(100 + seed, 3000)
    rows = [dict(zip(reference, row, strict=True)) for row in zip(*reference.values(), strict=True)]
    value = Combination.fit(formula, signs, rows)
    one_by_one = [value(dict(zip(sample, row, strict=True))) for row in zip(*sample.values(), strict=True)]
    at_once = formula.ranked({name: signs[name] * column for name, column in sample.items()})
    assert scipy.stats.kendalltau(one_by_one, at_once)[0] > 0.9
    assert scipy.stats.spearmanr(one_by_one, at_once)[0] > 0.99


@pytest.mark.parametrize("text", ["a+b", "log(a+b)", "log(2*a+b)"])
def test_better_than_all_of_the_reference_is_still_told_apart(text):
    value = Combination.fit(Formula.parse(text), {"a": 1, "b": 1}, [{"a": x, "b": -x} for x in range(10)])
    found = [value({"a": a, "b": 0}) for a in (8, 9, 10, 20, 200)]
    assert (np.diff(found) > 0).all()
    below = [value({"a": a, "b": 0}) for a in (1, 0, -1, -20)]
    assert (np.diff(below) < 0).all()


def test_a_single_score_is_taken_as_it_is():
    assert Combination.fit(Formula.parse("a"), {"a": -1})({"a": 3.5, "other": 1.0}) == -3.5


def test_not_a_number_stays_and_infinity_is_worst_or_best():
    value = Combination.fit(Formula.parse("a+b"), {"a": 1, "b": -1}, [{"a": x, "b": x} for x in range(5)])
    assert math.isnan(value({"a": math.nan, "b": 1}))
    assert value({"a": 1, "b": math.inf}) == -math.inf


def test_a_score_that_never_differs_is_refused():
    with pytest.raises(ValueError, match=r"expected b to differ between architectures, 4 random ones have 1"):
        Combination.fit(Formula.parse("a+b"), {"a": 1, "b": 1}, [{"a": x, "b": 2.0} for x in range(4)])


def test_the_grammar_of_names():
    assert named("zico") == ("zico", {})
    assert named(" ntk-probe( probes = 4, kind=fast, on=true) ") == (
        "ntk-probe",
        {"probes": 4, "kind": "fast", "on": True},
    )
    assert summands("a+b(x=1+2)+c") == ["a", "b(x=1+2)", "c"]
    for text in ("a(", "a(b)", "a(b=1,b=2)", "a b", "(x=1)", "a(=1)"):
        with pytest.raises(ValueError, match="expected 'name'"):
            named(text)


def test_formulas_are_read():
    assert Formula.parse("a") == Formula({"a": 1.0})
    found = Formula.parse(" log( 2*a(x=1+2) + b + 0.5 * c ) ")
    assert found == Formula({"a(x=1+2)": 2.0, "b": 1.0, "c": 0.5}, log=True)
    for text, message in (
        ("", "expected 'name'"),
        ("a+", "expected 'name'"),
        ("0*a", "positive weight"),
        ("-1*a+b", "positive weight"),
        ("e*a", "positive weight"),
        ("a+b+a", "each score once"),
    ):
        with pytest.raises(ValueError, match=message):
            Formula.parse(text)


@pytest.mark.parametrize("name", scores.FORMULAS)
def test_formulas_that_have_a_name_are_of_scores_that_there_are(name):
    formula = Formula.parse(name)
    assert formula == Formula.parse(scores.FORMULAS[name])
    assert all(scores.score(part) for part in formula.weights)


@pytest.mark.parametrize("space", spaces.SPACES.values(), ids=spaces.SPACES)
def test_the_default_of_a_space_is_a_formula_of_scores_that_its_networks_have(space):
    config = scores.ScoreConfig(space.search_size, 8)
    names = Formula.parse(scores.default_formula(space)).weights
    assert scores.Scorer(space, space.noise(), [*names], config).names == tuple(names)
