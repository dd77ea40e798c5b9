"""The script in the README is short, and it runs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def script() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return block


def test_the_script_has_at_most_twenty_lines():
    lines = [l for l in script().splitlines() if l and not l.startswith(("import", "from"))]
    assert len(lines) <= 20


@pytest.mark.slow
def test_the_script_trains(shapes_dir):
    smaller = {"epochs=16": "epochs=1, verbose=2", "width=0.25": "width=0.0625"}
    once = script()
    for now, small in smaller.items():
        assert once.count(now) == 1
        once = once.replace(now, small)
    code = once + "\nprint('loss', model.history.history['val_loss'][-1])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TFDS_DATA_DIR": str(shapes_dir)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("loss")[-1]) < 10


PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]


def test_names_that_the_pages_import_exist():
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    imports = {
        (node.module, alias.name)
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("vgg_keras")
        for alias in node.names
    }
    assert len(imports) > 20
    for module, name in sorted(imports):
        assert hasattr(importlib.import_module(module), name), f"from {module} import {name}"


def test_tests_that_the_page_on_reliability_names_exist():
    page = (README.parent / "docs/reliability.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "promise" not in line]
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)((?:::\w+)*)`", row)
        assert named or "---" in row, row
        for path, names in named:
            text = (README.parent / "tests" / path).read_text()
            for name in names.split("::")[1:]:
                assert re.search(rf"(def|class) {name}\b", text), f"{path} has no {name}"
