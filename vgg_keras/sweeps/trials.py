"""The runs of a sweep, each of which is trained once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.errors import DivergenceError
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.errors import SweepError
from vgg_keras.pipelines.contents import naming_file
from vgg_keras.pipelines.files import locked
from vgg_keras.recipes import Recipe
from vgg_keras.run_files import JOURNAL
from vgg_keras.runs import diverged
from vgg_keras.sweeps.process import train_in_process
from vgg_keras.sweeps.space import RUNS_FOLDER, Point, Sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """A trial of Hyperband: further epochs for a net that did well in fewer epochs.

    Attributes:
        trial: id of the trial, which is part of the name of its run folder.
        epochs: number of epochs to train in this trial.
        previous: id of the trial from whose weights it continues; None for the first rung.
    """

    trial: str
    epochs: int
    previous: str | None = None


def run_path(folder: Path, point: Point, trial: str | None = None) -> Path:
    """Run folder of a point of the sweep.

    Args:
        folder: folder of the sweep.
        point: point of the sweep.
        trial: id of the trial, for Hyperband, which has several trials for a point.
    """
    return folder / RUNS_FOLDER / (point.name if trial is None else f"{point.name}-trial{trial}")


def run_point(
    sweep: Sweep, folder: Path, point: Point, rung: Rung | None = None, **options: Any
) -> Path:
    """Trains the net of a point in the folder of the sweep, unless it is trained already.

    A deeper net starts from net A of the same scale and width (§3.1). If that net is not trained
    yet, it is trained first; the trial of net A itself then finds it.

    Args:
        sweep: sweep that the point belongs to.
        folder: folder of the sweep. Workers on other machines may share it.
        point: net, scale and width to train.
        rung: trial of Hyperband; by default the net is trained for all epochs of the recipe.
        options: further arguments of `vgg_keras.train`.

    Returns:
        The run folder.

    Raises:
        DivergenceError, SweepError: see `train_once`.
    """
    path = run_path(folder, point, rung.trial if rung else None)
    start, layers = None, "warm-start"
    changes: dict[str, Any] = {"epochs": rung.epochs} if rung else {}
    if rung and rung.previous:
        start, layers = run_path(folder, point, rung.previous), "all"
    elif point.shallow:
        start = run_point(sweep, folder, point.shallow, **options)
    if start:
        changes |= {"init_from": str(start), "init_layers": layers}
    return train_once(point.recipe(sweep.recipe, **changes), path, **options)


def train_once(recipe: Recipe, path: Path, **options: Any) -> Path:
    """Trains a run unless it is trained already; waits while another worker trains it.

    Raises:
        DivergenceError: training diverged, now or before.
        SweepError: training failed for another reason, which the message gives.
    """
    with locked(path.parent / f".{path.name}.lock"):
        done, problem = read_progress(path), ""
        if not done.finished and done.epochs < recipe.epochs and not has_diverged(path):
            log.info("training %s", path.name)
            problem = train_in_process(recipe, path, options)
        if has_diverged(path):
            raise DivergenceError(f"{path} diverged, so it and what starts from it are not ranked.")
        if problem:
            raise SweepError(f"{path.name} could not be trained: {problem}")
    return path


def has_diverged(path: Path) -> bool:
    """Whether the training of a run diverged in its last epoch."""
    return any(map(diverged, read_journal(path / JOURNAL)[-1:]))


def score(path: Path, objective: str) -> dict[str, float]:
    """Validation errors of a run, at the epoch whose weights are the run's best.

    Args:
        path: run folder.
        objective: "top5" or "top1".

    Returns:
        `error`, the objective in percent; `top1_error` and `top5_error` in percent; number of
        `epochs`, and their `seconds` in all.

    Raises:
        SweepError: the journal has no validation errors.
    """
    entries = read_journal(path / JOURNAL)
    with naming_file(path / JOURNAL, SweepError, "does not have the validation errors of a trial"):
        best = min(entries, key=lambda entry: entry["val_top1_error"])
        errors = {name: best[f"val_{name}"] for name in ("top1_error", "top5_error")}
        return {
            "error": errors[f"{objective}_error"],
            **errors,
            "epochs": len(entries),
            "seconds": round(sum(entry["seconds"] for entry in entries), 1),
        }
