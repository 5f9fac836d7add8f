import jax
import numpy as np
import pytest

from nasi_jax import data


def test_images_are_standard_gaussian_and_labels_uniform():
    source = data.Gaussian((8, 8, 3), outputs=4)
    images, labels = jax.jit(lambda key: source.batch(key, 500))(jax.random.key(0))
    assert images.shape == (500, 8, 8, 3)
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02
    assert np.abs(np.bincount(labels, minlength=4) - 125).max() < 5 * np.sqrt(125)


def test_load_sets_size_and_classes():
    source = data.load("gaussian", image_size=12, classes=7)
    assert (source.image_shape, source.outputs) == ((12, 12, 3), 7)
    assert data.load("gaussian").image_shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": -1}, "image_shape"),
        ({"classes": -3}, "classes"),
        ({"labels": "true"}, "labels: expected 'random'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("gaussian", **options)


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="batch"):
        data.Gaussian().check_batch(0)
