import sys

import numpy as np
import pytest

from nasi_jax import data

h5py = pytest.importorskip("h5py")
X = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 3)).astype(np.uint8)
Y = np.arange(9) % 3


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array


def test_npz_round_trip_and_errors(tmp_path):
    path = tmp_path / "own.npz"
    x, y = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype(np.uint8), np.arange(9) % 3
    np.savez(path, x=x, y=y)
    source = data.load(str(path))
    np.testing.assert_array_equal(source.x, x)
    assert source.outputs == 3
    np.savez(path, x=x)
    assert data.load(str(path), labels="random", classes=6).outputs == 6
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


@pytest.mark.parametrize("name", ["own.npz", "own.h5", "own.hdf5", "OWN.H5"])
@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train"), ("X_train", "Y_train")])
def test_names_of_arrays(tmp_path, name, names):
    path = tmp_path / name
    write(path, {names[0]: X[:6], names[1]: Y[:6], "x_test": X[6:, ..., 0], "y_test": np.eye(3)[Y[6:]]})
    training, test = data.load(str(path)), data.load(str(path), split="test")
    np.testing.assert_array_equal(training.x, X[:6])
    np.testing.assert_array_equal(training.y, Y[:6])
    np.testing.assert_array_equal(test.x, X[6:, ..., :1])
    np.testing.assert_array_equal(test.y, Y[6:])


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": X, "x_train": X, "y": Y}, ValueError, "'x' or 'x_train', not both"),
        ({"images": X}, ValueError, r"expected an array 'x' or 'x_train', found \['images'\]"),
        ({"x": X.astype(int), "y": Y}, TypeError, "x: expected dtype uint8 or floating, got int64"),
        ({"x": X.astype(complex), "y": Y}, TypeError, "x: expected dtype"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, ValueError, "looks like"),
        ({"x": X, "y": Y[:8]}, ValueError, "y: expected one label"),
        ({"x": X, "y": Y / 2}, TypeError, "y: expected an integer"),
        ({"x": X, "y": np.array([b"cat"] * 9)}, TypeError, "y: expected an integer"),
        ({"x": X}, ValueError, "y: expected labels"),
        ({"x": np.float32(3), "y": Y}, ValueError, "x: expected images"),
    ],
)
def test_what_does_not_fit_is_said_with_the_files_name(tmp_path, ending, arrays, error, message):
    path = tmp_path / f"own{ending}"
    write(path, arrays)
    with pytest.raises(error, match=message) as raised:
        data.load(str(path))
    assert str(path) in str(raised.value)


def test_files_of_another_kind(tmp_path):
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match=r"one\.npz.*single array without a name"):
        data.load(str(tmp_path / "one.npz"))
    write(tmp_path / "cut.npz", {"x": X, "y": Y})
    content = (tmp_path / "cut.npz").read_bytes()
    for name in ("cut.npz", "cut.h5"):
        for size in (0, 1, 100, len(content) - 30):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(ValueError, match=f"cannot read .*{name}"):
                data.load(str(tmp_path / name))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("x")
    with pytest.raises(ValueError, match="expected an array"):
        data.load(str(tmp_path / "group.h5"))
    np.save(tmp_path / "two.npy", X)
    with pytest.raises(ValueError, match=r"data: expected a file \.npz"):
        data.load(str(tmp_path / "two.npy"))


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "own.h5", {"x": X, "y": Y})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"own\.h5.*nasi_jax\[hdf5\]"):
        data.load(str(tmp_path / "own.h5"))
