import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasi_jax import data, spaces, train
from nasi_jax.nn import RUNNING_STATISTICS
from nasi_jax.programs import Execution

SPACE = spaces.NASBench201()
CELL = SPACE.parse("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|")
SIZE = {"channels": 4, "cells": 1}
RECIPE = train.Recipe(2, 8, 0.1, nesterov=True, weight_decay=1e-3, crop=1, flip=True, cutout=2, **SIZE)


def images(count=24, classes=4, seed=0, size=8):
    """Noise around a picture for each class."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    pictures = np.random.default_rng(1).integers(60, 190, (classes, size, size, 3))
    x = pictures[y] + rng.integers(-30, 30, (count, size, size, 3))
    return data.from_arrays(x.astype(np.uint8), y)


def keys(count, start=0):
    return jax.vmap(jax.random.key)(jnp.arange(start, start + count))


def last(*arguments, **options):
    return list(train.iterate(*arguments, **options))[-1]


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_a_step_is_pytorchs_update(x64):
    """Gradient clip, weight decay in the gradient, Nesterov's velocity, cosine: written out for two steps."""
    recipe = dataclasses.replace(RECIPE, crop=0, flip=False, cutout=0, gradient_clip=0.5, label_smoothing=0.1)
    source, key = images(), jax.random.key(0)
    network = train.network(SPACE, CELL, recipe, 4)
    state = train.init(network, recipe, source, key)
    order = np.asarray(train.order(source, key, 0))
    params, statistics, velocity = state.params, state.statistics, jax.tree.map(jnp.zeros_like, state.params)

    def loss(params, statistics, x, y):
        logits, updated = network.apply(
            {"params": params, RUNNING_STATISTICS: statistics}, x, mutable=[RUNNING_STATISTICS]
        )
        targets = 0.9 * jax.nn.one_hot(y, 4) + 0.1 / 4
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)), updated[RUNNING_STATISTICS]

    for number in range(2):
        state = train.step(network, recipe, None, source, state, jnp.asarray(order), key)
        index = order[8 * number : 8 * number + 8]
        x = source.prepare(source.x[index])
        gradient, statistics = jax.grad(loss, has_aux=True)(params, statistics, x, source.y[index])
        norm = float(optax.tree.norm(gradient))
        assert norm > 0.5  # so that the clip is seen
        rate = 0.1 * (1 + np.cos(np.pi * number / 6)) / 2
        gradient = jax.tree.map(lambda g, p, n=norm: 0.5 / n * g + 1e-3 * p, gradient, params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, g, v, r=rate: p - r * (g + 0.9 * v), params, gradient, velocity)
    assert_close(state.params, params, rtol=1e-9, atol=1e-12)
    assert_close(state.statistics, statistics, rtol=1e-9, atol=1e-12)


def test_kernels_are_drawn_as_pytorch_does():
    """Its layers' bounds and deviations; a kernel by its name, so that it is the same in a one-shot network."""
    torch = pytest.importorskip("torch")
    source, recipe, key = (
        images(),
        dataclasses.replace(RECIPE, initialisation="pytorch", channels=32),
        jax.random.key(0),
    )
    network = train.network(SPACE, CELL, recipe, 4)
    found = train.init(network, recipe, source, key).params["stage_0_cell_0"]["edge_0_1_nor_conv_3x3"]["kernel"]
    expected = torch.nn.Conv2d(32, 32, 3).weight.detach().numpy()
    assert found.shape == (3, 3, 32, 32)
    np.testing.assert_allclose(np.std(found), np.std(expected), rtol=0.03)
    np.testing.assert_allclose(np.abs(found).max(), np.abs(expected).max(), rtol=0.01)
    weights = jax.tree.map(lambda leaf: leaf.astype(float), SPACE.encode(CELL))
    one_shot = SPACE.network(None, SPACE.Size(32, 1), 4, execution=Execution("one-hot"))
    whole = train.init(one_shot, recipe, source, key, weights).params
    np.testing.assert_array_equal(whole["stage_0_cell_0"]["edge_0_1_nor_conv_3x3"]["kernel"], found)


