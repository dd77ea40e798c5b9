"""Average precision by the rules of PASCAL VOC and of scikit-learn; recall of each class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.checks import check_choice


def eleven_points(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """VOC until 2009 (Everingham et al., 2010, §4.2.1).

    The mean, over the recalls t of 0, 0.1, ... 1, of the greatest precision at a recall of at
    least t.
    """
    recall, precision = _curve(scores, is_positive)
    # Quotients of integers, as recalls are, so that 6 of 20 reach 3/10 in spite of rounding.
    thresholds = np.arange(11) / 10
    reached = recall[None] >= thresholds[:, None]
    return float(np.where(reached, precision[None], 0).max(1, initial=0).mean())


def area(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """VOC since 2010 (development kit of 2012, §3.4.1).

    The area under the curve whose precision at a recall r is the greatest one at a recall of at
    least r.
    """
    recall, precision = _curve(scores, is_positive)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


def steps(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """scikit-learn's `average_precision_score`, whose precision is not made monotone."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_positive, scores))


# From scores and bool `(N,)`, one of them True at least, to AP. VOC ranks images with equal scores
# in index order, as its code does; scikit-learn takes them together.
RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "11-point": eleven_points,
    "area": area,
    "steps": steps,
}


def _curve(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each image of the ranking; ties keep index order."""
    hits = np.cumsum(is_positive[np.argsort(-scores, kind="stable")])
    return hits / hits[-1], hits / np.arange(1, len(hits) + 1)


def average_precision(scores: np.ndarray, targets: np.ndarray, rule: str = "area") -> float:
    """Average precision (AP) of one class, from 0 to 1; NaN if no image has the class.

    Args:
        scores: `(N,)`, higher for images in which the class is more likely.
        targets: `(N,)`; 1 if the class is present, -1 if it is absent, 0 if the image is ignored.
        rule: "11-point" (VOC 2007), "area" (VOC 2012) or "steps" (scikit-learn).

    Raises:
        ArgumentError: an unknown rule, or a score is NaN.

    Example:
        average_precision(svm.decision_function(values), features.targets[:, 0], "11-point")
    """
    check_choice("rule", rule, RULES)
    if np.isnan(scores).any():
        raise ArgumentError("scores must be numbers. Received: NaN", "scores")
    counted = targets != 0
    is_positive = targets[counted] == 1
    return RULES[rule](scores[counted], is_positive) if is_positive.any() else float("nan")


def class_recalls(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The recall of each class, float64 `(num_classes,)`; NaN for a class without images.

    Args:
        predicted: predicted classes, int `(N,)`.
        labels: true classes, int `(N,)`.
        num_classes: number of classes.

    Example:
        >>> class_recalls(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
        array([0.5, 1. ])
    """
    from sklearn.metrics import recall_score

    classes = np.arange(num_classes)
    return recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
