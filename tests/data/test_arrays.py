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
    assert (source.classes, source.image_shape) == (4, (6, 5, 3))
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


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros((4, 8, 8)), np.zeros(4, int), {}, ValueError, "x: expected images"),
        (np.zeros((0, 8, 8, 3)), np.zeros(0, int), {}, ValueError, "x: expected images"),
        (np.zeros((4, 8, 8, 3), int), np.zeros(4, int), {}, TypeError, "x: expected dtype"),
        (np.zeros((4, 8, 8, 3)), np.zeros(5, int), {}, ValueError, "y: expected one label"),
        (np.zeros((4, 8, 8, 3)), np.zeros((4, 1), int), {}, ValueError, "y: expected one label"),
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


def test_npz_round_trip_and_errors(tmp_path):
    path = tmp_path / "own.npz"
    x, y = RNG.integers(0, 256, (9, 4, 4, 3)).astype(np.uint8), np.arange(9) % 3
    np.savez(path, x=x, y=y)
    source = data.load(str(path))
    np.testing.assert_array_equal(source.x, x)
    assert source.classes == 3
    np.savez(path, x=x)
    assert data.load(str(path), labels="random", classes=6).classes == 6
    np.savez(path, images=x)
    with pytest.raises(ValueError, match="expected an array 'x'"):
        data.load(str(path))
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match="cannot read"):
        data.load(str(path))
    np.savez(path, x=np.array([{"a": 1}], dtype=object), y=y)
    with pytest.raises(ValueError, match="plain arrays"):
        data.load(str(path))
    with pytest.raises(FileNotFoundError, match="there is none"):
        data.load(str(tmp_path / "absent.npz"))


def test_real_images(cifar10_file):
    source = data.load(str(cifar10_file), image_size=16)
    images, labels = source.batch(jax.random.key(0), 64)
    assert images.shape == (64, 16, 16, 3)
    assert source.classes == 10
    assert 0 <= labels.min() <= labels.max() <= 9