def test_every_image_is_seen_once_in_an_epoch():
    source, key = images(), jax.random.key(3)
    orders = [np.asarray(train.order(source, key, epoch)) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(24))
    assert not np.array_equal(orders[0], orders[1])


def test_64_images_are_learned_by_heart():
    source = images(64)
    recipe = dataclasses.replace(RECIPE, epochs=12, batch=16, crop=0, flip=False, cutout=0)
    network = train.network(SPACE, CELL, recipe, 4)
    states = last(keys(1), network, recipe, source)
    found = train.evaluate(network, jax.tree.map(lambda leaf: leaf[0], states), source)
    assert found.accuracy == 1
    assert int(states.correct[0]) == 64


def test_stopped_and_continued_is_bit_for_bit_the_same():
    source = images()
    network = train.network(SPACE, CELL, RECIPE, 4)
    whole = list(train.iterate(keys(1), network, RECIPE, source))
    for stop in (0, len(whole) - 2):
        stored = jax.tree.map(np.asarray, whole[stop])
        continued = last(keys(1), network, RECIPE, source, jax.tree.map(jnp.asarray, stored))
        jax.tree.map(np.testing.assert_array_equal, continued, whole[-1])


def test_a_population_trains_as_each_alone(x64):
    """Three seeds in one program, vmapped and scanned, and in the host's loop."""
    source, network = images(), train.network(SPACE, CELL, RECIPE, 4)
    together = last(keys(3), network, RECIPE, source, scan=True)
    for i in range(3):
        alone = last(keys(3)[i : i + 1], network, RECIPE, source, scan=False)
        assert_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], together.params),
            jax.tree.map(lambda leaf: leaf[0], alone.params),
            rtol=1e-6,
            atol=1e-9,
        )
    assert not np.allclose(*(jax.tree.leaves(together.params)[0][i] for i in range(2)))


STREAMED = dataclasses.replace(RECIPE, crop=0, resized_crop=0.3, jitter=0.4, image_size=8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    source = images(26, size=12)
    np.savez(path, x=source.x, y=source.y)
    return str(path)


def test_images_on_disk_are_trained_on_in_the_order_of_the_stream(file):
    """And a training that continues reads on from where it was, whatever reads the images."""
    source, network, key = data.stream(file, image_size=8), train.network(SPACE, CELL, STREAMED, 4), keys(1)
    whole = list(train.iterate(key, network, STREAMED, source))
    assert [int(states.step[0]) for states in whole] == [3, 6]
    seed = int(jax.random.bits(jax.random.fold_in(key[0], 1), dtype=jnp.uint32))
    state = train.init(network, STREAMED, source, key[0])
    update = jax.jit(train.update, static_argnums=(0, 1, 2))
    for x, y in source.shuffled(seed, batch=8, epochs=2, smallest=0.3):
        state = update(network, STREAMED, None, source, state, x, y, key[0])
    assert_close(jax.tree.map(lambda leaf: leaf[0], whole[-1].params), state.params, rtol=1e-5, atol=1e-6)
    stored = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, whole[0]))
    continued = last(key, network, STREAMED, data.stream(file, image_size=8, workers=1), stored)
    jax.tree.map(np.testing.assert_array_equal, continued, whole[-1])


def test_images_on_disk_are_evaluated_by_their_middle(file):
    source, network = data.stream(file, image_size=8), train.network(SPACE, CELL, STREAMED, 4)
    state = train.init(network, STREAMED, source, jax.random.key(0))
    found = train.evaluate(network, state, source, batch=10)
    assert found.confusion.sum() == 26
    x, y = (np.concatenate(parts) for parts in zip(*source.batches(26), strict=True))
    logits = network.apply(
        {"params": state.params, RUNNING_STATISTICS: state.statistics}, source.prepare(jnp.asarray(x))
    )
    assert found.accuracy == np.mean(np.argmax(logits, axis=1) == y)


