import csv
import gzip

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from nasi_jax import spaces, tabular


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
    with pytest.raises(ValueError, match=r"it has no '\|z\|', nor 1 more"):
        tabular.Table.read(path, ["top1"]).lookup(["|z|", "|a|", "|y|"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_spreadsheets_write(tmp_path, delimiter, encoding, ending, pack):
    text = ["arch; top1;name", '"a, b";90.5;"x', 'y"', " c ;80,25;", "", "d;;z", ""]
    if delimiter == ",":
        text[3] = ' c ;"80,25";'
    path = tmp_path / "table.csv"
    path.write_bytes(pack(ending.join(text).replace(";", delimiter).encode(encoding)))
    table = tabular.Table.read(path, ["top1"])
    assert list(table.rows) == ["a, b", "c", "d"]
    np.testing.assert_array_equal(table.columns["top1"], [90.5, 80.25, np.nan])


WHOLE = gzip.compress(b"arch,top1\n" + b"".join(b"%d,%d\n" % (i, i * i % 97) for i in range(300)), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected columns \['arch', 'top1'\] .* it has \[\]"),
        (b"\n\n", "expected columns"),
        (b"\x89PNG\r\n\x1a\n\0\0", "expected text in UTF-8"),
        (b"PK\3\4\0\0", "expected columns"),
        ("arch,top1\n\u00e9,1\n".encode("latin-1"), "expected text in UTF-8"),
        (b"\xff\xfea", "expected text in UTF-8"),
        (WHOLE[:-4], "cannot read"),
        (WHOLE[:200], "cannot read"),
        (WHOLE[:12], "cannot read"),
        (WHOLE[:60] + b"\0" * 9 + WHOLE[69:], "cannot read"),
        (b"arch,top1\na,1\nb,2,3\n", "line 3 .* expected 2 cells, got 3"),
        (b"arch,top1\na\n", "line 2 .* expected 2 cells, got 1"),
        (b"arch,top1,top1\na,1,2\n", r"expected columns \['top1'\] .*, each once"),
        (b"arch,top1\n" + b"a" * 200_000 + b",1\n", "is not CSV"),
    ],
)
def test_files_that_are_no_tables_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        tabular.Table.read(path, ["top1"])
    assert "bad.csv" in str(raised.value)


@hypothesis.given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(gzip.compress),
        st.builds(lambda at, byte: WHOLE[:at] + byte + WHOLE[at + 1 :], st.integers(0, 400), st.binary(max_size=1)),
        st.text('ab,;\t"\n\r\0 1.', max_size=40).map(lambda text: f"arch,top1\n{text}".encode()),
    )
)
@hypothesis.settings(max_examples=200)
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    message = ""
    try:
        table = tabular.Table.read(path, ["top1"])
    except ValueError as error:
        message = str(error)
        table = tabular.Table({}, {"top1": np.empty(0)})
    assert len(table.columns["top1"]) == len(table.rows)
    assert not message or "any.csv" in message


def test_architectures_are_found_in_any_notation(tmp_path):
    """NASLib's tuple, the benchmark's index, and a row that is of no cell."""
    space = spaces.NASBench201()
    cell = "|avg_pool_3x3~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_1x1~2|"
    path = write(tmp_path / "t.csv", ["arch", "top1"], ["(4, 3, 2, 1, 0, 3)", "90"], ["9", "91"], ["a resnet", "92"])
    table = tabular.Table.read(path, ["top1"])
    found = table.lookup([cell, space.format(space.parse("9")), "a resnet"], space)
    np.testing.assert_array_equal(found["top1"], [90, 91, 92])
    assert table.row(space, space.format(space.parse("10"))) is None
    with pytest.raises(ValueError, match="it has no"):
        table.lookup([cell])
    write(path, ["arch", "top1"], ["(4, 3, 2, 1, 0, 3)", "90"], [cell.replace("+", " + "), "91"])
    with pytest.raises(ValueError, match="every architecture once"):
        tabular.Table.read(path, ["top1"]).lookup([cell], space)


def test_the_published_best_accuracies(benchmark_table):
    table = tabular.Table.read(benchmark_table, ["cifar10_test", "cifar100_test", "imagenet16_test"])
    assert [round(float(column.max()), 2) for column in table.columns.values()] == [94.37, 73.51, 47.31]
    assert len(table.rows) == 15_625
