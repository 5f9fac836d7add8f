import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.train import augment


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


def test_the_same_key_changes_images_in_the_same_way():
    x, key = images(8), jax.random.key(3)
    for change in (lambda k: augment.crop(k, x, 2), lambda k: augment.flip(k, x), lambda k: augment.cutout(k, x, 3)):
        np.testing.assert_array_equal(change(key), change(key))
        assert not np.array_equal(change(key), change(jax.random.key(4)))
