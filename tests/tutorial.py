"""Executes the tutorial, and stores it as a notebook with its outputs.

    make tutorial
    make tutorial SETTINGS="WEIGHTS=$PWD/runs/d EPOCHS=2"

`examples/tutorial.py` is the source, `examples/tutorial.ipynb` is made from it. The settings take
the place of those of the cell with the tag `parameters`, as in papermill. A server that stands for
TensorFlow Serving answers the request. If only the text has changed, nothing is executed and the
outputs are kept.
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

from tests.saved_models.servers import served

SCRIPT = Path(__file__).parent.parent / "examples" / "tutorial.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
EXPORT = Path("exports/ten-classes/1")
PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read_script() -> nbformat.NotebookNode:
    """The script as a notebook without outputs."""
    notebook = jupytext.read(SCRIPT)
    notebook.metadata = nbformat.from_dict({"kernelspec": PYTHON})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same each time
    return notebook


def execute(folder: Path, **settings: Any) -> nbformat.NotebookNode:
    """Executes the tutorial in a folder, with other settings than those of the script."""
    notebook = read_script()
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    written = parameters.source
    with served(folder / EXPORT) as host:
        settings["SERVER"] = f"http://{host}/v1/models/{EXPORT.parent.name}"
        assignments = [f"{name} = {value!r}" for name, value in settings.items()]
        parameters.source = "\n".join([written, *assignments])
        in_folder = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            notebook, timeout=None, record_timing=False, kernel_name="python3", resources=in_folder
        )
        client.execute()
    parameters.source = written
    for cell in code_cells(notebook):
        cell.outputs = [_reduced(o) for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def _reduced(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without the PNG file that Pillow adds to a JPEG file."""
    if "image/jpeg" in output.get("data", ()):
        output.data.pop("image/png", None)
    return output


def keep_outputs(notebook: nbformat.NotebookNode) -> bool:
    """Whether the stored notebook has the same code: then its outputs are copied."""
    stored, here = map(code_cells, (nbformat.read(NOTEBOOK, nbformat.NO_CONVERT), notebook))
    is_same = [cell.source for cell in stored] == [cell.source for cell in here]
    for cell, former in zip(here, stored, strict=False):
        if is_same:
            cell.update(outputs=former.outputs, execution_count=former.execution_count)
    return is_same


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def main(settings: list[str]) -> None:
    """Stores the notebook. A setting is NAME=VALUE, a Python literal or else text."""
    given: dict[str, Any] = dict(setting.split("=", 1) for setting in settings)
    for name, text in given.items():
        with contextlib.suppress(ValueError, SyntaxError):
            given[name] = ast.literal_eval(text)
    notebook = read_script()
    if given or not keep_outputs(notebook):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(Path(folder), **given)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(sys.argv[1:])
