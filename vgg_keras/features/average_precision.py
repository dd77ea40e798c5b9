"""Average precision by the rules of PASCAL VOC and of scikit-learn; mean class recall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC until 2009: the mean, over recalls t of 0, 0.1, ... 1, of the greatest precision at a
    recall of t or more (Everingham et al., 2010, §4.2.1)."""
    # Quotients of whole numbers, as recalls are, so that 6 of 20 reach 3/10 whatever the rounding.
    thresholds = np.arange(11) / 10
    reached = recall[None] >= thresholds[:, None]
    return float(np.where(reached, precision[None], 0).max(1, initial=0).mean())


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC since 2010: the area under the curve whose precision at r is made the greatest at a
    recall of r or more (development kit of 2012, §3.4.1)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


def steps(recall: np.ndarray, precision: np.ndarray) -> float:
    """scikit-learn's `average_precision_score`: the same without making it monotone."""
    return float(np.sum(np.diff(recall, prepend=0) * precision))


@dataclass(frozen=True)
class Rule:
    """How AP is counted.

    Attributes:
        summary: of recalls, which grow, and precisions, `(n,)` each, to AP.
        ties_in_order: pictures of one score are ranked one after the other in their order, as
            VOC's code does; or else they enter the ranking together.
    """

    summary: Callable[[np.ndarray, np.ndarray], float]
    ties_in_order: bool


RULES = {
    "11-point": Rule(eleven_points, ties_in_order=True),
    "area": Rule(area, ties_in_order=True),
    "steps": Rule(steps, ties_in_order=False),
}


def average_precision(scores: np.ndarray, targets: np.ndarray, rule: str = "area") -> float:
    """AP of one class, 0 to 1; NaN where no picture has it.

    Args:
        scores: `(N,)`, greater where the class is more likely there.
        targets: `(N,)`: 1 there, -1 not there, 0 left out of account.
        rule: "11-point" (VOC 2007), "area" (VOC 2012) or "steps" (scikit-learn).

    Raises:
        ValueError: an unknown rule, or a score that is NaN.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}. Received: {rule!r}")
    if np.isnan(scores).any():
        raise ValueError("Scores must be numbers. Received: NaN")
    counted = targets != 0
    scores, there = scores[counted], targets[counted] == 1
    if not there.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(there[order])
    last = np.ones(len(scores), bool)
    if not RULES[rule].ties_in_order:
        last = np.append(scores[1:] != scores[:-1], True)  # of each run of equal scores
    recall, precision = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    return RULES[rule].summary(recall[last], precision[last])


def class_recalls(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class's pictures that are recognised, float64 `(num_classes,)`; NaN where
    a class has none. Their mean is scikit-learn's `balanced_accuracy_score`.

    Args:
        predicted, labels: int `(N,)`.
    """
    pictures = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[predicted == labels], minlength=num_classes)
    return np.where(pictures > 0, right / np.maximum(pictures, 1), np.nan)
