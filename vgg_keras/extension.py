"""A run that goes on with another number of epochs, or other settings of the plateau.

It goes on only if it then ends with the bits of a run that had the new settings from its first
epoch. The journal tells: the decisions about the learning rate are made again with both settings,
and must be the same ones before the last epoch. What they decide after it has had no effect yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgg_keras.callbacks import PlateauDecay, read_journal
from vgg_keras.errors import RunError
from vgg_keras.recipes import Recipe
from vgg_keras.run_files import JOURNAL


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
        RunError: a run that had the new recipe from its first epoch would have other weights.
    """
    if recipe.epochs < epochs:
        _refuse(path, former, recipe, f"{epochs} epochs are trained already")
    first = recipe.stages[-1].first_epoch
    if first != former.stages[-1].first_epoch:
        reason = f"the layers would have been unfrozen after epoch {recipe.fc_epochs}"
        _refuse(path, former, recipe, reason)
    if not former.differences(recipe, without=("epochs",)):
        return None
    scores = _scores(path, recipe, epochs)
    before, after = make_plateau(former), make_plateau(recipe)
    were, are = before.replay(scores), after.replay(scores)
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
    has_rate = epochs > first and (were != are or recipe.plateau_factor != former.plateau_factor)
    rate = _rate(recipe, drops) if has_rate else None
    return Extension(after.wait, after.drops_done, rate, are[-1:] == ["end"])


def _scores(path: Path, recipe: Recipe, epochs: int) -> list[float]:
    """The scores that the learning rate depends on, one for each finished epoch."""
    key = "val_localisation_error" if recipe.regression_kind else "val_top1_error"
    found = {entry["epoch"]: entry.get(key) for entry in read_journal(path / JOURNAL)}
    errors = [found.get(epoch) for epoch in range(1, epochs + 1)]
    scores = [-error for error in errors if error is not None]
    if len(scores) < epochs:
        raise RunError(
            f"{path / JOURNAL} must have {key} of all {epochs} finished epochs, from which follows "
            f"how the run goes on with other settings of the plateau. Received: "
            f"{json.dumps(errors)}"
        )
    return scores


def _rate(recipe: Recipe, drops: int) -> float:
    """The learning rate after drops, each rounded as the optimizer's variable rounds it."""
    rate = np.float32(recipe.stages[-1].recipe.learning_rate)
    for _ in range(drops):
        rate = np.float32(float(rate) / recipe.plateau_factor)
    return float(rate)


def _refuse(path: Path, former: Recipe, recipe: Recipe, reason: str) -> None:
    raise RunError(
        f"{path} cannot go on with {'; '.join(former.differences(recipe))}: {reason}. A run with "
        f"the new settings would have other weights. Give another folder."
    )
