"""Which images each result was right on. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.features.recognised import read_recognised
from vgg_keras.metadata import ANSWERS_KEY, RECOGNISED_KEY
from vgg_keras.pipelines.contents import naming_file
from vgg_keras.report.results import PREDICTIONS_KEY, Result, prediction_file

_RANKS = {"top1_error": 1, "top5_error": 5}  # the true class must be among so many


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Which images a result was right on.

    Attributes:
        names: names of the N images, sorted.
        right: whether each image is right, bool `(K, N)`; K is 1, or the number of random splits.
        weights: weight of each image in the measure, float64 `(K, N)`; 0 if a split lacks it.
    """

    names: tuple[str, ...]
    right: np.ndarray
    weights: np.ndarray

    def are_of_same_images(self, other: Outcomes) -> bool:
        """Whether both have the same images, in each split."""
        return self.names == other.names and np.array_equal(self.weights, other.weights)


def read_outcomes(result: Result, measure: str) -> Outcomes:
    """Reads which images a result was right on.

    Args:
        result: from `read_results`.
        measure: key of an error, or of the mean class recall.

    Raises:
        PredictionsError: the result does not say it, or the file of predictions is damaged.
    """
    file = Path(result["file"])
    if RECOGNISED_KEY in result:
        with naming_file(file, PredictionsError, "holds a result with wrong values"):
            names, right, weights = read_recognised(result[RECOGNISED_KEY])
        return _sorted(names, right, weights)
    if ANSWERS_KEY in result:
        images = result[ANSWERS_KEY]
        hits = [any(answer["right"] for answer in image["answers"]) for image in images]
        return _of_images([image["image"] for image in images], np.array(hits, bool))
    if PREDICTIONS_KEY in result:
        predictions = Predictions.load(prediction_file(result))
        return _of_images(predictions.names, predictions.ranks() < _RANKS[measure])
    raise PredictionsError(f"{file} does not say which images are right.")


def _of_images(names: Sequence[str], right: np.ndarray) -> Outcomes:
    return _sorted(names, right[None], np.ones((1, len(names))))


def _sorted(names: Sequence[str], right: np.ndarray, weights: np.ndarray) -> Outcomes:
    order = sorted(range(len(names)), key=names.__getitem__)
    return Outcomes(tuple(names[i] for i in order), right[:, order], weights[:, order])