def test_the_recipe_says_where_images_are(file):
    network = train.network(SPACE, CELL, RECIPE, 4)
    with pytest.raises(ValueError, match=r"resized_crop: expected 0 with images in memory, got 0\.3"):
        last(keys(1), network, STREAMED, images())
    with pytest.raises(ValueError, match=r"resized_crop: expected a positive share with a stream, got 0\.0"):
        last(keys(1), network, RECIPE, data.stream(file, image_size=8))
    with pytest.raises(ValueError, match="scan: expected False with images on disk"):
        last(keys(1), network, STREAMED, data.stream(file, image_size=8), scan=True)
    floating = data.from_arrays(np.asarray(images().x, np.float32), np.asarray(images().y))
    with pytest.raises(TypeError, match="jitter: expected images of bytes, got float32"):
        last(keys(1), network, dataclasses.replace(RECIPE, jitter=0.1), floating)
    grey = data.from_arrays(np.asarray(images().x)[..., 0], np.asarray(images().y))
    with pytest.raises(ValueError, match=r"jitter: expected 0 with images of 1 colours .* got 0\.1"):
        train.steps_per_epoch(dataclasses.replace(RECIPE, jitter=0.1), grey)


def test_different_architectures_train_together(x64):
    """As members of a one-shot network with one-hot weights, each like its derived network."""
    source, genotypes = images(), [CELL, SPACE.sample(jax.random.key(5))]
    weights = jax.tree.map(lambda *rows: jnp.stack(rows).astype(float), *map(SPACE.encode, genotypes))
    one_shot = SPACE.network(None, SPACE.Size(4, 1), 4, execution=Execution("one-hot"))
    key = jnp.stack([jax.random.key(7)] * 2)
    together = last(key, one_shot, RECIPE, source, weights=weights, scan=True)
    for i, genotype in enumerate(genotypes):
        network = train.network(SPACE, genotype, RECIPE, 4)
        alone = last(key[:1], network, RECIPE, source, scan=False)
        like = jax.tree.map(lambda leaf: leaf[0], alone.params)
        member = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert_close(spaces.restrict(member.params, like), like, rtol=1e-6, atol=1e-9)
        state = jax.tree.map(lambda leaf: leaf[0], alone)
        own = jax.tree.map(lambda leaf, i=i: leaf[i], weights)
        a, b = train.evaluate(one_shot, member, source, own), train.evaluate(network, state, source)
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)


def test_several_devices_take_the_statistics_of_the_whole_batch(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import jax, numpy as np; from test_loop import *;"
        "mesh = jax.make_mesh((4,), ('batch',)); assert len(jax.devices()) == 4;"
        "network = train.network(SPACE, CELL, RECIPE, 4);"
        "a, b = (last(keys(1), network, RECIPE, images(), mesh=m) for m in (mesh, None));"
        "assert_close((a.params, a.statistics), (b.params, b.statistics), rtol=1e-4, atol=1e-5)"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    here = os.path.dirname(__file__)  # noqa: PTH120
    subprocess.run([sys.executable, "-c", program, here], check=True, env=environment, cwd=tmp_path)


def test_evaluation_counts_every_image_once():
    source = images(23)
    network = train.network(SPACE, CELL, RECIPE, 4)
    state = train.init(network, RECIPE, images(), jax.random.key(0))
    whole, parts = (train.evaluate(network, state, source, batch=batch) for batch in (23, 5))
    np.testing.assert_array_equal(whole.confusion, parts.confusion)
    np.testing.assert_array_equal(whole.confusion.sum(axis=1), np.bincount(source.y, minlength=4))
    np.testing.assert_allclose(whole.loss, parts.loss, rtol=1e-5)
    assert whole.accuracy == np.trace(whole.confusion) / 23


def test_the_label_among_the_five_largest_logits():
    source = images(31, classes=8)
    network = train.network(SPACE, CELL, RECIPE, 8)
    state = train.init(network, RECIPE, source, jax.random.key(1))
    logits = network.apply({"params": state.params, RUNNING_STATISTICS: state.statistics}, source.prepare(source.x))
    best = np.argsort(np.asarray(logits), axis=1)[:, -5:]
    expected = np.mean([label in five for label, five in zip(np.asarray(source.y), best, strict=True)])
    found = train.evaluate(network, state, source, batch=9)
    np.testing.assert_allclose(found.top_five, expected, rtol=1e-6)
    assert found.accuracy < found.top_five < 1


def test_the_moving_average_is_what_is_evaluated():
    source, recipe = images(), dataclasses.replace(RECIPE, average=0.5)
    network = train.network(SPACE, CELL, recipe, 4)
    state, key = train.init(network, recipe, source, jax.random.key(0)), jax.random.key(0)
    expected = state.params
    for _ in range(2):
        state = train.step(network, recipe, None, source, state, train.order(source, key, 0), key)
        expected = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, expected, state.params)
    assert_close(state.average, expected, rtol=1e-6)
    by_average = train.evaluate(network, state, source)
    assert by_average.loss == train.evaluate(network, state.replace(params=expected, average=None), source).loss
    assert by_average.loss != train.evaluate(network, state.replace(average=None), source).loss


