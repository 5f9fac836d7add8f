import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import data

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_each_colour_leaves_with_mean_zero_and_variance_one(dtype):
    x = (RNG.random((50, 6, 5, 3)) * np.array([200, 100, 50]) + 5).astype(dtype)
    source = data.from_arrays(x, np.arange(50) % 4)
    images, labels = source.batch(jax.random.key(0), 50)
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std(axis=(0, 1, 2)), 1, rtol=1e-5)
    assert images.dtype == jnp.float32
    assert (source.outputs, source.image_shape) == (4, (6, 5, 3))
    assert sorted(labels.tolist()) == sorted((np.arange(50) % 4).tolist())


def test_batches_hold_distinct_images_with_their_own_labels():
    x = np.broadcast_to(np.arange(30, dtype=np.float32).reshape(30, 1, 1, 1), (30, 4, 4, 1))
    source = data.from_arrays(x, np.arange(30))
    for seed in range(5):
        images, labels = jax.jit(lambda s, key: s.batch(key, 12))(source, jax.random.key(seed))
        values = images[:, 0, 0, 0] * source.deviation + source.mean
        np.testing.assert_allclose(values, labels, atol=1e-4)
        assert len(set(labels.tolist())) == 12


def test_random_labels_are_uniform_and_independent_of_the_images():
    source = data.from_arrays(np.zeros((200, 4, 4, 1), np.uint8), np.zeros(200, int), labels="random", classes=5)
    labels = np.concatenate([source.batch(jax.random.key(i), 200)[1] for i in range(20)])
    counts = np.bincount(labels, minlength=5)
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800)


def test_constant_colour_and_missing_values_do_not_spread():
    x = RNG.normal(size=(20, 4, 4, 2)).astype(np.float32)
    x[..., 1] = 7
    x[3, 0, 0, 0] = np.nan
    source = data.from_arrays(x, np.zeros(20, int))
    assert np.isfinite(source.mean).all()
    images, _ = source.batch(jax.random.key(0), 20)
    assert int(np.isnan(images).sum()) == 1
    assert (images[..., 1] == 0).all()


def test_resizing_averages_where_it_shrinks():
    x = RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    source = data.from_arrays(x, np.zeros(4, int), image_size=4)
    images, _ = source.batch(jax.random.key(0), 4)
    assert images.shape == (4, 4, 4, 3)
    full, _ = data.from_arrays(x, np.zeros(4, int)).batch(jax.random.key(0), 4)
    np.testing.assert_allclose(images.mean(axis=(1, 2)), full.mean(axis=(1, 2)), atol=0.15)
    assert source.image_shape == (4, 4, 3)


def test_a_missing_axis_of_colours_is_one_colour():
    x = RNG.integers(0, 256, (5, 6, 7)).astype(np.uint8)
    source = data.from_arrays(x, np.zeros(5, int))
    assert source.image_shape == (6, 7, 1)
    np.testing.assert_array_equal(source.x[..., 0], x)


@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (5, 4, 4, 16), (5, 3, 3, 2), (5, 4, 9, 3), (5, 8, 8, 12)])
def test_images_with_the_colours_last_are_taken(shape):
    assert data.from_arrays(np.zeros(shape, np.uint8), np.zeros(5, int)).image_shape == shape[1:]


