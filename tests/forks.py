"""The command line in processes of its own, forked where TensorFlow has been imported and has not
begun to run: importing it takes longer than most tests."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["vgg_keras.training", "vgg_keras.evaluation.evaluate"])


def start(
    *arguments, into: Path | None = None, first: Callable[[], None] | None = None
) -> multiprocessing.process.BaseProcess:
    """A process at work on a command; `into` is a folder for what it says, `first` is called in
    the process before."""
    given = [str(argument) for argument in arguments]
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
