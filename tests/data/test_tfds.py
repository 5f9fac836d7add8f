import subprocess
import sys

import numpy as np
import pytest
from prepared_sets import prepare

from nasi_jax import data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny set of two classes, prepared as TensorFlow Datasets would."""
    directory = tmp_path_factory.mktemp("tfds")
    prepare(directory, "Tiny", (8, 8, 3), 5, "((np.full((8, 8, 3), i, np.uint8), i % 5) for i in range(12))")
    return directory


def test_a_prepared_set_is_read_as_it_was_written(prepared):
    source = data.load("tiny", directory=prepared)
    x, y = np.asarray(source.x), np.asarray(source.y)
    assert x.shape == (12, 8, 8, 3)
    assert x.dtype == np.uint8
    assert source.outputs == 5
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
