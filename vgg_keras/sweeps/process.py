"""Training in a process of its own, which gives its memory back when it ends; in one process memory
grows from trial to trial (keras-tuner#395, #873).

Nothing here imports TensorFlow before that process has made it quiet.
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


def train_in_a_process(recipe: Recipe, path: Path, options: dict[str, Any]) -> str:
    """Trains a run in a process that ends with this one; returns what went wrong, or nothing."""
    # Forked from a server that has imported TensorFlow, which takes seconds, and not run it: what
    # runs does not survive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vgg_keras.sweeps.preloaded"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(recipe.to_json(), path, options, there))
    process.start()
    there.close()
    try:
        problem = here.recv()
    except EOFError:
        process.join()
        problem = f"its process ended with code {process.exitcode}"
    finally:
        process.join()
    return problem


def _train(recipe: str, path: Path, options: dict[str, Any], to_parent: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for name in ("vgg_keras",):
        logging.getLogger(name).setLevel(logging.INFO)
    with quiet_tensorflow(verbose=False):
        from vgg_keras.training import train

    try:
        train(Recipe.from_json(recipe), path, **options)
    except Exception as error:
        to_parent.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    to_parent.send("")


def _die_with_parent() -> None:
    """A trial must not go on by itself when its sweep is killed: the next one would meet it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
