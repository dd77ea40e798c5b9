"""The example is short, and runs; the saved net has the same errors on the command line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vgg_keras.cli import main
from vgg_keras.metadata import rounded
from vgg_keras.serving import verify
from vgg_keras.trained import TrainedNet

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_data.py"


def test_has_fifteen_lines_of_code_at_most():
    imports = ast.Import | ast.ImportFrom
    code = [n for n in ast.parse(EXAMPLE.read_text()).body[1:] if not isinstance(n, imports)]
    assert sum(node.end_lineno - node.lineno + 1 for node in code) <= 15


@pytest.mark.slow
def test_runs(shapes_dir, tmp_path, monkeypatch):
    """A model in memory is fitted, evaluated at several scales, exported, verified and saved. Its
    export has all signatures."""
    monkeypatch.chdir(tmp_path)
    shorter = EXAMPLE.read_text().replace("epochs=8", "epochs=2").replace("0.125", "1 / 16")
    done = subprocess.run(
        [sys.executable, "-c", shorter],
        env=os.environ | {"TFDS_DATA_DIR": str(shapes_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = ast.literal_eval(done.stdout.splitlines()[-1])
    evaluated = ["evaluate", "--run", "nets/shapes", "--data", "shapes", "--multi-scale", "--json"]
    evaluated += ["--data-dir", str(shapes_dir)]
    found = CliRunner().invoke(main, evaluated)
    assert found.exit_code == 0, found.output
    (found,) = json.loads(found.stdout)["results"]
    assert printed["images"] == found["images"] == 40
    for key in ("top1_error", "top5_error", "test_scales"):
        assert rounded(printed[key]) == found[key]
    checks, seconds = verify("exports/shapes/1", TrainedNet.load("nets/shapes"), verbose=0)
    signatures = {"serving_default", "classify", "features", "images", "crops"}
    assert {check.signature for check in checks} == signatures
    assert max(check.difference for check in checks) <= 1e-5
    assert seconds > 0
