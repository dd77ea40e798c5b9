"""Dependencies go one way: the paper knows the tools, the tools do not know the paper."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "pipelines": set(),
    "callbacks": {"pipelines"},  # for pipelines.files alone
    "saved_models": {"pipelines"},
    "vgg_keras": {"pipelines", "callbacks", "saved_models"},
}


def imported(file: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            top = name.split(".")[0]
            if top in MAY_IMPORT and top != package:
                assert top in MAY_IMPORT[package], f"{file.relative_to(ROOT)} imports {name}"
                assert package != "callbacks" or name == "pipelines.files", file


@pytest.mark.parametrize("module", ["layers", "models"])
def test_model_code_is_backend_neutral(module):
    assert not any(
        name.split(".")[0] == "tensorflow" for name in imported(ROOT / f"vgg_keras/{module}.py")
    )


def test_every_package_is_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for package in MAY_IMPORT
        for file in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found


def test_a_foreign_package_of_the_same_name_is_refused(tmp_path):
    import subprocess
    import sys

    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks/__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vgg_keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs its own package 'callbacks'" in done.stderr
    assert str(tmp_path) in done.stderr
