import pickle

import numpy as np
import pytest
from prepared_sets import prepare

from nasi_jax import data
from nasi_jax.data._stream import _random_crop


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny set of images of different sizes, prepared as TensorFlow Datasets would; a folder of the user's own."""
    directory = tmp_path_factory.mktemp("tfds")
    examples = "((np.full((8 + i, 30 - i, 3), 10 * i, np.uint8), i % 4) for i in range(20))"
    prepare(directory, "Photos", (None, None, 3), 4, examples, ("train", "validation"))
    return directory


def opened(prepared, **options):
    return data.stream(str(prepared / "photos" / "1.0.0"), image_size=6, **options)


def collected(batches):
    x, y = zip(*batches, strict=True)
    return np.stack(x), np.stack(y)


def test_images_of_all_sizes_come_as_crops_of_one(prepared):
    stream = opened(prepared)
    assert (len(stream), stream.outputs, stream.image_shape) == (20, 4, (6, 6, 3))
    x, y = collected(stream.shuffled(0, batch=6, epochs=2))
    assert x.shape == (6, 6, 6, 6, 3)  # three batches of six in each of two epochs
    assert x.dtype == np.uint8
    assert y.dtype == np.int32
    numbers = x[:, :, 0, 0, 0] // 10
    np.testing.assert_array_equal(numbers % 4, y)
    for epoch in (numbers[:3], numbers[3:]):
        assert len(np.unique(epoch)) == 18
    assert not np.array_equal(numbers[:3], numbers[3:])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stream_that_starts_later_goes_on_in_the_same_way(tmp_path, workers):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (11, 12, 9, 3), np.uint8), y=np.arange(11) % 3)
    whole = collected(data.stream(str(tmp_path / "images.npz"), image_size=8).shuffled(7, batch=4, epochs=4))
    for start in (0, 1, 2, 5):
        later = data.stream(str(tmp_path / "images.npz"), image_size=8, workers=workers)
        for found, expected in zip(collected(later.shuffled(7, 4, 4, start)), whole, strict=True):
            np.testing.assert_array_equal(found, expected[start:])
    other = collected(data.stream(str(tmp_path / "images.npz"), image_size=8).shuffled(8, batch=4, epochs=4))
    assert not np.array_equal(other[0], whole[0])


def test_workers_read_a_prepared_set(prepared):
    expected = collected(opened(prepared).shuffled(1, batch=10, epochs=1))
    found = collected(opened(prepared, workers=2).shuffled(1, batch=10, epochs=1))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    pickle.loads(pickle.dumps(opened(prepared).records))


def test_all_test_images_are_seen_once_and_in_the_middle(prepared, tmp_path):
    batches = list(opened(prepared, split="validation").batches(8))
    assert [len(x) for x, _ in batches] == [8, 8, 4]
    numbers = np.concatenate([x[:, 0, 0, 0] // 10 for x, _ in batches])
    assert sorted(numbers) == list(range(20))
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), numbers % 4)
    x = np.zeros((1, 16, 32, 3), np.uint8)
    x[:, 1:15, 9:23] = np.arange(14).reshape(14, 1, 1) * 14 + np.arange(14).reshape(1, 14, 1)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros(1, int))
    ((middle, _),) = data.stream(str(tmp_path / "one.npz"), image_size=14).batches(5)
    np.testing.assert_array_equal(middle[0], x[0, 1:15, 9:23])  # 7/8 of 16 pixels, of a size that needs no resizing


def test_crops_are_torchvisions_in_area_and_shape():
    """Areas are uniform, shapes are uniform in their logarithm; of an image that has room for all of them."""
    places = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    image = np.stack([*places, np.zeros((128, 128))], axis=-1) * 1.9
    example, rng = {"image": image.astype(np.uint8), "label": 0}, np.random.default_rng(0)
    areas, shapes = [], []
    for _ in range(2000):
        crop = _random_crop(example, rng, size=64, smallest=0.1)[0].astype(float)
        down, across = (np.polyfit(np.arange(64), crop.mean(axis=1 - k)[:, k], 1)[0] * 64 / 1.9 / 128 for k in (0, 1))
        areas.append(down * across)
        shapes.append(np.log(across / down))
    fits = np.array(areas) < 0.7  # larger ones in the longest shapes do not fit and are drawn again
    assert 0.09 < min(areas) < 0.13
    assert max(areas) > 0.95
    np.testing.assert_allclose(np.quantile(np.array(areas)[fits], [0.25, 0.5, 0.75]), [0.25, 0.4, 0.55], atol=0.03)
    np.testing.assert_allclose(
        np.quantile(np.array(shapes)[fits], [0.05, 0.5, 0.95]), np.log(4 / 3) * np.array([-0.9, 0, 0.9]), atol=0.03
    )


@pytest.mark.parametrize(("height", "width"), [(1, 50), (50, 1), (1, 1)])
def test_images_that_are_too_long_give_their_middle(height, width):
    example = {"image": np.zeros((height, width, 3), np.uint8), "label": 0}
    crop, _ = _random_crop(example, np.random.default_rng(0), size=4, smallest=0.9)
    assert crop.shape == (4, 4, 3)


def test_a_part_and_the_rest_have_all_examples(prepared):
    kept, held = data.hold_out(opened(prepared), 0.25)
    assert (len(kept), len(held)) == (15, 5)
    numbers = [set(np.concatenate([x[:, 0, 0, 0] // 10 for x, _ in part.batches(4)])) for part in (kept, held)]
    assert numbers[0] | numbers[1] == set(range(20))
    assert not numbers[0] & numbers[1]


def test_bad_input_is_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match="image_size: expected a positive"):
        data.stream("cifar10", image_size=0)
    with pytest.raises(ValueError, match="workers: expected an integer of at least 0, got -1"):
        opened(prepared, workers=-1)
    np.savez(tmp_path / "floats.npz", x=np.zeros((2, 4, 4, 3)), y=np.zeros(2, int))
    with pytest.raises(ValueError, match="expected images of bytes in three colours"):
        data.stream(str(tmp_path / "floats.npz"), image_size=4)
    with pytest.raises(ValueError, match=r"batch: expected 1 to 20, the number of examples, got 21"):
        opened(prepared).check_batch(21)
    with pytest.raises(ValueError, match=r"images of one size .* resized_crop"):
        data.load(str(prepared / "photos" / "1.0.0"))