def test_drop_path_and_the_auxiliary_head_have_a_part():
    source, space = images(size=32), spaces.DARTS()
    recipe = train.Recipe(epochs=2, batch=12, learning_rate=0.1, auxiliary=0.4, drop_path=0.5, channels=2, cells=3)
    network = train.network(space, spaces.DARTS_V2, recipe, 4)
    key = jax.random.key(0)
    state = train.init(network, recipe, source, key)
    order = train.order(source, key, 0)
    after = train.step(network, recipe, None, source, state, order, key)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params["auxiliary"], state.params["auxiliary"])
    assert min(jax.tree.leaves(moved)) > 0
    second = state.replace(step=jnp.asarray(2, jnp.int32))  # of the second epoch, where paths are dropped
    for rate, same in ((0.0, False), (0.5, True)):
        other = dataclasses.replace(recipe, drop_path=rate)
        found = train.step(network, other, None, source, second, order, key)
        reference = train.step(network, recipe, None, source, second, order, key)
        assert (float(found.loss) == float(reference.loss)) == same
    assert train.evaluate(network, after, source).confusion.sum() == 24


def test_a_loss_that_is_not_finite_stops():
    source, recipe = images(), dataclasses.replace(RECIPE, learning_rate=1e30)
    network = train.network(SPACE, CELL, recipe, 4)
    with pytest.raises(train.NonFiniteLossError, match="of training 0"):
        last(keys(1), network, recipe, source)


def test_bad_sizes_are_refused():
    network = train.network(SPACE, CELL, RECIPE, 4)
    with pytest.raises(ValueError, match="batch: expected 1 to 4"):
        last(keys(1), network, RECIPE, images(4))
    with pytest.raises(ValueError, match="x: expected images"):
        last(keys(1), network, RECIPE, images(size=10))


def test_half_precision_computes_nearly_the_same_and_keeps_float32():
    source, recipe = images(), dataclasses.replace(RECIPE, cutout=0)
    half = dataclasses.replace(recipe, precision="bfloat16")
    network, key = train.network(SPACE, CELL, recipe, 4), jax.random.key(0)
    state = train.init(network, recipe, source, key)
    order = train.order(source, key, 0)
    exact, rough = (train.step(network, r, None, source, state, order, key) for r in (recipe, half))
    assert jax.tree.map(lambda leaf: leaf.dtype, rough) == jax.tree.map(lambda leaf: leaf.dtype, exact)
    assert exact.loss != rough.loss
    np.testing.assert_allclose(rough.loss, exact.loss, rtol=0.03)
    moves = [
        jnp.concatenate([(a - b).ravel() for a, b in zip(*map(jax.tree.leaves, (s.params, state.params)), strict=True)])
        for s in (exact, rough)
    ]
    assert float(moves[0] @ moves[1] / jnp.linalg.norm(moves[0]) / jnp.linalg.norm(moves[1])) > 0.98
    program = jax.make_jaxpr(lambda s: train.step(network, half, None, source, s, order, key))(state)
    assert "bf16" in str(program)
