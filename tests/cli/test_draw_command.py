import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasi_jax import cli, spaces
from nasi_jax.cli.genotypes import read

TEXT = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"


def test_a_text_form_and_a_file_give_the_same_picture(tmp_path, capsys):
    space = spaces.get("nasbench201")
    (tmp_path / "genotype.json").write_text(json.dumps(spaces.to_json(space, space.parse(TEXT))))
    assert cli.main(["draw", "--genotype", TEXT, "--out", str(tmp_path / "a.png")]) == 0
    assert cli.main(["draw", "--genotype", str(tmp_path / "genotype.json"), "--out", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "a.png" in capsys.readouterr().out


def test_the_genotype_in_another_notation(tmp_path, capsys):
    assert cli.main(["draw", "--genotype", TEXT, "--format", "naslib", "--out", str(tmp_path / "cell.png")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "(2, 2, 0, 1, 3, 4)"


def test_a_vector_picture_names_the_operations(tmp_path):
    assert cli.main(["draw", "--genotype", TEXT, "--out", str(tmp_path / "cell.svg")]) == 0
    assert "nor_conv_1x1" in (tmp_path / "cell.svg").read_text()


@pytest.mark.parametrize(
    ("genotype", "out", "message"),
    [
        ("|conv~0|", "cell.png", "3 nodes"),
        ("absent.json", "cell.png", "there is none"),
        (TEXT, "cell.doc", "ending in one of"),
        (TEXT, "file/cell.png", "cannot write"),
        (TEXT, "", "out: expected a path, got ''"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, genotype, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert cli.main(["draw", "--genotype", genotype, "--out", out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_json_of_something_else(tmp_path, capsys):
    path = tmp_path / "g.json"
    for content, message in (("{", "is not JSON"), ("[]", "lacks"), ('{"space": "moon"}', "space: expected one of")):
        path.write_text(content)
        assert cli.main(["draw", "--genotype", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_the_folder_of_a_picture_is_made(tmp_path):
    assert cli.main(["draw", "--genotype", TEXT, "--out", str(tmp_path / "new" / "folder" / "cell.svg")]) == 0
    assert (tmp_path / "new" / "folder" / "cell.svg").exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["space", "genotype", "arrays", "x"]), inner),
    max_leaves=8,
)


@given(content=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_other_file_is_one_line_with_its_name(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "g.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"g\.json"):
        read(str(path), "nasbench201")
