"""The README is short, and names what exists. `test_pages.py` runs its commands and scripts."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def scripts() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_script_that_trains_has_at_most_twenty_lines():
    (script,) = (one for one in scripts() if "model.fit" in one)
    lines = [l for l in script.splitlines() if l and not l.startswith(("import", "from"))]
    assert len(lines) <= 20


def test_a_photo_is_classified_in_three_lines():
    assert len(scripts()[0].split("\n\n", 1)[1].splitlines()) + 1 == 3


def test_git_ignores_what_its_commands_write():
    ignored = (README.parent / ".gitignore").read_text().splitlines()
    written = re.findall(r"(?:--out|--data folder:|--results) ?(\w+)[/ \n]", README.read_text())
    assert {"runs", "exports", "results", "photos"} <= set(written)
    assert {f"/{name}/" for name in (*written, "report", "nets")} <= set(ignored)


def test_the_first_sentence_is_short():
    _, sentence, _ = README.read_text().split("\n\n", 2)
    assert len(sentence.split()) <= 25


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
