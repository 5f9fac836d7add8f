"""The notebooks: what is committed was run from top to bottom, and runs today."""

import json

import documents
import pytest

NOTEBOOKS = sorted((documents.ROOT / "examples").glob("*.ipynb"))
LARGEST = 200_000  # bytes, with outputs


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_a_notebook_is_committed_as_it_was_run(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert notebook.stat().st_size < LARGEST


@pytest.mark.slow
def test_a_notebook_runs(notebook, tmp_path):
    nbclient, nbformat = (pytest.importorskip(name, reason="extra docs") for name in ("nbclient", "nbformat"))
    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read, timeout=1200, kernel_name="python3", resources=resources).execute()
