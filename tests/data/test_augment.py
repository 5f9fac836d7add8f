import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest

from nasi_jax import data
from nasi_jax.data import augment


def images(count=400, size=6):
    """Every pixel has a value of its own, from 1 on."""
    return jnp.arange(1, size * size * 2 + 1, dtype=jnp.float32).reshape(1, size, size, 2).repeat(count, 0)


def test_crops_are_the_shifts_of_the_padded_image_and_all_of_them():
    x = np.asarray(images())
    cropped = np.asarray(augment.crop(jax.random.key(0), jnp.asarray(x), 1))
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    shifts = [padded[i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    counts = np.array([[np.array_equal(image, shift) for shift in shifts] for image in cropped])
    assert (counts.sum(axis=1) == 1).all()
    assert np.abs(counts.sum(axis=0) - 400 / 9).max() < 5 * np.sqrt(400 / 9)


def test_half_of_the_images_are_mirrored():
    x = images()
    flipped = augment.flip(jax.random.key(1), x)
    same, mirrored = ((flipped == other).all((1, 2, 3)) for other in (x, x[:, :, ::-1]))
    assert bool((same ^ mirrored).all())
    assert abs(int(mirrored.sum()) - 200) < 5 * 10


def test_cutout_clears_one_square_anywhere():
    x = images(2000)
    cleared = np.asarray(augment.cutout(jax.random.key(2), x, 2) == 0)
    assert (cleared.all(axis=-1) == cleared.any(axis=-1)).all()
    cleared = cleared[..., 0]
    rows, columns = cleared.any(axis=2), cleared.any(axis=1)
    np.testing.assert_array_equal(cleared, rows[:, :, None] & columns[:, None, :])
    # a centre at the first row or column leaves one line of the square inside
    assert {1, 2} == set(rows.sum(axis=1)) == set(columns.sum(axis=1))
    centres = np.argmax(rows, axis=1) + rows.sum(axis=1) - 1
    assert np.abs(np.bincount(centres, minlength=6) - 2000 / 6).max() < 5 * np.sqrt(2000 / 6)


def photographs(count, size=5):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_a_turned_hue_is_that_of_the_standard_library():
    greys = np.broadcast_to(np.arange(0, 250, 10).reshape(1, 5, 5, 1), (1, 5, 5, 3))
    x = np.concatenate([photographs(3), greys]) / 255
    turns = np.linspace(-0.6, 0.6, len(x)).reshape(-1, 1, 1)
    found = augment.turn_hue(jnp.asarray(x, jnp.float32), jnp.asarray(turns, jnp.float32))
    for i, image in enumerate(x):
        for place in np.ndindex(image.shape[:2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[place])
            expected = colorsys.hsv_to_rgb((hue + turns[i, 0, 0]) % 1, saturation, value)
            np.testing.assert_allclose(found[i][place], expected, atol=2e-6)


def test_jitter_is_pillows_enhancement_and_a_turn():
    """With the factors that the key draws, of which Pillow rounds every result to bytes."""
    x, key, strength = photographs(40), jax.random.key(5), 0.4
    found = augment.jitter(key, jnp.asarray(x, jnp.float32) / 255, strength)
    factor_key, hue_key = jax.random.split(key)
    factors = np.asarray(jax.random.uniform(factor_key, (3, 40, 1, 1, 1), minval=0.6, maxval=1.4)).reshape(3, 40)
    turns = jax.random.uniform(hue_key, (40, 1, 1), minval=-strength / 2, maxval=strength / 2)
    kinds = (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color)
    for i, image in enumerate(x):
        changed = PIL.Image.fromarray(image)
        for kind, factor in zip(kinds, factors[:, i], strict=True):
            changed = kind(changed).enhance(float(factor))
        back = augment.turn_hue(found[i], -turns[i])
        # Pillow cuts off what is beyond a byte after each of three steps, and rounds the greys that they refer to
        np.testing.assert_allclose(back, np.asarray(changed) / 255, atol=4 / 255)
    assert factors.min() < 0.65
    assert factors.max() > 1.35


def test_no_jitter_changes_nothing():
    x = jnp.asarray(photographs(4), jnp.float32) / 255
    np.testing.assert_allclose(augment.jitter(jax.random.key(0), x, 0.0), x, atol=1e-6)


def test_the_same_key_changes_images_in_the_same_way():
    x, key = images(8), jax.random.key(3)
    coloured = jnp.asarray(photographs(8), jnp.float32) / 255
    changes = (
        lambda k: augment.crop(k, x, 2),
        lambda k: augment.flip(k, x),
        lambda k: augment.cutout(k, x, 3),
        lambda k: augment.jitter(k, coloured, 0.4),
    )
    for change in changes:
        np.testing.assert_array_equal(change(key), change(key))
        assert not np.array_equal(change(key), change(jax.random.key(4)))


def test_an_augmented_source_changes_its_own_images_alone():
    x = np.asarray(images(12)) + 72 * np.arange(12).reshape(12, 1, 1, 1)
    source = data.from_arrays(x, np.arange(12))
    drawn, labels = data.augmented(source, flip=True).batch(jax.random.key(0), 12)
    assert sorted(np.asarray(labels).tolist()) == list(range(12))
    whole = np.asarray(source.prepare(source.x))
    kinds = [
        [np.array_equal(image, whole[label][:, ::step]) for step in (1, -1)]
        for image, label in zip(np.asarray(drawn), labels, strict=True)
    ]
    assert set(map(tuple, kinds)) == {(True, False), (False, True)}


def test_crops_are_black_and_squares_the_mean():
    x = np.random.default_rng(0).integers(1, 256, (50, 8, 8, 3), np.uint8)
    source = data.from_arrays(x, np.zeros(50, int))
    black = np.asarray(source.prepare(jnp.zeros((1, 8, 8, 3), jnp.uint8)))[0, 0, 0]
    cropped = np.asarray(data.augmented(source, crop=1).batch(jax.random.key(0), 50).x)
    edges = np.all(cropped == black, axis=-1)
    assert 0 < edges.sum() <= 50 * 15
    assert not edges[:, 1:-1, 1:-1].any()
    cleared = np.all(data.augmented(source, cutout=2).batch(jax.random.key(0), 50).x == 0, axis=-1).sum(axis=(1, 2))
    assert 4 in cleared
    assert set(cleared.tolist()) <= {1, 2, 4}
    halved = data.from_arrays(x, np.zeros(50, int), image_size=4)
    small = np.all(data.augmented(halved, cutout=4).batch(jax.random.key(0), 50).x == 0, axis=-1).sum(axis=(1, 2))
    assert 4 in small
    assert set(small.tolist()) <= {1, 2, 4}


def test_what_is_not_changed_stays_and_graphs_are_refused():
    images, noise = data.from_arrays(np.zeros((4, 2, 2, 3), np.uint8), np.arange(4)), data.Gaussian()
    assert data.augmented(images) is images
    assert data.augmented(noise, crop=4) is noise
    graph = data.from_graphs([data.Graph(np.ones((4, 2)), np.array([[0], [1]]))], np.arange(4), level="node")
    with pytest.raises(ValueError, match="flip: expected False with inputs that are no images, got True"):
        data.augmented(graph, flip=True)
