"""Mutation testing: do the tests fail if the code is wrong?

    make mutants

`mutants.toml` lists modules and the tests that hold each. Cosmic Ray changes one operator or number
of a module at a time; the tests of the module must fail. The files of the project are not changed:
a mutant is imported from a copy of the module, in a process of its own. That is forked from a
process that has imported TensorFlow and has not started it, because the import is slow.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import gc
import importlib
import importlib.abc
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIG = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
_forks = multiprocessing.get_context("fork")

# A mutant that cannot be imported is broken: no test judges it, and it is not counted.
SURVIVED, CAUGHT, TIMEOUT, BROKEN = "survived", "caught", "too slow", "broken"
OUTCOMES = {0: SURVIVED, 1: CAUGHT, -signal.SIGALRM: TIMEOUT}  # by exit code; else BROKEN


@dataclass(frozen=True)
class Mutant:
    """A module with one change. `change` is its line number, the line before and the line after."""

    path: str
    source: str
    change: str


def mutants(path: str) -> list[Mutant]:
    """All mutants of a module that differ in what they do, by the operators of `mutants.toml`."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    original = (ROOT / path).read_text()
    found = {_meaning(original): ""}
    for name in CONFIG["operators"]:
        operator = get_operator(f"core/{name}")()
        nodes = ast_nodes(get_ast(original))
        for occurrence in range(sum(len(list(operator.mutation_positions(n))) for n in nodes)):
            source = mutate_code(original, operator, occurrence)
            with contextlib.suppress(SyntaxError):  # `not` before `name := value`
                found.setdefault(_meaning(source), source)
    return [Mutant(path, source, _change(original, source)) for source in found.values() if source]


def _meaning(source: str) -> str:
    """The code without what is for type checkers alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.test = ast.Constant(False)
        for name in ("annotation", "returns"):
            if getattr(node, name, None):
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def _change(before: str, after: str) -> str:
    old, new = before.splitlines(), after.splitlines()
    _, i1, i2, j1, j2 = next(
        code
        for code in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if code[0] != "equal"
    )
    lines = (" ".join(line.strip() for line in part) for part in (old[i1:i2], new[j1:j2]))
    return f"{i1 + 1}: " + " -> ".join(lines)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the file of a mutant in place of that of the module.

    It is a file, because AutoGraph and tracebacks read the source again.
    """

    def __init__(self, mutant: Mutant, file: Path):
        name = ".".join(Path(mutant.path).with_suffix("").parts)
        # The folders beside vgg_keras/ are its subpackages.
        self.name = name if name.startswith("vgg_keras.") else f"vgg_keras.{name}"
        self.file = file
        file.write_text(mutant.source)

    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, self.file) if name == self.name else None


class _PropertiesLast:
    """Runs the tests of hypothesis last: they take longest, and an example catches most mutants."""

    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: hasattr(getattr(item, "function", None), "hypothesis"))


def _run(mutant: Mutant, tests: list[str], limit: float, folder: Path) -> None:
    """Runs the tests of a mutant, in a process of its own; the exit code is that of pytest."""
    signal.alarm(math.ceil(limit))  # ends the process, whatever it is doing
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    finder = _Finder(mutant, folder / "mutant.py")
    sys.meta_path.insert(0, finder)

    import pytest
    from hypothesis import Phase, settings

    # The same examples in every run. A failure is not shrunk, and nothing is stored.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
    settings.load_profile("mutants")
    options = ["-x", "-q", "--tb=line", f"--basetemp={folder / 'tmp'}", "-m", "not slow"]
    for plugin in ("cacheprovider", "xdist", "timeout"):
        options += ["-p", f"no:{plugin}"]
    code = pytest.main([*options, *tests], plugins=[_PropertiesLast()])
    if code == 0 and finder.name not in sys.modules:
        code = pytest.ExitCode.NO_TESTS_COLLECTED  # the tests do not reach the module
    sys.stdout.flush()
    os._exit(code)


def _judge(mutant: Mutant, tests: list[str], limit: float = 600) -> tuple[str, str]:
    """Runs the tests of a mutant; returns the outcome and what was printed."""
    with tempfile.TemporaryDirectory() as folder:
        process = _forks.Process(target=_run, args=(mutant, tests, limit, Path(folder)))
        process.start()
        process.join()
        return OUTCOMES.get(process.exitcode, BROKEN), (Path(folder) / "log").read_text()


def check(path: str, workers: int) -> Counter[str]:
    """Tests the mutants of a module and prints those that were not caught.

    Returns:
        The number of mutants by outcome.

    Raises:
        SystemExit: the tests fail without a change.
    """
    tests = CONFIG["modules"][path]
    start = time.monotonic()
    outcome, printed = _judge(Mutant(path, (ROOT / path).read_text(), ""), tests)
    if outcome != SURVIVED:
        sys.exit(f"{path}: the tests fail without a change\n{printed}")
    limit = 10 + 4 * workers * (time.monotonic() - start)
    found = mutants(path)
    if len(found) > CONFIG["most_mutants"]:
        found = random.Random(0).sample(found, CONFIG["most_mutants"])
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(workers) as pool:
        outcomes = pool.map(lambda mutant: _judge(mutant, tests, limit)[0], found)
        for mutant, outcome in zip(found, outcomes, strict=True):
            counts[outcome] += 1
            if outcome in (SURVIVED, TIMEOUT):
                print(f"{outcome:9} {path}:{mutant.change}", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="paths; by default all of mutants.toml")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in CONFIG["preload"]:
        importlib.import_module(name)
    gc.freeze()  # else each process copies what its garbage collector looks at
    total: Counter[str] = Counter()
    rows = []
    for path in options.modules or CONFIG["modules"]:
        start = time.monotonic()
        counts = check(path, options.workers)
        total += counts
        rows.append((path, counts, time.monotonic() - start))
        print(_row(*rows[-1]), flush=True)
    rows.append(("all", total, sum(seconds for _, _, seconds in rows)))
    print("", *(_row(*row) for row in rows), sep="\n")
    sys.exit(_share(total) < CONFIG["least_caught"])


def _share(counts: Counter[str]) -> float:
    """The share of the mutants that was caught. One that never ends was noticed too."""
    return (counts[CAUGHT] + counts[TIMEOUT]) / max(counts.total() - counts[BROKEN], 1)


def _row(path: str, counts: Counter[str], seconds: float) -> str:
    numbers = ", ".join(f"{counts[name]:4} {name}" for name in (CAUGHT, TIMEOUT, SURVIVED, BROKEN))
    return f"{path:42} {numbers} {_share(counts):6.1%} {seconds:5.0f} s"


if __name__ == "__main__":
    main()
