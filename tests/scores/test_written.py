import numpy as np
import pytest

from nasi_jax.scores import ScoreTable, higher_is_better

HEAD = "genotype,seed,zico,ntk-condition-number,reason\n"


def test_shards_are_read_as_one_and_missing_rows_are_nan(tmp_path):
    one, other = tmp_path / "1.csv", tmp_path / "2.csv"
    one.write_text(HEAD + "b,1,4,40,\nb,0,2,20,\n")
    other.write_text(HEAD + "a,0,1,10,\na,1,nan,nan,overflow\nc,0,3,30,\nnonsense,0,nan,nan,line 4: no architecture\n")
    table = ScoreTable.read([one, other])
    assert table.architectures == ["b", "a", "c"]
    assert (table.seeds, table.failed) == ([0, 1], 2)
    np.testing.assert_array_equal(table.values["zico"], [[2, 1, 3], [4, np.nan, np.nan]])
    oriented = table.oriented()
    np.testing.assert_array_equal(oriented["zico"], table.values["zico"])
    np.testing.assert_array_equal(oriented["ntk-condition-number"], [[-20, -10, -30], [-40, np.nan, np.nan]])


def test_a_row_that_two_shards_have_is_named(tmp_path):
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text(HEAD + "a,0,1,10,\n")
    with pytest.raises(ValueError, match=r"2\.csv' repeats 'a', seed 0"):
        ScoreTable.read([tmp_path / "1.csv", tmp_path / "2.csv"])


def test_options_and_unknown_names_have_a_direction():
    assert not higher_is_better("ntk-condition-number")
    assert higher_is_better("gennas(steps=40)") == higher_is_better("gennas")
    assert higher_is_better("of-my-own")
