"""A run that goes on with another number of epochs, or other settings of the plateau.

It goes on only if it then ends with the bits of a run that had the new settings from its first
epoch. The decisions about the learning rate are made again from the journal, with both settings.
Those of the former settings must agree with the run. Before the last epoch both must decide the
same. A decision after the last epoch has had no effect yet.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.callbacks import PlateauDecay, read_journal
from vgg_keras.callbacks.checkpoint import read_callback_states
from vgg_keras.errors import RunError
from vgg_keras.recipes import Recipe, Stage
from vgg_keras.run_files import JOURNAL

PLATEAU = "plateau"  # name of the callback in a checkpoint


@dataclass(frozen=True)
class Extension:
    """The state after the last epoch of a run, as the new settings give it.

    Attributes:
        wait, drops_done: see `PlateauDecay`.
        learning_rate: learning rate of the next epoch; None if it is the one that was saved.
        finished: whether the training has ended on its last plateau.
    """

    wait: int
    drops_done: int
    learning_rate: float | None
    finished: bool


def make_plateau(recipe: Recipe, monitor: str = "val_accuracy") -> PlateauDecay:
    """The callback that lowers the learning rate of a recipe."""
    return PlateauDecay(
        monitor,
        patience=recipe.plateau_patience,
        factor=recipe.plateau_factor,
        drops=recipe.plateau_drops,
        start_from_epoch=recipe.stages[-1].first_epoch,
    )


def extend(path: Path, former: Recipe, recipe: Recipe, epochs: int) -> Extension | None:
    """The state from which a run goes on with another recipe; None if it is the one that was saved.

    Args:
        path: run folder.
        former: recipe of the run.
        recipe: differs from it in the fields `recipes.EXTENSIBLE` only.
        epochs: number of finished epochs.

    Raises:
        RunError: a run that had the new recipe from its first epoch would have other weights, or
            the journal does not explain the learning rate of the run.
        CheckpointError, JournalError: a file is damaged.
    """
    if recipe.epochs < epochs:
        _refuse(path, former, recipe, f"{epochs} epochs are trained already")
    starts = {one.stages[-1].first_epoch for one in (former, recipe)}  # of the plateau
    if len(starts) == 1 and not former.differences(recipe, without=("epochs",)):
        return None
    entries = _entries(path, recipe, epochs)
    scores = [-entry[_score_key(recipe)] for entry in entries]
    before, after = make_plateau(former), make_plateau(recipe)
    were, are = before.replay(scores), after.replay(scores)
    if not _is_explained(path, before, after) or not all(
        _has_rate(entry, former, were) for entry in entries
    ):
        reason = "its learning rate does not follow from the errors in its journal"
        _refuse(path, former, recipe, reason)
    for epoch, (was, now) in enumerate(zip(were[:-1], are[:-1], strict=True), 1):
        if was != now:
            what = {None: "the learning rate is kept", "drop": "the learning rate drops"}
            what["end"] = "training ends"
            reason = f"after epoch {epoch} {what[was]}, and with the new settings {what[now]}"
            _refuse(path, former, recipe, reason)
    drops = are.count("drop")
    if "drop" in are[:-1] and recipe.plateau_factor != former.plateau_factor:
        epoch = are.index("drop") + 1
        reason = f"the learning rate was divided by {former.plateau_factor:g} after epoch {epoch}"
        _refuse(path, former, recipe, reason)
    stage = _stage(recipe, epochs + 1)
    is_new = were != are or recipe.plateau_factor != former.plateau_factor
    rate = _rate(recipe, stage, drops) if is_new and epochs > stage.first_epoch else None
    return Extension(after.wait, after.drops_done, rate, are[-1:] == ["end"])


def _score_key(recipe: Recipe) -> str:
    """The error in the journal that the learning rate depends on."""
    return "val_localisation_error" if recipe.regression_kind else "val_top1_error"


def _entries(path: Path, recipe: Recipe, epochs: int) -> list[dict[str, Any]]:
    """The entries of the journal, one for each finished epoch."""
    key = _score_key(recipe)
    found = {entry["epoch"]: entry for entry in read_journal(path / JOURNAL)}
    entries = [found.get(epoch, {}) for epoch in range(1, epochs + 1)]
    errors = [entry.get(key) for entry in entries]
    if None in errors:
        raise RunError(
            f"{path / JOURNAL} must have {key} of all {epochs} finished epochs, from which follows "
            f"how the run goes on with other settings of the plateau. Received: "
            f"{json.dumps(errors)}"
        )
    return entries


def _is_explained(path: Path, *replayed: PlateauDecay) -> bool:
    """Whether the training counted as a replay does; it knew more digits than the journal has.

    A call that was killed may have saved the state of the new recipe, and not yet the recipe.
    """
    saved = read_callback_states(path)[PLATEAU]
    return any(
        (saved["wait"], saved["drops_done"]) == (one.wait, one.drops_done) for one in replayed
    )


def _has_rate(entry: dict[str, Any], recipe: Recipe, decisions: list[str | None]) -> bool:
    """Whether an epoch had the learning rate that follows from the decisions before it."""
    epoch, rate = entry["epoch"], entry.get("learning_rate")
    expected = _rate(recipe, _stage(recipe, epoch), decisions[: epoch - 1].count("drop"))
    return rate is None or math.isclose(rate, expected, rel_tol=1e-5)


def _stage(recipe: Recipe, epoch: int) -> Stage:
    """The stage of an epoch, which is counted from 1; the last one beyond its end."""
    return next((one for one in recipe.stages if epoch <= one.end), recipe.stages[-1])


def _rate(recipe: Recipe, stage: Stage, drops: int) -> float:
    """The learning rate after drops, each rounded as the optimizer's variable rounds it."""
    rate = np.float32(stage.recipe.learning_rate)
    for _ in range(drops):
        rate = np.float32(float(rate) / recipe.plateau_factor)
    return float(rate)


def _refuse(path: Path, former: Recipe, recipe: Recipe, reason: str) -> None:
    raise RunError(
        f"{path} cannot go on with {'; '.join(former.differences(recipe))}: {reason}. A run with "
        f"the new settings would have other weights. Give another folder."
    )
