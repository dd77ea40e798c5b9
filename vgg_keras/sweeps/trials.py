"""The runs of a sweep: each trained once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgg_keras.callbacks.checkpoint import read_progress
from vgg_keras.callbacks.journal import read_journal
from vgg_keras.errors import SweepError
from vgg_keras.pipelines.files import locked
from vgg_keras.recipes import Recipe
from vgg_keras.sweeps.process import train_in_a_process
from vgg_keras.sweeps.space import Point, Sweep

RUNS = "runs"
TUNER, JOURNAL = "tuner", "journal.jsonl"  # of Keras Tuner; of a run
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """A trial of Hyperband: some more epochs for a net that did well in fewer.

    Attributes:
        trial: its id, which its run folder is named by.
        epochs: to train now.
        previous: id of the trial whose net it goes on from; None for the first rung.
    """

    trial: str
    epochs: int
    previous: str | None = None


def run_path(folder: Path, point: Point, rung: str | None = None) -> Path:
    """Run folder of a point, or of the trial of Hyperband that has this id."""
    return folder / RUNS / (point.name if rung is None else f"{point.name}-trial{rung}")


def run_point(
    sweep: Sweep, folder: Path, point: Point, rung: Rung | None = None, **options: Any
) -> Path:
    """Trains a point's net in the sweep's folder, or finds it trained.

    A deeper net starts from net A of the same scale and width (§3.1), which is trained first
    where it is not there; A's own trial then finds it.

    Args:
        sweep: what the point is of.
        folder: the sweep's; workers on other machines share it.
        point: values of the trial.
        rung: of Hyperband; by default the whole budget of epochs.
        options: see `vgg_keras.train`.

    Returns:
        The run folder.

    Raises:
        SweepError: training failed; the message says how.
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
    """Trains a run that no other worker is training; waits for it if one is.

    Raises:
        SweepError: training failed.
    """
    with locked(path.parent / f".{path.name}.lock"):
        done = read_progress(path)
        if not done.finished and done.epochs < recipe.epochs:
            log.info("training %s", path.name)
            problem = train_in_a_process(recipe, path, options)
            if problem:
                raise SweepError(f"{path.name} could not be trained: {problem}")
    return path


def score(path: Path, objective: str) -> dict[str, float]:
    """What a run came to, at the epoch whose weights were kept.

    Returns:
        `error`, the objective in percent; `top1_error`, `top5_error`, percent; `epochs` and
        `seconds` of all epochs.
    """
    entries = read_journal(path / JOURNAL)
    best = min(entries, key=lambda entry: entry["val_top1_error"])
    errors = {name: best[f"val_{name}"] for name in ("top1_error", "top5_error")}
    return {
        "error": errors[f"{objective}_error"],
        **errors,
        "epochs": len(entries),
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
    }
