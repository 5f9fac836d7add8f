import subprocess
import sys

import numpy as np
import pytest

from nasi_jax import data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny set of two classes, prepared as TensorFlow Datasets would."""
    directory = tmp_path_factory.mktemp("tfds")
    program = f"""
import numpy as np, tensorflow_datasets as tfds
class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
            dict(image=tfds.features.Image(shape=(8, 8, 3)), label=tfds.features.ClassLabel(num_classes=5))))
    def _split_generators(self, dl_manager):
        return dict(train=self._generate_examples())
    def _generate_examples(self):
        for i in range(12):
            yield i, dict(image=np.full((8, 8, 3), i, np.uint8), label=i % 5)
Tiny(data_dir={str(directory)!r}, file_format="array_record").download_and_prepare()
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return directory


def test_a_prepared_set_is_read_as_it_was_written(prepared):
    source = data.load("tiny", directory=prepared)
    x, y = np.asarray(source.x), np.asarray(source.y)
    assert x.shape == (12, 8, 8, 3)
    assert x.dtype == np.uint8
    assert source.classes == 5
    np.testing.assert_array_equal(x[:, 0, 0, 0] % 5, y)
    assert sorted(x[:, 0, 0, 0].tolist()) == list(range(12))


def test_reading_does_not_import_tensorflow(prepared):
    program = (
        "import sys; from nasi_jax import data;"
        f"data.load('tiny', directory={str(prepared)!r}); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_set_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="TensorFlow Datasets cannot load 'cifar10'"):
        data.load("cifar10", directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="cannot load 'no_such_set'"):
        data.load("no_such_set", directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="cannot load"):
        data.from_tfds("cifar10", directory=tmp_path, split="nonsense")
