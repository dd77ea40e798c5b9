"""What predictions tell of classes and pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vgg_keras.evaluation.predictions import Predictions


class Confusion(NamedTuple):
    """How often pictures of one class are taken for another."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's pictures, in percent


def confusion_counts(predictions: Predictions) -> np.ndarray:
    """Pictures by true class (rows) and most probable class (columns), int64."""
    classes = len(predictions.class_names)
    found = predictions.posteriors.argmax(1)
    flat = np.bincount(predictions.labels * classes + found, minlength=classes**2)
    return flat.reshape(classes, classes)


def class_errors(counts: np.ndarray) -> np.ndarray:
    """Top-1 error of each class in percent; NaN where it has no pictures.

    Args:
        counts: from `confusion_counts`.
    """
    images = counts.sum(1)
    right = np.divide(np.diag(counts), images, out=np.full(len(counts), np.nan), where=images > 0)
    return 100.0 * (1.0 - right)


def commonest_confusions(counts: np.ndarray, class_names, most: int = 10) -> list[Confusion]:
    """The pairs of classes that are confused most often, most first."""
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
    """Rows that are right, or wrong, by the posterior of the predicted class, greatest first."""
    best = predictions.posteriors.max(1)
    rows = np.flatnonzero((predictions.posteriors.argmax(1) == predictions.labels) == right)
    return rows[np.argsort(-best[rows], kind="stable")][:most].tolist()
