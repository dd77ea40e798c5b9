"""Trains a run in a process of its own, which returns its memory to the system when it ends.

In a single process, memory grows from trial to trial (keras-tuner#395, #873). Nothing here imports
TensorFlow before the new process has silenced its log.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vgg_keras.quiet import quiet_tensorflow
from vgg_keras.recipes import Recipe


def train_in_process(recipe: Recipe, path: Path, options: dict[str, Any]) -> str:
    """Trains a run in a new process, which also ends when this process ends.

    Args:
        recipe, path: see `vgg_keras.train`.
        options: further arguments of `vgg_keras.train`.

    Returns:
        The error message if training failed, else an empty string.
    """
    # The process is forked from a server that has imported TensorFlow, which takes seconds, but
    # has not run it: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vgg_keras.sweeps.preloaded"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(recipe.to_json(), path, options, sender))
    process.start()
    sender.close()
    try:
        problem = receiver.recv()
    except EOFError:
        process.join()
        problem = f"its process ended with exit code {process.exitcode}"
    finally:
        process.join()
    return problem


def _train(recipe: str, path: Path, options: dict[str, Any], to_parent: Connection) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("vgg_keras").setLevel(logging.INFO)
    with quiet_tensorflow(verbose=False):
        from vgg_keras.training import train

    try:
        train(Recipe.from_json(recipe), path, **options)
    except Exception as error:
        to_parent.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    to_parent.send("")


def _exit_with_parent() -> None:
    """Ends this process with its parent. Else a restarted sweep would meet a running trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
