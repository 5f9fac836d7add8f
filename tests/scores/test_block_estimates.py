"""What blocks are worth: hidden states, the score at initialisation, the loss of distillation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nasi_jax import data, scores, spaces, train

SPACE = spaces.NASBERT()
SIZE = spaces.NASBERTSize(width=16, embedding=4, positions=8)
SOURCE = data.RandomTokens(8, 30)
PORTS, OPERATIONS = SPACE.candidates
NARROW = np.flatnonzero(PORTS == 0)


def number(text):
    """The number of a candidate by its text."""
    genotype = SPACE.parse("|".join([text] * 4))
    same = (genotype.widths[0] == PORTS) & (np.asarray(genotype.operations[0]) == OPERATIONS).all(axis=1)
    return int(np.flatnonzero(same)[0])


class Tower(nn.Module):
    """Any network: an embedding and a layer for each block."""

    channels: int

    @nn.compact
    def __call__(self, x):
        states = [nn.Embed(x.vocabulary, self.channels)(x.ids)]
        for _ in range(SPACE.blocks):
            states.append(jnp.tanh(nn.Dense(self.channels)(states[-1])))
        return states


def teacher(channels):
    module = Tower(channels)
    params = module.init(jax.random.key(3), SOURCE.batch(jax.random.key(0), 2).x)
    return lambda x: module.apply(params, x)


@pytest.fixture(scope="module")
def ntk():
    return scores.BlockNTK(SPACE, SIZE, SOURCE, batch=4)


@pytest.fixture(scope="module")
def distillation():
    return train.Distillation(
        SPACE, SIZE, SOURCE, teacher(5), steps=30, batch=4, batches=3, held_out=2, learning_rate=0.01
    )


def test_states_are_those_of_the_teacher():
    keys = jax.random.split(jax.random.key(0), 2)
    found = scores.block_states(SPACE, SOURCE, teacher(5), keys, 4)
    x = SOURCE.batch(keys[1], 4).x
    expected = teacher(5)(x)
    for block in range(SPACE.blocks):
        before, after, mask = found.batch(1, block)
        np.testing.assert_allclose(before, expected[block], rtol=1e-5)
        np.testing.assert_allclose(after, expected[block + 1], rtol=1e-5)
        np.testing.assert_array_equal(mask, x.mask)


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: teacher(5)(x)[:-1],
        lambda x: [states[:, :-1] for states in teacher(5)(x)],
        lambda x: [*teacher(5)(x)[:-1], teacher(6)(x)[-1]],
    ],
)
def test_a_teacher_of_other_shapes_is_refused(bad):
    for use in (scores.BlockNTK, train.Distillation):
        with pytest.raises(ValueError, match=r"teacher: expected 5 arrays of states, .* each \((16|32), 8\)"):
            use(SPACE, SIZE, SOURCE, teacher=bad)


def test_a_block_of_a_network_is_fed_the_states_of_the_one_before():
    """A teacher made of a network of the space shows what its blocks hand on, however many operations they have."""
    genotype = SPACE.parse("512:M,F|512:S3|512:F,F,M|512:F")
    x = SOURCE.batch(jax.random.key(0), 3).x
    network = SPACE.network(genotype, SIZE, 2)
    params = jax.jit(network.init)(jax.random.key(1), x)["params"]
    states = train.as_teacher(SPACE, genotype, SIZE, params)(x)
    assert [found.shape for found in states] == [(3, 8, 16)] * 5
    module, _ = SPACE.operation_piece(SIZE, 4, 3, x)
    found = module.apply({"params": params["block_1_0_S3"]}, states[1], x.mask)
    np.testing.assert_allclose(found[x.mask], states[2][x.mask], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_score_depends_on_the_operations_and_the_block_and_not_on_who_is_asked_for_beside(ntk):
    asked = np.array([number("128:M"), number("128:F,F"), number("128:S3,M")])
    values = ntk.values((), 1, asked)
    assert np.isfinite(values).all()
    assert len(set(values.tolist())) == 3
    np.testing.assert_allclose(ntk.values((), 1, asked[::-1])[::-1], values, rtol=1e-6)
    assert (ntk.values((), 2, asked) != values).all()
    again = scores.BlockNTK(SPACE, SIZE, SOURCE, batch=4).values((), 1, asked[:1])
    np.testing.assert_allclose(again, values[:1], rtol=1e-5)


def test_training_lowers_the_loss_of_the_candidate_that_is_trained(distillation):
    """And of its block and width alone."""
    trained, other = number("128:S3,M"), number("192:S3")
    state = distillation.init(0)
    before = distillation.values(state, 1, np.array([trained])), distillation.values(state, 2, np.array([trained]))
    after, loss = distillation.train(state, 1, np.array([trained] * 30))
    assert distillation.values(after, 1, np.array([trained])) > before[0] + 0.02
    assert distillation.values(after, 2, np.array([trained])) == before[1]
    assert np.isfinite(loss)
    untouched, moved = (jax.tree.leaves(s["params"]["block_1"][f"width_{PORTS[other]}"]) for s in (state, after))
    assert all(np.array_equal(a, b) for a, b in zip(untouched, moved, strict=True))


def test_a_value_is_minus_the_mean_squared_error_over_all_tokens(distillation):
    candidate, state = number("128:F"), distillation.init(0)
    block = jax.jit(scores.MappedBlock(SPACE, SIZE, 0, 5).__call__)
    keys = jax.random.split(jax.random.key(0), 5)[3:]
    losses = []
    for key in keys:
        x = SOURCE.batch(key, 4).x
        states = teacher(5)(x)
        found = block(state["params"]["block_2"]["width_0"], states[2], x.mask, OPERATIONS[candidate])
        losses.append(np.mean((np.asarray(found - states[3]) ** 2)[np.asarray(x.mask)]))
    assert distillation.values(state, 2, np.array([candidate]))[0] == pytest.approx(-np.mean(losses), rel=1e-4)


def test_a_whole_network_is_worth_minus_the_loss_of_blocks_that_read_each_other(distillation):
    texts, state = ["128:F", "192:S3", "128:M", "128:F,F"], distillation.init(0)
    numbers, losses = np.array([number(text) for text in texts]), []
    for key in jax.random.split(jax.random.key(0), 5)[3:]:
        x = SOURCE.batch(key, 4).x
        first, *_, last = teacher(5)(x)
        states = first
        for block, candidate in enumerate(numbers):
            port = int(PORTS[candidate])
            own = state["params"][f"block_{block}"][f"width_{port}"]
            apply = jax.jit(scores.MappedBlock(SPACE, SIZE, port, 5).__call__)
            states = apply(own, states, x.mask, OPERATIONS[candidate])
        losses.append(np.mean((np.asarray(states - last) ** 2)[np.asarray(x.mask)]))
    found = distillation.whole(state, np.stack([numbers, numbers[::-1]]))
    assert found[0] == pytest.approx(-np.mean(losses), rel=1e-4)
    assert found[1] != found[0]


def test_maps_stand_only_where_the_teacher_has_another_width():
    params = {outside: scores.MappedBlock(SPACE, SIZE, 0, outside).init(jax.random.key(0)) for outside in (4, 5)}
    assert set(params[4]) == {"shared"}
    assert params[5]["before"]["kernel"].shape == (5, 4)
    assert params[5]["after"]["kernel"].shape == (4, 5)


@pytest.mark.slow
def test_a_teacher_learns_the_words_that_are_masked_out():
    """Sequences of one word each: what is masked out stands beside it."""
    ids = np.repeat(np.arange(5, 29), 4)[:, None] * np.ones((1, 8), int)
    source = data.from_tokens(ids, vocabulary=data.Vocabulary(30, unknown=1, begin=2, end=3, mask=4))
    genotype = SPACE.parse("512:M,F|512:F|512:F|512:F")
    _, first = train.train_teacher(jax.random.key(0), SPACE, genotype, SIZE, source, 20, 16)
    _, last = train.train_teacher(jax.random.key(0), SPACE, genotype, SIZE, source, 400, 16)
    assert last < first - 0.5


@pytest.mark.parametrize("option", ["steps", "batches", "held_out"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}: expected a positive integer, got 0"):
        train.Distillation(SPACE, SIZE, SOURCE, teacher(5), **{option: 0})
