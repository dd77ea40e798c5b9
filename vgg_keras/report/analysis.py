"""Statistics of predictions: errors per class, confusions, the most confident predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vgg_keras.evaluation.predictions import Predictions


class Confusion(NamedTuple):
    """How often images of one class are predicted as another class.

    Attributes:
        true: name of the true class.
        predicted: name of the predicted class.
        images: number of images.
        share: percentage of the images of the true class.
    """

    true: str
    predicted: str
    images: int
    share: float


def confusion_counts(predictions: Predictions) -> np.ndarray:
    """Number of images by true class (rows) and predicted class (columns).

    Returns:
        int64 `(classes, classes)`. The predicted class is the most probable one.

    Example:
        counts = confusion_counts(Predictions.load("results/d.parquet"))
        errors = class_errors(counts)
    """
    classes = len(predictions.class_names)
    predicted = predictions.posteriors.argmax(1)
    flat = np.bincount(predictions.labels * classes + predicted, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_errors(counts: np.ndarray) -> np.ndarray:
    """Top-1 error of each class in percent, `(classes,)`; NaN for a class without images.

    Args:
        counts: from `confusion_counts`.
    """
    images = counts.sum(1)
    right = np.divide(np.diag(counts), images, out=np.full(len(counts), np.nan), where=images > 0)
    return 100.0 * (1.0 - right)


def most_frequent_confusions(
    counts: np.ndarray, class_names: Sequence[str], most: int = 10
) -> list[Confusion]:
    """The pairs of classes that are confused most often, the most frequent first.

    Args:
        counts: from `confusion_counts`.
        class_names: names of all classes.
        most: maximum number of pairs.
    """
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(k, wrong.shape) for k in order]
    images = counts.sum(1)
    return [
        Confusion(class_names[i], class_names[j], int(wrong[i, j]), 100 * wrong[i, j] / images[i])
        for i, j in pairs
        if wrong[i, j]
    ]


def most_confident(predictions: Predictions, right: bool, most: int) -> list[int]:
    """Indices of the right or the wrong predictions with the greatest posteriors.

    Args:
        predictions: predictions to choose from.
        right: whether to choose right predictions, else wrong ones.
        most: maximum number of predictions.

    Returns:
        Indices in the order of the posterior of the predicted class, the greatest first.
    """
    best = predictions.posteriors.max(1)
    rows = np.flatnonzero((predictions.posteriors.argmax(1) == predictions.labels) == right)
    return rows[np.argsort(-best[rows], kind="stable")][:most].tolist()
