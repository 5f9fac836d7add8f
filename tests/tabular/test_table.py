import csv
import gzip

import numpy as np
import pytest

from nasi_jax import tabular


def write(path, header, *rows):
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_lookup_follows_the_order_asked_for(tmp_path, name):
    path = write(tmp_path / name, ["arch", "top1", "params"], ["|a|", "90.5", "1"], ["|b|", "80.25", "2"])
    table = tabular.Table.read(path, ["params", "top1"])
    found = table.lookup(["|b|", "|a|", "|b|"])
    np.testing.assert_array_equal(found["top1"], [80.25, 90.5, 80.25])
    np.testing.assert_array_equal(found["params"], [2, 1, 2])


def test_errors_say_what_and_where(tmp_path):
    path = write(tmp_path / "t.csv", ["arch", "top1"], ["|a|", "90"], ["|a|", "91"])
    with pytest.raises(ValueError, match=r"line 3 .* repeats"):
        tabular.Table.read(path, ["top1"])
    with pytest.raises(ValueError, match=r"expected columns \['top5'\]"):
        tabular.Table.read(path, ["top1", "top5"])
    write(path, ["arch", "top1"], ["|a|", "90"], ["|b|", "n/a"])
    with pytest.raises(ValueError, match=r"line 3 .* expected a number in 'top1'"):
        tabular.Table.read(path, ["top1"])
    with pytest.raises(FileNotFoundError, match="there is none"):
        tabular.Table.read(tmp_path / "absent.csv", ["top1"])
    write(path, ["arch", "top1"], ["|a|", "90"])
    with pytest.raises(ValueError, match=r"it has no '\|z\|'"):
        tabular.Table.read(path, ["top1"]).lookup(["|z|"])


def test_the_published_best_accuracies(benchmark_table):
    table = tabular.Table.read(benchmark_table, ["cifar10_test", "cifar100_test", "imagenet16_test"])
    assert [round(float(column.max()), 2) for column in table.columns.values()] == [94.37, 73.51, 47.31]
    assert len(table.rows) == 15_625
