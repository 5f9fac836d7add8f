"""Scores that train: what the space's programs give is what the derived network gives by itself."""

import jax
import numpy as np
import pytest
import toys

from nasi_jax import data, proxies, scores, spaces
from nasi_jax.nn import RUNNING_STATISTICS, STAGES, Style, as_pytorch, initial_statistics
from nasi_jax.proxies.signals import STAGES as COUNT

NAME = "gennas(task=combo,steps=3,batch=2)"


def some_network(space):
    return space.network(None if space.one_shot else space.at(0), space.Size(), 1)


# one space for each kind of network, with and without a one-shot network
STAGED = [
    *{
        (type(some_network(s)), s.one_shot): s
        for s in spaces.SPACES.values()
        if "stages" in some_network(s).capabilities
    }.values()
]
STAGED.sort(key=lambda space: "branches" not in some_network(space).capabilities)
CASES = [
    pytest.param(space, compilation, marks=() if (i, compilation) == (0, "space") else pytest.mark.slow)
    for i, space in enumerate(STAGED)
    for compilation in ("space", "blocks")[not space.one_shot :]
]


@pytest.fixture(scope="module")
def drawn():
    """Parameters, batch and key of a space, at its smallest size."""
    found = {}

    def of(space, compilation):
        config = scores.ScoreConfig(toys.smallest(space), 4)
        scorer = scores.Scorer(space, data.Gaussian((8, 8, 3), 4), (NAME,), config, compilation=compilation)
        return found.setdefault(space.name, scorer.draw(0)), scorer

    return of


@pytest.mark.parametrize(("space", "compilation"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_score_is_that_of_the_derived_network(drawn, space, compilation, caplog, x64):
    draw, scorer = drawn(space, compilation)
    genotype = space.sample(jax.random.key(5))
    found = scorer.score(draw, [genotype])[0][NAME]
    network = space.network(genotype, toys.smallest(space), 4, Style(bare_cells=True))
    x = draw.batch.x[:2]
    if space.one_shot:
        like = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
        params = spaces.restrict(draw.untrained, like)
    else:
        params = as_pytorch(jax.random.fold_in(draw.params, 1), network.init(jax.random.key(0), x)["params"])

    def stages(params, statistics, x, training):
        variables = {"params": params, RUNNING_STATISTICS: statistics}
        mutable = [STAGES, RUNNING_STATISTICS] if training else [STAGES]
        _, left = network.apply(variables, x, mutable=mutable)
        return [left[STAGES][f"stage_{i}"] for i in range(COUNT)], left.get(RUNNING_STATISTICS, statistics)

    start = initial_statistics(jax.eval_shape(lambda: stages(params, {}, x, True))[1])
    assert all("cell" not in name for name in start)  # cells are bare
    task = proxies.TASKS["combo"]
    # one operation after the other: as one program, with the compiler options of the tests alone, a derivative of
    # nasbench101 is 0.4 % off finite differences; why is not known
    expected = proxies.gennas(stages, params, start, x, task, draw.key, steps=3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if compilation == scorer.compilation == "space":
        caplog.clear()
        with jax.log_compiles(True):
            other = scorer.score(draw, [space.sample(jax.random.key(6))])[0][NAME]
        assert other != found
        assert not any("Finished XLA compilation" in message for message in caplog.messages)


@pytest.mark.slow
def test_several_at_once_give_the_same():
    space, source = STAGED[0], data.Gaussian((8, 8, 3), 4)
    genotypes = [space.sample(jax.random.key(i)) for i in range(3)]
    config = scores.ScoreConfig(toys.smallest(space), 4)
    alone, together = (scores.Scorer(space, source, (NAME,), config, per_device=n) for n in (1, 4))
    expected = [row[NAME] for row in alone.score(alone.draw(0), genotypes)]
    found = [row[NAME] for row in together.score(together.draw(0), genotypes)]
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_kernels_are_drawn_as_pytorch_does(drawn, x64):
    draw, _ = drawn(STAGED[0], "space")
    for (_, leaf), drew in zip(jax.tree.leaves_with_path(draw.params), jax.tree.leaves(draw.untrained), strict=True):
        if leaf.ndim < 2:
            np.testing.assert_array_equal(leaf, drew)
        else:
            assert np.abs(drew).max() <= np.prod(leaf.shape[:-1]) ** -0.5


@pytest.mark.parametrize(
    ("space", "source", "name", "message"),
    [
        (toys.TOYS[1], toys.Graphs(), "gennas", "gennas needs networks of three stages"),
        (STAGED[0], data.Gaussian((8, 8, 3)), "gennas(batch=8)", "expected at most the batch of 4 examples"),
    ],
)
def test_what_does_not_go_together_is_refused(space, source, name, message):
    with pytest.raises(ValueError, match=message):
        scores.Scorer(space, source, (name,), scores.ScoreConfig(toys.smallest(space), 4))


def test_images_that_are_too_small_are_refused_before_anything_is_compiled():
    space = STAGED[0]
    scorer = scores.Scorer(space, data.Gaussian((4, 4, 3)), (NAME,), scores.ScoreConfig(toys.smallest(space), 4))
    with pytest.raises(ValueError, match="last stage leaves at least 2x2 pixels, got 1x1"):
        scorer.score(scorer.draw(0), [space.sample(jax.random.key(0))])
