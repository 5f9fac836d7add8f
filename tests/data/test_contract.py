"""What every source of batches promises."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from nasi_jax import data

RNG = np.random.default_rng(0)


def a_graph(nodes=9, edges=20):
    ends = RNG.integers(0, nodes, (2, edges))
    return data.Graph(RNG.normal(size=(nodes, 3)), ends[:, np.unique(ends, axis=1, return_index=True)[1]])


SMALL = data.Vocabulary(30, 0, 1, 2, 3, 4)
LOOPLESS = np.stack([np.arange(8), np.arange(1, 9)])
SOURCES = {
    "gaussian": data.Gaussian((4, 4, 3), 5),
    "images": data.from_arrays(RNG.integers(0, 256, (20, 4, 4, 3), np.uint8), np.arange(20) % 4),
    "images, random labels": data.from_arrays(RNG.normal(size=(20, 4, 4, 1)), None, labels="random", classes=3),
    "augmented images": data.augmented(
        data.from_arrays(RNG.integers(0, 256, (20, 4, 4, 3), np.uint8), np.arange(20) % 4), crop=1, flip=True, cutout=2
    ),
    "nodes": data.from_graphs([a_graph()], np.arange(9) % 4, level="node", examples=np.arange(1, 8)),
    "edges": data.from_graphs([data.Graph(np.eye(9), LOOPLESS, np.ones((8, 2)))], np.arange(8) % 2, level="edge"),
    "graphs": data.from_graphs([a_graph(n) for n in range(4, 12)], RNG.normal(size=(8, 2)), level="graph"),
    **{
        f"random {level}s": data.RandomGraphs(level, nodes=12, edge_features=2, outputs=3)
        for level in get_args(data.Level)
    },
    "sentences": data.from_tokens(RNG.integers(1, 30, (9, 6)), np.arange(9) % 3, vocabulary=SMALL),
    "sentences, random labels": data.from_tokens(RNG.integers(1, 30, (9, 6)), labels="random", vocabulary=SMALL),
    "masked words": data.from_tokens(RNG.integers(5, 30, (9, 20)), vocabulary=SMALL),
    "random tokens": data.RandomTokens(6, 30, 3),
    **{space.name: space.noise(3) for space in toys.TOYS},
}


@pytest.fixture(params=sorted(SOURCES))
def source(request):
    return SOURCES[request.param]


def test_batches_have_the_shapes_that_are_said_without_drawing_one(source):
    batch = source.batch(jax.random.key(0), 6)
    said = data.shapes(source, 6)
    assert isinstance(batch, data.Batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), batch) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), said
    )
    assert all(len(leaf) == 6 for _, leaf in data.example_arrays(batch))


def test_a_batch_follows_from_its_key_also_under_jit_and_vmap(source):
    keys = jax.random.split(jax.random.key(1), 3)
    alone = [source.batch(key, 4) for key in keys]
    together = jax.jit(jax.vmap(lambda key: source.batch(key, 4)))(keys)
    for i, batch in enumerate(alone):
        for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-6)
    first, second = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(batch)]) for batch in alone[:2])
    assert not np.array_equal(first, second)


def test_a_source_passes_through_jit_as_an_argument(source):
    drawn = jax.jit(lambda source, key: source.batch(key, 4))(source, jax.random.key(2))
    expected = source.batch(jax.random.key(2), 4)
    for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_loss_has_a_value_and_a_gradient_for_each_example(source):
    _, y = source.batch(jax.random.key(3), 4)
    outputs = jax.random.normal(jax.random.key(4), (4, source.outputs))
    losses = source.loss(outputs, y)
    assert losses.shape == (4,)
    gradient = jax.grad(lambda o: source.loss(o, y)[0])(outputs)
    assert jnp.any(gradient[0] != 0)
    assert (gradient[1:] == 0).all()


def test_batches_that_cannot_be_drawn_are_refused(source):
    source.check_batch(4)
    with pytest.raises(ValueError, match="batch: expected"):
        source.check_batch(0)


EXAMPLES = sorted(name for name, source in SOURCES.items() if hasattr(source, "prepare"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_gone_through_once_in_order_as_they_are_stored(name):
    examples = SOURCES[name]
    stored = examples.stored(len(examples))
    x, y = (jnp.concatenate(parts) for parts in zip(*examples.batches(3), strict=True))
    for array, said in ((x, stored.x), (y, stored.y)):
        assert (array.shape, array.dtype) == (said.shape, said.dtype)
    said = data.inputs(examples, 4)
    found = examples.prepare(x[:4])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), said
    )
    drawn = examples.batch(jax.random.key(0), len(examples))
    assert jax.tree.structure(drawn.x) == jax.tree.structure(found)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_batch_of_a_training_follows_from_its_key_and_is_like_the_stored_one(name):
    examples = SOURCES[name]
    x, y = next(examples.batches(4))
    drawn, again = (examples.redrawn(jax.random.key(0), x, y) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, drawn, again)
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) for found in ((examples.prepare(x), y), drawn)]
    assert tuple(kinds[0]) == tuple(kinds[1])


@pytest.mark.parametrize("name", EXAMPLES)
def test_parts_are_examples_of_the_same_kind(name):
    examples = SOURCES[name]
    kept, held_out = data.hold_out(examples, 0.25)
    assert len(kept) + len(held_out) == len(examples)
    assert held_out.outputs == kept.outputs == examples.outputs
    whole, parts = (
        [np.asarray(y) for source in sources for _, y in source.batches(3)]
        for sources in ([examples], [kept, held_out])
    )
    np.testing.assert_array_equal(np.sort(np.concatenate(whole), axis=0), np.sort(np.concatenate(parts), axis=0))
