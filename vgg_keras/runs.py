"""The folder of a run while it is trained: claimed by one recipe, locked by one process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgg_keras import provenance
from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.errors import CheckpointError
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.errors import RunError
from vgg_keras.extension import extend
from vgg_keras.net_files import read_class_names, read_recipe
from vgg_keras.pipelines.checks import are_same_names
from vgg_keras.pipelines.files import atomic_write, locked
from vgg_keras.recipe_differences import explain_refusal
from vgg_keras.recipes import EXTENSIBLE, Recipe
from vgg_keras.run_files import (
    BAD_IMAGES,
    BEST_WEIGHTS,
    CLASSES,
    DATA,
    ENVIRONMENT,
    JOURNAL,
    LAST_WEIGHTS,
    LOCK,
    RECIPE,
    STATISTICS,
)

_OF_ONE_RECIPE = (ENVIRONMENT, STATISTICS, CLASSES, BAD_IMAGES, DATA, JOURNAL, LAST_WEIGHTS)

log = logging.getLogger(__name__)


def check_run_folder(path: Path, recipe: Recipe) -> Path:
    """Checks that a folder is free for a run of `recipe`, or holds one, and returns its path.

    Raises:
        RunError: the folder holds something else, a run of another recipe, or one whose last
            weights are missing; or see `vgg_keras.extension.extend`.
    """
    _check_contents(path)
    _check_recipe(path, recipe)
    return path


def _check_contents(path: Path) -> None:
    """Refuses a folder that holds something other than a run."""
    visible = [p for p in path.iterdir() if not p.name.startswith(".")] if path.is_dir() else []
    if visible and not (path / RECIPE).exists():
        raise RunError(f"{path} is not empty and holds no run. Give another folder.")


def _check_recipe(path: Path, recipe: Recipe) -> None:
    """Refuses a folder with finished epochs of another recipe, see `check_run_folder`."""
    finished = finished_files(path)
    if not finished:
        return
    former = read_recipe(path / RECIPE) if (path / RECIPE).exists() else recipe
    if former.differences(recipe, without=EXTENSIBLE):
        raise RunError(
            f"{path} holds a run of another recipe {explain_refusal(former, recipe)} to continue "
            f"this run, or another folder."
        )
    if not (path / LAST_WEIGHTS).exists():
        raise RunError(
            f"{path} holds {' and '.join(finished)} of a trained net, but not {LAST_WEIGHTS}, from "
            f"which its training would continue. Give another folder to train again, or remove "
            f"these files if they are no longer needed."
        )
    if former != recipe:
        extend(path, former, recipe, read_progress(path).epochs)


def prepare_run_folder(path: Path, recipe: Recipe) -> None:
    """Makes the folder for a run of `recipe`, or checks that it is one.

    A run of another recipe in which no epoch has ended has nothing to lose and is replaced. One
    with finished epochs keeps its recipe here if it goes on with other values of `EXTENSIBLE`. Call
    it within `lock_run`.

    Raises:
        RunError: see `check_run_folder`; or the folder cannot be written.
    """
    _check_recipe(path, recipe)
    file = path / RECIPE
    former = read_recipe(file) if file.exists() else recipe
    finished = finished_files(path)
    if not finished and former.differences(recipe, without=EXTENSIBLE):
        log.info("%s: the run of another recipe, with no finished epoch, is replaced", path)
        for name in _OF_ONE_RECIPE:
            (path / name).unlink(missing_ok=True)
    try:
        if not file.exists() or (former != recipe and not finished):
            atomic_write(file, recipe.to_json())
        provenance.record_environment(path)
    except OSError as error:
        raise RunError(str(error)) from error


def finished_files(path: Path) -> list[str]:
    """Names of the files of a run folder that hold results of a finished epoch.

    An epoch that diverged, which has null in the journal, is no result.
    """
    finished = {
        BEST_WEIGHTS: (path / BEST_WEIGHTS).exists(),
        JOURNAL: not all(map(diverged, read_journal(path / JOURNAL))),
        LAST_WEIGHTS: _has_finished_epoch(path),
    }
    return [name for name, is_finished in finished.items() if is_finished]


def diverged(entry: Mapping[str, Any]) -> bool:
    """Whether training diverged in an epoch of a journal, which has null for NaN and infinity.

    As in `callbacks.divergence`, validation decides if its loss was written.
    """
    return entry.get("val_cross_entropy", entry.get("loss", 0.0)) is None


def _has_finished_epoch(path: Path) -> bool:
    """Whether the last weights are those after an epoch, and not those before the first."""
    try:
        return read_progress(path).epochs > 0
    except CheckpointError:
        return True  # a damaged file may be repaired


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Callable[[], None]]:
    """Gives a function that raises an error if a run folder is no longer at its path.

    Without that, the next epoch would be written into a new folder of that name.

    Raises:
        RunError: the folder was renamed or deleted.
    """
    opened = os.open(path, os.O_RDONLY)  # its number is not given to another folder meanwhile

    def check() -> None:
        if not path.exists() or not os.path.samestat(os.fstat(opened), os.stat(path)):
            raise RunError(
                f"{path} was renamed, replaced or deleted while the run was trained, so this epoch "
                f"cannot be saved. Move the folder back and give the same command again to "
                f"continue after the last epoch that was saved."
            )

    try:
        yield check
    finally:
        os.close(opened)


@contextlib.contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Locks a run folder for this process; a killed process releases the lock.

    Raises:
        RunError: another process is training into the folder, or it holds something else.
    """
    _check_contents(path)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(path / LOCK, wait=False))
        except BlockingIOError as error:
            raise RunError(
                f"Another process is training into {path}. Wait for it, or give another folder."
            ) from error
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s); train into it from one place only", path, error)
        yield


def is_run_of(path: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a run of this recipe, apart from the fields `EXTENSIBLE`."""
    file = path / RECIPE
    return file.exists() and not read_recipe(file).differences(recipe, without=EXTENSIBLE)


def record_classes(path: Path, class_names: Sequence[str]) -> None:
    """Writes the class names into the run folder, or checks that they are those recorded there.

    Raises:
        RunError: the run was begun with other classes, or the file holds something else.
    """
    file = path / CLASSES
    if not file.exists():
        atomic_write(file, json.dumps(list(class_names), indent=0) + "\n")
    elif not are_same_names(read_class_names(path), class_names):
        raise RunError(
            f"The classes of the data are not those that {path} was begun with, see {file}. Give "
            f"the data that it was begun with, or another folder."
        )
