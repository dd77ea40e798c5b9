"""The example is short, and runs; the saved net has the same errors on the command line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_keras.metadata import rounded

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_data.py"


def test_has_fifteen_lines_of_code_at_most():
    imports = ast.Import | ast.ImportFrom
    code = [n for n in ast.parse(EXAMPLE.read_text()).body[1:] if not isinstance(n, imports)]
    assert sum(node.end_lineno - node.lineno + 1 for node in code) <= 15


@pytest.mark.slow
def test_runs(shapes_dir, tmp_path):
    environment = os.environ | {"TFDS_DATA_DIR": str(shapes_dir)}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]

    shorter = tmp_path / "shorter.py"
    shorter.write_text(EXAMPLE.read_text().replace("epochs=8", "epochs=2"))
    printed = ast.literal_eval(run("shorter.py"))
    evaluated = ("evaluate", "--run", "nets/shapes", "--data", "shapes", "--multi-scale", "--json")
    (found,) = json.loads(run("-m", "vgg_keras.cli", *evaluated))["results"]
    assert printed["images"] == found["images"] == 400
    for error in ("top1_error", "top5_error"):
        assert rounded(printed[error]) == found[error]
