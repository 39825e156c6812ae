"""The notebook runs from its first cell to its last."""

import json
import pathlib

import jax
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "examples/quickstart.ipynb"


def test_its_cells_run_one_after_another(capsys, monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in cell]
    assert all(cell["outputs"] == [] for cell in cells)
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for cell in cells:
            exec("".join(cell["source"]), names)
    assert capsys.readouterr().out.count("%") == 5


@pytest.mark.slow
def test_it_runs_in_jupyter():
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": NOTEBOOK.parent}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in printed if output.get("name") == "stderr"]
    assert sum("%" in output.get("text", "") for output in printed) == 1
