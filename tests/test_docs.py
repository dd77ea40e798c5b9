"""The documentation: every page is found, every public name has an example, messages are real.

All is read from the sources, and nothing is imported. `make docs` checks the links.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGES = {
    "vgg_keras": "vgg_keras",
    "vgg_keras.pipelines": "pipelines",
    "vgg_keras.callbacks": "callbacks",
    "vgg_keras.saved_models": "saved_models",
    "vgg_keras.errors": "vgg_keras/errors",
    "vgg_keras.features": "vgg_keras/features",
    "vgg_keras.serving": "vgg_keras/serving",
    "vgg_keras.weights": "vgg_keras/weights",
}


def pages_of(nav: list | dict | str) -> Iterator[str]:
    """The pages in a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(entry)


def test_the_navigation_has_every_page_once():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert sorted(pages_of(nav)) == sorted(pages)


def test_the_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    code = (ROOT / "vgg_keras/version.py").read_text()
    (version,) = re.findall(r"^version: (.+)$", citation, re.MULTILINE)
    assert f'__version__ = "{version}"' in code


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def file_of(module: str) -> Path:
    """The file of a module or package."""
    name = max((n for n in PACKAGES if f"{module}.".startswith(f"{n}.")), key=len)
    rest = module.removeprefix(name).replace(".", "/")
    path = ROOT / f"{PACKAGES[name]}{rest}"
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_names(package: str) -> dict[str, str]:
    """The module that each public name of a package is imported from.

    They are the names in `__all__`, or those that are imported under the same name (`A as A`).
    """
    file = file_of(package)
    stub = file.with_suffix(".pyi")
    tree = parsed(stub if stub.exists() else file)
    imports = [
        (package + f".{node.module}" * bool(node.module) if node.level else node.module, alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            modules = {alias.name: module for module, alias in imports}
            return {name: modules.get(name, package) for name in ast.literal_eval(node.value)}
    return {alias.name: module for module, alias in imports if alias.asname == alias.name}


def definition(module: str, name: str) -> tuple[Path, str]:
    """The file that defines a public name, and the name; "" for a module."""
    file = file_of(module)
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return file, name
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in map(ast.unparse, targets):
                return file, name
    origin = public_names(module).get(name, module)
    if origin != module:
        return definition(origin, name)
    assert file_of(f"{module}.{name}").exists(), f"{module}.{name}"
    return file_of(f"{module}.{name}"), ""


DEFINITIONS = {
    f"{package}.{name}": definition(module, name)
    for package in PACKAGES
    for name, module in public_names(package).items()
    if f"{package}.{name}" not in PACKAGES
}


def docstrings_of(file: Path, name: str) -> Iterator[str]:
    """The docstring of a class, function or constant; for a class also those of its methods."""
    body = parsed(file).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            yield ast.get_docstring(node) or ""
            for child in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                    yield ast.get_docstring(child) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in map(ast.unparse, targets):
                assert isinstance(after.value, ast.Constant)
                yield f"    {after.value.value}" if "`" in after.value.value else ""


# A section, a block between fences, a doctest, or a block that is indented after an empty line.
# For a constant, code in its one line.
EXAMPLE = re.compile(r"^Example:$|^```python$|^ *>>> |(?:\A|\n\n) {4}\S", re.MULTILINE)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_public_name_has_an_example(name):
    file, defined = DEFINITIONS[name]
    assert any(map(EXAMPLE.search, docstrings_of(file, defined))), f"{name}, in {file}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_an_example(package):
    assert EXAMPLE.search(ast.get_docstring(parsed(file_of(package))) or "")


def test_the_reference_has_every_public_name_once():
    """A name that several packages have is on the page of one of them."""
    listed = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
        if name not in PACKAGES
    ]
    found = [
        DEFINITIONS.get(name) or definition(*name.rpartition(".")[::2]) for name in sorted(listed)
    ]
    assert len(found) == len(set(found))
    assert set(found) == set(DEFINITIONS.values())


def texts_of(file: Path) -> Iterator[str]:
    """The strings of a file, with `…` where a value is filled in."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


MESSAGES = [
    " ".join(message.split())
    for message in re.findall(
        r"^```text\n(.*?)^```", (DOCS / "troubleshooting.md").read_text(), re.DOTALL | re.MULTILINE
    )
]


@functools.cache
def texts() -> tuple[str, ...]:
    folders = ("vgg_keras", "pipelines", "callbacks", "saved_models")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return tuple(text for file in files for text in texts_of(file))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_on_troubleshooting_is_in_the_code(message):
    """The parts between values are in one string of the code, in this order."""
    parts = [part.strip(" .") for part in message.split("…")]
    assert max(map(len, parts)) >= 10
    form = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    assert any(map(form.search, texts()))


def test_there_are_twenty_messages():
    assert len(MESSAGES) >= 20
