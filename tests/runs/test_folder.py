import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasi_jax.runs.files import write_atomic
from nasi_jax.runs.folder import CONFIG, HISTORY, Mark, RunFolder, RunFolderError, differences


def opened(path, config=None, kind="test", **options):
    return RunFolder.open(path, kind, config or {"seed": 0}, results=("result.json",), **options)


def test_a_run_without_a_row_does_not_keep_its_configuration(tmp_path):
    """As one that a bad setting ended; the first row settles what the run is."""
    with opened(tmp_path, {"seed": 0}) as folder:
        folder.load()
        folder.write("leaf", "of seed 0")
    with opened(tmp_path, {"seed": 0}, leaves=("leaf",)):
        assert (tmp_path / "leaf").exists()
    with opened(tmp_path, {"seed": 1}, leaves=("leaf",)) as folder:
        assert json.loads((tmp_path / CONFIG).read_text())["seed"] == 1
        assert not (tmp_path / "leaf").exists()
        folder.load()
        folder.append([{"step": 0}])
    with pytest.raises(RunFolderError, match="another configuration"):
        opened(tmp_path, {"seed": 2})


def test_a_folder_has_one_user_at_a_time(tmp_path):
    with opened(tmp_path / "run"), pytest.raises(RunFolderError, match="another process is at work"):
        opened(tmp_path / "run")
    with opened(tmp_path / "run") as folder:
        assert {path.name for path in folder.path.iterdir()} == {CONFIG, ".lock"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {CONFIG}


def test_files_of_others_stay_when_a_run_is_replaced(tmp_path):
    with opened(tmp_path) as folder:
        folder.load(Mark())
        folder.write("picture.png", "ours")
        folder.write("result.json", "{}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="finished run; pass --overwrite"):
        opened(tmp_path)
    with opened(tmp_path, {"seed": 1}, leaves=("picture.png",), overwrite=True):
        assert {path.name for path in tmp_path.iterdir()} == {CONFIG, "notes.txt", ".lock"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.tex": "years of work"}, "holds other files"),
        ({CONFIG: '{"model_type": "bert"}', "weights.bin": ""}, "is not that of a run"),
        ({CONFIG: "[1]", "weights.bin": ""}, "expected a JSON object"),
        ({CONFIG: '{"run": "other", "seed": 0}', HISTORY: ""}, "run: 'other' there, 'test' now"),
    ],
)
def test_what_is_no_run_is_never_replaced(tmp_path, files, message, overwrite):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(RunFolderError, match=message):
        opened(tmp_path, overwrite=overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("content", ["", "[1]", "null", '{"seed', "\x00" * 9, "[" * 100000])
def test_a_damaged_configuration_is_said_and_can_be_replaced(tmp_path, content):
    with opened(tmp_path) as folder:
        folder.load(Mark())
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(RunFolderError, match=r"cannot read config\.json of the run in .*--overwrite"):
        opened(tmp_path)
    with opened(tmp_path, overwrite=True):
        assert json.loads((tmp_path / CONFIG).read_text())["seed"] == 0


def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    with opened(tmp_path):
        pass
    (tmp_path / f".{CONFIG}.x7.partial").write_text("{")
    (tmp_path / ".lock").write_text("")
    with opened(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG}


def test_differences_are_named_one_by_one_and_paths_are_none():
    data = {"size": 3, "sha256": "ab"}
    there = {"data": data | {"path": "a.npz"}, "search": {"mu": 2.0, "nu": 1.0}, "old": 1}
    now = {"data": data | {"path": "b.npz"}, "search": {"mu": 1.5, "nu": 1.0}, "new": None}
    assert differences(there, now) == [
        "new: nothing there, None now",
        "old: 1 there, nothing now",
        "search.mu: 2.0 there, 1.5 now",
    ]
    assert differences({"data": data}, {"data": data | {"sha256": "cd"}}) == ["data.sha256: 'ab' there, 'cd' now"]


rows = st.lists(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()), max_size=5)


@given(covered=rows, later=rows, tail=st.binary())
def test_a_history_is_what_the_checkpoint_covers(tmp_path_factory, covered, later, tail):
    path = tmp_path_factory.mktemp("run")
    with opened(path) as folder:
        folder.load(Mark())
        folder.append(covered)
        mark = folder.mark
        folder.append(later)
    with (path / HISTORY).open("ab") as file:
        file.write(tail)
    with opened(path) as folder:
        assert folder.load(mark) == folder.rows == covered
        folder.append(later)
    with opened(path) as folder:
        assert folder.load() == covered + later


@given(content=st.binary(max_size=60))
def test_a_history_that_was_changed_is_said(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run")
    with opened(path) as folder:
        folder.load(Mark())
        folder.append([{"step": 0, "loss": 1.25}, {"step": 1, "loss": 1.5}])
        mark = folder.mark
        whole = (path / HISTORY).read_bytes()
    if content.startswith(whole):
        return
    write_atomic(path / HISTORY, content)
    with opened(path) as folder, pytest.raises(RunFolderError, match=r"history\.jsonl' is not what the run wrote"):
        folder.load(mark)
    with opened(path) as folder:
        try:
            found = folder.load()
        except RunFolderError as error:
            found, message = [], str(error)
        else:
            message = "history.jsonl' is not a row"
        assert all(isinstance(row, dict) for row in found)
        assert "history.jsonl' is not a row" in message


def test_a_full_disk_leaves_whole_rows(tmp_path, monkeypatch):
    with opened(tmp_path) as folder:
        folder.load(Mark())
        folder.append([{"step": 0}])
        with monkeypatch.context() as patch:

            def full(handle):
                raise OSError(28, "No space left on device")

            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match=r"No space left on device: .*history\.jsonl"):
                folder.append([{"step": 1}])
        folder.append([{"step": 2}])
        assert [row["step"] for row in folder.rows] == [0, 2]
        assert folder.load(folder.mark) == [{"step": 0}, {"step": 2}]
