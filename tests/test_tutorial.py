"""The tutorial runs, and its notebook has the cells of the script and stored outputs."""

from __future__ import annotations

import nbformat
import pytest

from tests import tutorial
from tests.vgg_keras.weights import foreign
from vgg_keras.ilsvrc import label, wnids

SETTINGS = {"CROP_SIZE": 32, "TRAIN_SCALE": (32, 40), "FC_EPOCHS": 1, "EPOCHS": 2}


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(tutorial.NOTEBOOK, 4)


def texts(cell) -> str:
    """What a cell printed."""
    return "".join(o.get("text") or o.data.get("text/plain", "") for o in cell.outputs)


def test_the_notebook_has_the_cells_of_the_script(stored):
    """If not: `make tutorial`."""
    cells, written = (
        [(c.cell_type, c.source) for c in notebook.cells]
        for notebook in (stored, tutorial.read_script())
    )
    assert cells == written


def test_the_stored_outputs_are_those_of_one_run(stored):
    nbformat.validate(stored)
    code = tutorial.code_cells(stored)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/jpeg" in output.get("data", ()) for output in outputs) == 3


def test_the_notebook_is_small(stored):
    assert tutorial.NOTEBOOK.stat().st_size < 500_000


@pytest.mark.slow
def test_runs(shapes_dir, tmp_path, monkeypatch):
    """With a weights file of little width in place of the released one, and a tenth of the shapes.
    The server gives the answer of the net."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(shapes_dir))
    shapes = foreign.kernel_shapes("A", 1000, 224, 1 / 64)
    foreign.applications_h5(tmp_path / "released.h5", foreign.random_weights(shapes))
    notebook = tutorial.execute(tmp_path, WEIGHTS="released.h5", **SETTINGS)
    printed = list(map(texts, tutorial.code_cells(notebook)))
    assert any(label(wnids()[k]) in printed[2] for k in range(1000))
    assert sum("top-1 error" in line for line in "".join(printed).splitlines()) == 2 + 2
    assert "FAILED" not in "".join(printed)
    served, of_net = (text.splitlines()[-3:] for text in printed[-2:])
    assert served == of_net
    assert all("%" in line for line in served)
    assert (tmp_path / "runs/ten-classes/best.weights.h5").is_file()
