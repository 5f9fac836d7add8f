import jax
import numpy as np
import PIL.Image
import pytest

from nasi_jax import data


def picture(path, colour, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, colour).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Two classes in two splits; beside the pictures, what operating systems and notebooks leave."""
    for split, number in (("train", 3), ("val", 2)):
        for label, name in enumerate(["ant", "bee"]):
            for i in range(number):
                picture(tmp_path / split / name / f"{i}.png", (100 * label + i, 0, 0))
            (tmp_path / split / name / "notes.txt").write_text("no picture")
            (tmp_path / split / name / "._0.png").write_bytes(b"no picture")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


def test_classes_are_labels_in_order_and_folders_are_splits(pictures):
    training, test = data.load(str(pictures)), data.load(str(pictures), split="test")
    assert training.image_shape == (6, 8, 3)
    assert training.x[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert training.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.x[:, 0, 0, 0].tolist() == [0, 1, 100, 101]
    assert (training.outputs, test.outputs) == (2, 2)
    whole = data.load(str(pictures / "train"))
    np.testing.assert_array_equal(whole.x, training.x)
    picture(pictures / "test" / "bee" / "0.png", (7, 0, 0))
    assert data.load(str(pictures), split="test").y.tolist() == [1]
    assert len(data.load(str(pictures), split="val")) == 4


def test_sizes_that_differ_are_made_one(pictures):
    picture(pictures / "train" / "ant" / "9.JPG", (200, 200, 200), size=(30, 17))
    with pytest.raises(ValueError, match=r"image_size: .*8x6 in .*30x17 in .*9\.JPG"):
        data.load(str(pictures))
    training = data.load(str(pictures), image_size=5)
    assert training.image_shape == (5, 5, 3)
    np.testing.assert_allclose(training.x[3], 200, atol=2)
    assert training.batch(jax.random.key(0), 7).x.shape == (7, 5, 5, 3)


def test_grey_pictures_have_one_colour(tmp_path):
    for name, mode, colour in (("a", "L", 9), ("b", "1", 1)):
        picture(tmp_path / "train" / name / "0.png", colour, mode=mode)
        picture(tmp_path / "test" / name / "0.png", (50, 50, 50))
    assert data.load(str(tmp_path)).x[:, 0, 0].tolist() == [[9], [255]]
    assert data.load(str(tmp_path), split="test").x[:, 0, 0].tolist() == [[50], [50]]
    picture(tmp_path / "train" / "b" / "1.png", (1, 2, 3, 128), mode="RGBA")
    assert data.load(str(tmp_path)).x[:, 0, 0].tolist() == [[9, 9, 9], [255, 255, 255], [1, 2, 3]]


def test_pictures_that_are_read_while_a_network_trains(pictures):
    stream = data.stream(str(pictures), image_size=4, split="train")
    assert (len(stream), stream.outputs) == (6, 2)
    ((x, y),) = stream.batches(8)
    assert x[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert y.tolist() == [0, 0, 0, 1, 1, 1]


def test_bad_folders_are_refused(pictures, tmp_path):
    def refused(message, path=pictures, **options):
        with pytest.raises(ValueError, match=message):
            data.load(str(path), **options)

    refused(r"expected folders 'train' and 'holdout' in .*, found \['train', 'val'\]", split="holdout")
    refused("expected folders 'train' and 'test' or 'val'", path=pictures / "train", split="test")
    refused("expected a folder of pictures for each class", path=pictures / "train" / "ant")
    refused("classes: expected with Gaussian inputs or a file", classes=3)
    picture(pictures / "val" / "cat" / "0.png", 0)
    refused("expected the classes of .*, found 'cat' too", split="test")
    (pictures / "train" / "dog").mkdir()
    refused("expected .png or .jpg files in .*dog")
    picture(pictures / "train" / "dog" / "0.png", 40000, mode="I;16")
    refused(r"cannot read the picture .*dog/0\.png.*8 bits a colour")
    whole = (pictures / "train" / "ant" / "0.png").read_bytes()
    for content in (b"", b"no picture", whole[:40], whole[:-40]):
        (pictures / "train" / "dog" / "0.png").write_bytes(content)
        refused(r"cannot read the picture .*dog/0\.png")
    with pytest.raises(FileNotFoundError, match="there is none"):
        data.from_folder(tmp_path / "absent")
