"""Runs the command line in separate processes.

They are forked from a process that has imported TensorFlow and has not started it, because the
import takes longer than most tests.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

from tests.conftest import overridden

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["vgg_keras.training", "vgg_keras.evaluation.evaluate"])


def start(
    *arguments, into: Path | None = None, first: Callable[[], None] | None = None
) -> multiprocessing.process.BaseProcess:
    """Starts a process that runs a command.

    `into` is a folder for its output; `first` is called in the process before the command.
    """
    given = overridden(arguments)
    process = _forks.Process(target=_main, args=(given, into, first), daemon=True)
    process.start()
    return process


def _main(arguments: list[str], into: Path | None, first: Callable[[], None] | None) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        path = os.devnull if into is None else into / name
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if first:
        first()
    from vgg_keras.cli import main

    main(arguments)