@pytest.mark.parametrize(
    "y", [np.array([[2], [0], [1], [2]]), np.eye(4)[[2, 0, 1, 2]], np.eye(4, dtype=bool)[[2, 0, 1, 2]]]
)
def test_labels_in_a_column_or_one_hot(y):
    source = data.from_arrays(np.zeros((4, 4, 4, 3)), y)
    assert source.y.tolist() == [2, 0, 1, 2]
    assert source.outputs == (3 if y.shape[1] == 1 else 4)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros((4, 8)), np.zeros(4, int), {}, ValueError, "x: expected images"),
        (np.zeros((4, 3, 8, 9)), np.zeros(4, int), {}, ValueError, r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 1, 28, 28)), np.zeros(4, int), {}, ValueError, "looks like"),
        (np.zeros((0, 8, 8, 3)), np.zeros(0, int), {}, ValueError, "x: expected images"),
        (np.zeros((4, 8, 8, 3), int), np.zeros(4, int), {}, TypeError, "x: expected dtype"),
        (np.zeros((4, 8, 8, 3)), np.zeros(5, int), {}, ValueError, "y: expected one label"),
        (np.zeros((4, 8, 8, 3)), np.zeros((4, 1, 1), int), {}, ValueError, "y: expected one label"),
        (np.zeros((4, 8, 8, 3)), np.zeros((4, 1)), {}, TypeError, "y: expected an integer"),
        (np.zeros((4, 8, 8, 3)), np.array([[1, 0], [0, 1], [1, 1], [0, 1]]), {}, ValueError, "y: expected one label"),
        (np.zeros((4, 8, 8, 3)), np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 1]]), {}, ValueError, "a single 1"),
        (np.zeros((2, 8, 8, 3)), np.eye(3)[[0, 2]], {"classes": 2}, ValueError, "from 0 to 1"),
        (np.zeros((2, 8, 8, 3)), np.array(["a", "b"]), {}, TypeError, "y: expected an integer"),
        (np.zeros((4, 8, 8, 3)), np.zeros(4), {}, TypeError, "y: expected an integer"),
        (np.zeros((4, 8, 8, 3)), np.array([0, 1, -1, 2]), {}, ValueError, "got -1 to 2"),
        (np.zeros((4, 8, 8, 3)), np.array([0, 1, 2, 3]), {"classes": 3}, ValueError, "from 0 to 2"),
        (np.zeros((4, 8, 8, 3)), None, {}, ValueError, "labels='random' needs none"),
        (np.zeros((4, 8, 8, 3)), np.zeros(4, int), {"labels": "none"}, ValueError, "labels: expected"),
        (np.zeros((4, 8, 8, 3)), np.zeros(4, int), {"classes": 0}, ValueError, "classes: expected"),
        (np.zeros((4, 8, 8, 3)), np.zeros(4, int), {"image_size": -4}, ValueError, "image_size: expected"),
    ],
)
def test_bad_arrays_are_refused(x, y, options, error, message):
    with pytest.raises(error, match=message):
        data.from_arrays(x, y, **options)


def test_batch_size_is_checked():
    source = data.from_arrays(np.zeros((4, 8, 8, 3)), np.zeros(4, int))
    source.check_batch(4)
    for size in (0, 5):
        with pytest.raises(ValueError, match="batch: expected 1 to 4"):
            source.check_batch(size)


def test_real_images(cifar10_file):
    source = data.load(str(cifar10_file), image_size=16)
    images, labels = source.batch(jax.random.key(0), 64)
    assert images.shape == (64, 16, 16, 3)
    assert source.outputs == 10
    assert 0 <= labels.min() <= labels.max() <= 9


def likenesses(x):
    return np.cov(np.asarray(x, np.float64).reshape(len(x), -1).T)


def test_whitened_images_have_uncorrelated_pixels():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 5, 4, 3))
    x = noise + 0.6 * np.roll(noise, 1, axis=1) + 0.5 * noise[..., ::-1] + rng.normal(size=(5, 4, 3))
    plain = data.from_arrays(x.astype(np.float32), None, labels="random")
    images = data.whitened(plain)
    assert np.abs(likenesses(plain.prepare(plain.x)) - np.eye(60)).max() > 0.3
    np.testing.assert_allclose(likenesses(images.prepare(images.x)), np.eye(60), atol=0.03)
    np.testing.assert_allclose(images.prepare(images.x).mean(axis=0), 0, atol=1e-5)
    part = images.part(np.arange(50))
    np.testing.assert_array_equal(part.whitening[1], images.whitening[1])
    batch, _ = images.batch(jax.random.key(0), 8)
    assert batch.shape == (8, 5, 4, 3)


def test_whitening_is_that_of_the_resized_images_and_of_more_numbers_than_images():
    x = np.random.default_rng(1).integers(0, 255, (40, 12, 12, 3), np.uint8)
    images = data.whitened(data.from_arrays(x, None, labels="random", image_size=6))
    found = np.asarray(images.prepare(images.x)).reshape(40, -1)
    assert images.whitening[1].shape == (108, 108)
    # with fewer images than numbers they become a simplex: as far from each other as can be
    products = found @ found.T
    np.testing.assert_allclose(np.diag(products), products[0, 0], rtol=0.05)
    np.testing.assert_allclose(products[0, 1:], -products[0, 0] / 39, atol=0.02 * products[0, 0])


def test_whitening_refuses_large_images():
    images = data.from_arrays(np.zeros((3, 40, 40, 3), np.uint8), None, labels="random")
    with pytest.raises(ValueError, match="at most 4096 numbers each to whiten"):
        data.whitened(images)
