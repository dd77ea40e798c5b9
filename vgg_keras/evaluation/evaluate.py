"""Scores runs on a split by a protocol of the paper."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vgg_keras.evaluation.passes import PassRunner
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.protocols import Pass, paper_scales, passes_of
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.evaluation import check_test_scale
from vgg_keras.pipelines.splits import VALIDATION, Source, Split
from vgg_keras.recipes import LocalisationRecipe, Recipe
from vgg_keras.runs import Run

log = logging.getLogger(__name__)


def evaluate(
    run: Run,
    source: Source,
    split: str = VALIDATION,
    *,
    protocol: str = "dense",
    test_scales: Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
) -> Predictions:
    """Posteriors of a run for every picture of a split (§3.2).

    Args:
        run: from `load_run`.
        source: data whose classes the run knows; some of them are enough.
        split: name of the split.
        protocol: "centre", "dense", "multi-crop" or "multi-crop+dense".
        test_scales: Q. By default what the paper pairs with the scale of training.
        multi_scale: that default is the several scales of §4.2, not the one of §4.1.
        flip: average with mirror images; by default for all but "centre".
        map_average: "scores", or "posteriors" for soft-max at each place of the map.
        batch_size, on_bad_image, cache_dir: see `PassRunner`.

    Returns:
        `Predictions`, whose `result()` gives the errors in percent; with "skip", of the
        pictures that can be read, and `about["skipped"]` names the others.

    Raises:
        SourceError: the data have a class that the run does not know or a picture without one, or
            no picture is readable.
        BadImageError, ValueError, MemoryError, OSError: see `PassRunner.posteriors`.
    """
    pictures = source[split]
    labels = labels_of_the_run(run, source, split)
    passes = plan(run.recipe, protocol, test_scales, multi_scale, flip, map_average)
    places, posteriors, skipped = score(
        run, pictures, passes, batch_size=batch_size, on_bad_image=on_bad_image, cache_dir=cache_dir
    )
    if not len(places):
        raise SourceError(f"None of the {len(pictures)} pictures of {source.spec} can be read.")
    metadata = conditions(run, passes, protocol, map_average, skipped)
    metadata |= {"data": source.spec, "split": split}
    ids = pictures.ids_of(places)
    return Predictions(ids, labels[places], posteriors, run.class_names, metadata)


def score(
    run: Run, pictures: Split, passes: Sequence[Pass], *, on_bad_image: str = "stop", **options: Any
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What a run says of pictures, and of which: the others are named and logged.

    Args:
        run: from `load_run`.
        pictures: labels are not looked at.
        passes: from `plan`.
        on_bad_image, options: see `PassRunner`.

    Returns:
        Places in `pictures` of the M that could be read, int64 `(M,)`; their posteriors, float32
        `(M, classes)`; names of the others, of which there are none but with "skip".

    Raises:
        BadImageError, ValueError, MemoryError, OSError: see `PassRunner.posteriors`.
    """
    runner = PassRunner(
        run.model,
        pictures,
        crop_size=run.recipe.crop_size,
        mean=run.statistics.mean,
        on_bad_image=on_bad_image,
        **options,
    )
    posteriors = runner.posteriors(passes)
    read = np.ones(len(pictures), bool)
    if on_bad_image == "skip":
        read = ~np.isnan(posteriors).any(1)
    skipped = pictures.names_of(np.flatnonzero(~read))
    for name in skipped:
        log.warning("skipped, cannot be read: %s", name)
    return np.flatnonzero(read), posteriors[read], skipped


def conditions(
    run: Run, passes: Sequence[Pass], protocol: str, map_average: str, skipped: Sequence[str]
) -> dict[str, Any]:
    """Which net looked at pictures, how, and what it could not see; can be written as JSON."""
    return {
        "run": str(run.path),
        "net": run.recipe.net,
        "train_scale": list(run.recipe.train_scale),
        "crop_size": run.recipe.crop_size,
        "width": run.recipe.width,
        "protocol": protocol,
        "test_scales": sorted({one.test_scale for one in passes}),
        "flip": passes[0].flip,
        "map_average": map_average,
        "pool_rounding": run.pool_rounding,
        "precision": run.recipe.precision,
        **({"skipped": list(skipped)} if skipped else {}),
    }


def plan(
    recipe: Recipe,
    protocol: str = "dense",
    test_scales: Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
) -> list[Pass]:
    """The passes that `evaluate` makes with a net of this recipe.

    Raises:
        ValueError: unknown names, scales given twice over, a scale below the crop size, or a
            recipe of a localisation net, which has no posteriors.
    """
    if isinstance(recipe, LocalisationRecipe):
        raise ValueError(
            "A run of a localisation net gives boxes and no classes: score it with `vgg-keras "
            "localise evaluate`."
        )
    if test_scales and multi_scale:
        raise ValueError("Give test_scales or multi_scale, not both.")
    scales = tuple(test_scales or ()) or paper_scales(recipe, multi_scale)
    for scale in scales:
        check_test_scale(scale, recipe.crop_size)
    return passes_of(protocol, scales, flip, map_average)


def labels_of_the_run(run: Run, source: Source, split: str) -> np.ndarray:
    """Labels of the pictures as indices into the run's classes, matched by name."""
    places = {name: i for i, name in enumerate(run.class_names)}
    unknown = [name for name in source.class_names if name not in places]
    if unknown:
        raise SourceError(
            f"{source.spec} has other classes than {run.path} was trained on: {len(unknown)} of "
            f"its {len(source.class_names)} are not among the net's {len(places)}, "
            f"{unknown[0]} first. The net's: {', '.join(run.class_names[:3])}, ..."
        )
    labels = source[split].all_labels()
    outside = np.flatnonzero((labels < 0) | (labels >= len(source.class_names)))
    if len(outside):
        raise SourceError(
            f"The split {split!r} of {source.spec} has a picture without a class, as test sets "
            f"have: {source[split].names_of(outside[:1])[0]}, label {labels[outside[0]]}."
        )
    return np.array([places[name] for name in source.class_names], np.int64)[labels]
