"""Greedy merging of box predictions (Sermanet et al. 2014, §4.3; the paper's §A.1).

The paper takes the method from OverFeat, whose constants are not published. Here two boxes match
the better the smaller

    distance of centres, in units of the mean width and height,  +  1 - intersection over union

is: 0 for identical boxes, and above 1 for any two that do not overlap. The pair that matches best
is replaced by one box, the average of all predictions in it, until no pair is below the threshold.
A merged box has the sum of its predictions' scores.
"""

from __future__ import annotations

import numpy as np

from pipelines.boxes import iou

THRESHOLD = 0.8
_LEAST_SIDE = 1e-6  # of the picture; narrower boxes count as that wide


def merge(
    boxes: np.ndarray, scores: np.ndarray, threshold: float = THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """Merges predictions of one class in one picture.

    The order of the predictions is of no influence, to the bit. Those that are not finite are
    left out, the others cut at the picture's borders.

    Args:
        boxes: `(N, 4)`, `[x_min, y_min, x_max, y_max]` in shares of the picture.
        scores: `(N,)`, what each adds to its box's score.
        threshold: match above which boxes stay apart, 0 or more; 0 merges identical ones only.

    Returns:
        The merged boxes `(M, 4)`, float64, best score first, and their scores `(M,)`.

    Raises:
        ValueError: a threshold below 0.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more. Received: {threshold}")
    boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    boxes, scores = boxes[finite].clip(0, 1), scores[finite]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    order = np.lexsort((scores, *boxes.T[::-1]))
    boxes, scores, members = boxes[order], scores[order], np.ones(len(order))
    matches = match(boxes[:, None], boxes[None])
    np.fill_diagonal(matches, np.inf)
    while len(boxes) > 1:
        i, j = sorted(np.unravel_index(np.argmin(matches), matches.shape))
        if matches[i, j] > threshold:
            break
        both = members[i] + members[j]
        boxes[i] += (boxes[j] - boxes[i]) * (members[j] / both)  # exact for identical boxes
        scores[i], members[i] = scores[i] + scores[j], both
        boxes, scores, members = (np.delete(a, j, 0) for a in (boxes, scores, members))
        matches = np.delete(np.delete(matches, j, 0), j, 1)
        matches[i] = matches[:, i] = match(boxes[i], boxes)
        matches[i, i] = np.inf
    best = np.argsort(-scores, kind="stable")
    return boxes[best], scores[best]


def match(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How badly boxes match, 0 or more, broadcast over `(..., 4)`."""
    sides = (boxes[..., 2:] - boxes[..., :2] + others[..., 2:] - others[..., :2]) / 2
    centres = (boxes[..., 2:] + boxes[..., :2] - others[..., 2:] - others[..., :2]) / 2
    distance = np.sqrt(np.square(centres / np.maximum(sides, _LEAST_SIDE)).sum(-1))
    same = (boxes == others).all(-1)
    return np.where(same, 0.0, distance + 1 - iou(boxes, others))
