"""Classes and images of the best result on the report page, and the net's score maps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import ArgumentError, PredictionsError, RunError, UserError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import paper_scales
from vgg_keras.ilsvrc import short_label
from vgg_keras.metadata import members
from vgg_keras.net_files import READ_WITH
from vgg_keras.report import analysis, figures
from vgg_keras.report.images import read_images_of
from vgg_keras.report.maps import score_map_figure
from vgg_keras.report.results import PREDICTIONS_KEY, Result, prediction_file, summary
from vgg_keras.trained import TrainedNet

_CLASSES_IN_MATRIX = 40
_MISTAKES = 18
_PIXELS_PER_INCH = 96  # of CSS


def best_section(
    classified: Sequence[Result], data_dir: str | os.PathLike | None, examples: int
) -> dict[str, Any] | None:
    """Classes and images of the best result with stored predictions; None if there is none."""
    result = next((r for r in classified if PREDICTIONS_KEY in r), None)
    if result is None:
        return None
    try:
        predictions = Predictions.load(prediction_file(result))
    except PredictionsError as error:
        return {"name": result["file"], "problem": str(error)}
    names = tuple(map(short_label, predictions.class_names))
    predictions = dataclasses.replace(predictions, class_names=names)
    counts = analysis.confusion_counts(predictions)
    present = np.flatnonzero(counts.sum(1) + counts.sum(0))
    matrix = None
    if len(present) <= _CLASSES_IN_MATRIX:
        figure = figures.confusion_matrix(
            counts[np.ix_(present, present)], [names[k] for k in present]
        )
        matrix = {"wide": figures.figure_uri(figure), "narrow": None}
    best: dict[str, Any] = {
        "name": prediction_file(result).stem,
        "summary": summary(result),
        "problem": None,
        "classes": int((counts.sum(1) > 0).sum()),
        "guessing": 100 * (1 - 1 / len(names)),  # top-1 error, one of the net's classes at random
        "class_errors": {
            name: figures.figure_uri(
                figures.class_error_bars(analysis.class_errors(counts), names, width=width)
            )
            for name, width in (("wide", 7.5), ("narrow", 4.6))
        },
        "confusions": analysis.most_frequent_confusions(counts, names),
        "matrix": matrix,
    }
    return best | _examples(result, predictions, data_dir, examples)


def _examples(
    result: Result,
    predictions: Predictions,
    data_dir: str | os.PathLike | None,
    examples: int,
) -> dict[str, Any]:
    """Mistakes as thumbnails and examples with score maps, or the reason why there are none."""
    wrong = analysis.most_confident(predictions, right=False, most=_MISTAKES)
    right = analysis.most_confident(predictions, right=True, most=examples - examples // 2)
    rows = [*right, *wrong[: examples - len(right)]]
    names = [predictions.names[i] for i in dict.fromkeys((*wrong, *rows))]
    try:
        images = read_images_of(result, names, data_dir)
    except UserError as error:
        return {"images_problem": f"The images are not available: {error}"}
    mistakes = [
        _caption(predictions, i) | {"image": figures.thumbnail_uri(images[predictions.names[i]])}
        for i in wrong
    ]
    shown: dict[str, Any] = {
        "images_problem": None,
        "mistakes": mistakes,
        "maps_problem": None,
        "maps": [],
    }
    if not rows:
        return shown
    try:
        net = _first_net(result)
    except UserError as error:
        return shown | {"maps_problem": f"Score maps need the net, which cannot be loaded: {error}"}
    if len(net.class_names) != len(predictions.class_names):
        problem = f"Score maps need the net, but {net.name} is a net of other classes now."
        return shown | {"maps_problem": problem}
    scales = _scales(net, members(result)[0])
    maps = [
        _caption(predictions, i) | _score_map(net, scales, predictions, i, images) for i in rows
    ]
    return shown | {
        "maps": maps,
        "maps_of": f"net {net.architecture.net}, {Path(net.name).name}",
    }


def _caption(predictions: Predictions, row: int) -> dict[str, Any]:
    posteriors = predictions.posteriors[row]
    best = int(posteriors.argmax())
    return {
        "name": predictions.names[row],
        "true": predictions.class_names[predictions.labels[row]],
        "predicted": predictions.class_names[best],
        "posterior": 100 * float(posteriors[best]),
        "right": best == predictions.labels[row],
    }


def _first_net(result: Result) -> TrainedNet:
    """The first net of a result, in the precision and with the pooling that it was tested with.

    Raises:
        UserError: the net cannot be loaded any more, or was not loaded from files.
    """
    tested = members(result)[0]
    options = {
        "precision": tested.get("precision"),
        "pool_rounding": tested.get("pool_rounding", "down"),
    }
    if "weights" in tested:
        return TrainedNet.load(
            tested["weights"],
            **{name: tested.get(name) for name in READ_WITH},
            mean=tested.get("source_mean"),
            train_scale=tested.get("train_scale"),
            **options,
        )
    if "run" not in tested:
        raise RunError("The result names no run, saved net or weights file.")
    if not Path(tested["run"]).is_dir():
        raise RunError(f"There is no folder {tested['run']}.")
    return TrainedNet.load(tested["run"], **options)


def _scales(net: TrainedNet, tested: Result) -> list[int]:
    """The scales that the net was tested at, and the paper's multiple scales for it."""
    scales = set(tested.get("test_scales", ()))
    with contextlib.suppress(ArgumentError):  # S is unknown, or S - 32 is below the crop size
        scales |= set(paper_scales(net, multi_scale=True))
    return sorted(scales)


def _score_map(
    net: TrainedNet,
    scales: Sequence[int],
    predictions: Predictions,
    row: int,
    images: dict[str, np.ndarray],
) -> dict[str, Any]:
    """The score map of the predicted class of an image at some scales, and its width in pixels."""
    label = int(predictions.posteriors[row].argmax())
    text = f"score of {predictions.class_names[label]}"
    figure = score_map_figure(net, images[predictions.names[row]], scales, label, text)
    width = round(_PIXELS_PER_INCH * figure.get_figwidth())
    return {"image": figures.themed_uri(figure), "width": width}
