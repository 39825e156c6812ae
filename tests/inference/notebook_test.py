"""The notebook runs from its first cell to its last."""

import json
import pathlib

import jax
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "examples/quickstart.ipynb"


def test_its_cells_run_one_after_another(bert, capsys):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in cell]
    assert all(cell["outputs"] == [] for cell in cells)
    first, *rest = ("".join(cell["source"]) for cell in cells)
    assert first.startswith("MODEL = ")
    names = {"MODEL": bert("pretraining")}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for source in rest:
            exec(source, names)
    assert capsys.readouterr().out.count("%") == 5


@pytest.mark.slow
def test_it_runs_in_jupyter(bert, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (first,) = [cell for cell in notebook.cells if cell.source.startswith("MODEL = ")]
    first.source = f"MODEL = {str(bert('pretraining'))!r}"
    where = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in printed if output.get("name") == "stderr"]
    assert sum("%" in output.get("text", "") for output in printed) == 1
