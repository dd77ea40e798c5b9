"""The structure of the code: one-way imports, one installed name, short functions and modules."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Folder -> the other folders whose modules it may import.
MAY_IMPORT = {
    "pipelines": set(),
    "callbacks": {"pipelines"},  # only the modules below
    "saved_models": {"pipelines"},
    "vgg_keras": {"pipelines", "callbacks", "saved_models"},
}
FILES = sorted(file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py"))
FOR_CALLBACKS = {
    f"vgg_keras.pipelines.{name}" for name in ("checks", "contents", "errors", "files")
}


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def folder_of(module: str) -> str | None:
    """The folder of this project that contains a module; None for modules of other projects."""
    top, _, rest = module.partition(".")
    if top != "vgg_keras":
        return None
    first = rest.split(".")[0]
    return first if first in MAY_IMPORT else top


def imported(file: Path) -> set[str]:
    """Full names of all modules that a file imports, at its top level or inside functions."""
    names = set()
    for node in ast.walk(parsed(file)):
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
            folder = folder_of(name)
            if folder not in (None, package):
                assert folder in MAY_IMPORT[package], f"{file.relative_to(ROOT)} imports {name}"
                assert package != "callbacks" or name in FOR_CALLBACKS, f"{file} imports {name}"


def module_of(file: Path) -> str:
    """The import name of a file in one of the four folders."""
    folder, *rest = file.relative_to(ROOT).with_suffix("").parts
    names = ["vgg_keras"] if folder == "vgg_keras" else ["vgg_keras", folder]
    return ".".join([*names, *rest]).removesuffix(".__init__")


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below a node, except those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from nodes_that_run(other)
            continue
        yield child
        yield from nodes_that_run(child)


def imports_of(file: Path, modules: Collection[str]) -> set[str]:
    """The given modules that a file imports, at its top level or inside functions."""
    names = set()
    for node in nodes_that_run(parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner | ({node.module} if not inner <= set(modules) else set())
    return names & set(modules) - {module_of(file)}


def test_there_is_no_import_circle():
    """Imports inside functions count like imports at the top level."""
    files = {module_of(file): file for file in FILES}
    graph = {name: imports_of(file, files) for name, file in files.items()}
    assert sum(map(len, graph.values())) > len(files)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_functions_are_short():
    """A function has at most 60 lines, including its docstring."""
    lengths = {
        f"{file.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(lengths) > 500
    assert not {name: length for name, length in lengths.items() if length > 60}


def test_modules_are_short():
    """A module has at most 320 lines."""
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert not {name: length for name, length in lengths.items() if length > 320}


def texts_of(file: Path) -> Iterator[str]:
    """The string constants of a file, except its docstrings."""
    tree = parsed(file)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


# Options of other programs: of git, of nvidia-smi, and of the process that replays requests.
OTHER_FLAGS = {"--error-unmatch", "--format", "--porcelain", "--query-gpu", "--repeats"}


def test_messages_of_the_library_name_arguments_and_not_flags():
    """Only the command line, which is `commands/` and `cli.py`, names flags."""
    library = [f for f in FILES if f.name != "cli.py" and f.parent.name != "commands"]
    assert len(library) > 100
    flags = {
        f"{file.relative_to(ROOT)}: {text}"
        for file in library
        for text in texts_of(file)
        for flag in re.findall(r"--[a-z][a-z-]*", text)
        if flag not in OTHER_FLAGS
    }
    assert not flags


@pytest.mark.parametrize("module", ["layers", "models"])
def test_model_code_is_backend_neutral(module):
    assert not any(
        name.split(".")[0] == "tensorflow" for name in imported(ROOT / f"vgg_keras/{module}.py")
    )


def test_modules_and_tests_of_the_mutation_testing_exist():
    listed = tomllib.loads((ROOT / "tests/mutants.toml").read_text())["modules"]
    for module, tests in listed.items():
        assert (ROOT / module) in FILES
        for test in tests:
            file, *names = test.split("::")
            for name in names:
                assert re.search(rf"^ *(class|def) {name}\b", (ROOT / file).read_text(), re.M), test


def test_every_package_is_listed_in_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    parts = [
        file.parent.relative_to(ROOT).parts
        for package in MAY_IMPORT
        for file in (ROOT / package).rglob("__init__.py")
    ]
    found = {".".join(p if p[0] == "vgg_keras" else ("vgg_keras", *p)) for p in parts}
    assert listed == found
    assert {name.split(".")[0] for name in listed} == {"vgg_keras"}


def test_a_checkout_is_a_whole_package():
    """Python takes the checkout's folder for the package where it is started in the checkout."""
    code = """
import sys
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]
from vgg_keras import callbacks, pipelines, saved_models
print(*(one.__name__ for one in (callbacks, pipelines, saved_models)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "vgg_keras.callbacks vgg_keras.pipelines vgg_keras.saved_models\n"
