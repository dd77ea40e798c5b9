"""The data of a run: readable images, targets and colour statistics."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from vgg_keras import runs
from vgg_keras.errors import ArgumentError, RunError, SourceError
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.screening import check_labels, find_bad_images
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.pipelines.statistics import ILSVRC, Statistics, compute_statistics
from vgg_keras.recipes import Recipe
from vgg_keras.run_data import (
    changed_images,
    describe_images,
    load_statistics,
    record_data,
)
from vgg_keras.run_files import BAD_IMAGES, DATA, STATISTICS
from vgg_keras.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The images to train and validate on, with their targets and the colour statistics."""

    training: Split
    training_targets: dict[str, Any]
    validation: Split
    validation_targets: dict[str, Any]
    statistics: Statistics


def prepare_data(
    source: Source,
    splits: list[Split],
    recipe: Recipe,
    out: Path,
    task: Task,
    is_writer: bool,
) -> TrainingData:
    """Claims the folder, screens images and labels, and computes statistics that are not given."""
    runs.prepare_run_folder(out, recipe)
    runs.record_classes(out, source.class_names)
    images = describe_images(splits) if is_writer else {}
    changes = changed_images(out, images)
    if changes:
        _notice(out, changes)
    splits = _usable(splits, source.class_names, recipe, out)
    (training, training_targets), (validation, validation_targets) = (
        task.targets(source, split, recipe) for split in splits
    )
    if is_writer and (changes or not runs.finished_files(out)):  # checked once
        for split in (training, validation):
            check_labels(split, source.class_names, source.spec)
    statistics = given_statistics(recipe, out) or _computed_statistics(training)
    if Path(recipe.statistics).is_file() and Statistics.load(recipe.statistics) != statistics:
        log.warning("%s has changed; %s keeps its own statistics", recipe.statistics, out)
    if is_writer:
        statistics.save(out / STATISTICS)
        record_data(out, images, statistics)
    return TrainingData(training, training_targets, validation, validation_targets, statistics)


def _notice(out: Path, changes: str) -> None:
    """Says that the images of a run have changed, and forgets what depended on them.

    The statistics of a run with a finished epoch stay, because its weights belong to them.
    """
    (out / BAD_IMAGES).unlink(missing_ok=True)
    if runs.finished_files(out):
        log.warning(
            "The images are not those that %s was begun with (%s): the results will differ from "
            "those of a run that was not interrupted. Give another folder to train on these "
            "images only.",
            out,
            changes,
        )
        return
    log.info("%s: the images have changed since the run was begun (%s)", out, changes)
    for name in (STATISTICS, DATA):  # a kill in between leaves the record of the old images
        (out / name).unlink(missing_ok=True)


def _usable(
    splits: list[Split], class_names: Sequence[str], recipe: Recipe, out: Path
) -> list[Split]:
    """The splits, without unreadable images if the recipe says so."""
    if recipe.on_bad_image == "stop":
        return splits
    file = out / BAD_IMAGES
    if not file.exists():
        log.info("reading every image once to find those that cannot be read")
        bad = {split.name: find_bad_images(split) for split in splits}
        atomic_write(file, json.dumps(bad, indent=2) + "\n")
    bad = read_json(file, dict[str, list[str]], RunError)
    if missing := {split.name for split in splits} - bad.keys():
        raise RunError(
            f"{file} names no images of the splits {', '.join(sorted(missing))}. Remove it, and "
            f"the images are read again."
        )
    for split in splits:
        log.info("%s: %d of %d images skipped", split.name, len(bad[split.name]), len(split))
        for name in bad[split.name]:
            log.warning("skipped, cannot be read: %s", name)
    usable = [split.without(bad[split.name]) for split in splits]
    for split in usable:
        if bad[split.name]:
            _check_classes(split, class_names)
    return usable


def _check_classes(split: Split, class_names: Sequence[str]) -> None:
    """Raises SourceError if a class has lost all of its images."""
    empty = set(range(len(class_names))) - set(split.all_labels().tolist())
    if empty:
        names = ", ".join(class_names[i] for i in sorted(empty))
        raise SourceError(
            f"The {split.name!r} split has no readable image of these classes: {names}."
        )


def given_statistics(recipe: Recipe, out: Path) -> Statistics | None:
    """Those of the run, of ILSVRC or of a file; None if they must be computed.

    Raises:
        ArgumentError: the recipe names no statistics.
        RunError: the statistics of the run have been changed.
        SourceError: a file has other contents.
    """
    if (out / STATISTICS).exists() and runs.is_run_of(out, recipe):
        return load_statistics(out)
    if recipe.statistics == "ilsvrc":
        return ILSVRC
    if recipe.statistics == "training-set":
        return None
    if not Path(recipe.statistics).is_file():
        raise ArgumentError(
            "statistics must be ilsvrc, training-set or the name of a JSON file that "
            f"Statistics.save wrote. Received: {recipe.statistics!r}",
            "statistics",
        )
    return Statistics.load(recipe.statistics)


# All trainings on one split object share them: a split that is no longer used is freed.
_COMPUTED: WeakKeyDictionary[Split, Statistics] = WeakKeyDictionary()


def _computed_statistics(training: Split) -> Statistics:
    if training not in _COMPUTED:
        log.info("computing mean and colour components of %d training images", len(training))
        _COMPUTED[training] = compute_statistics(training)
    return _COMPUTED[training]
