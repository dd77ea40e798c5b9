"""Greedy merging of predicted boxes (Sermanet et al. 2014, §4.3; the paper's §A.1).

The paper takes the method from OverFeat, whose constants are not published. Here the distance of
two boxes is

    distance of centres, in units of the mean width and height,  +  1 - intersection over union

It is 0 for identical boxes and above 1 for any two that do not overlap. The pair with the smallest
distance is replaced by one box, the average of all predictions in it, until no distance is below
the threshold. A merged box has the sum of its predictions' scores.

Merging is a TensorFlow function, so that an exported graph merges by the same code.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.boxes import iou

MERGE_THRESHOLD = 0.8
_LEAST_SIDE = 1e-6  # fraction of the image; narrower boxes are treated as that wide
_APART = tf.constant(np.inf, tf.float64)


def check_threshold(threshold: float) -> None:
    """Raises ArgumentError if the threshold is negative or not finite."""
    if not (threshold >= 0 and math.isfinite(threshold)):
        raise ArgumentError(
            f"threshold must be a finite number, 0 or more. Received: threshold={threshold}",
            "threshold",
        )


def merge(
    boxes: np.ndarray | tf.Tensor,
    scores: np.ndarray | tf.Tensor,
    threshold: float = MERGE_THRESHOLD,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Merges the predicted boxes of one class in one image.

    The result does not depend on the order of the predictions (bit-identical). Predictions that
    are not finite are ignored; the others are clipped at the borders of the image.

    Args:
        boxes: `(N, 4)`, `[x_min, y_min, x_max, y_max]` as fractions of the image.
        scores: `(N,)`; the score of a merged box is the sum of those of its predictions.
        threshold: largest distance, see `match_distance`, at which boxes are merged, 0 or more;
            0 merges identical boxes only.

    Returns:
        The merged boxes `(M, 4)`, float64, best score first, and their scores `(M,)`.

    Raises:
        ArgumentError: see `check_threshold`.

    Example:
        boxes, scores = merge(found[:, :4], found[:, 4])
    """
    check_threshold(threshold)
    return _merge(*(tf.cast(t, tf.float64) for t in (boxes, scores, threshold)))


def best_boxes(
    predictions: np.ndarray | tf.Tensor, threshold: float = MERGE_THRESHOLD
) -> tf.Tensor:
    """The best merged box of each class in one image.

    Args:
        predictions: `(A, P, 5)`, for each of A classes P boxes with their scores.
        threshold: see `merge`.

    Returns:
        float32 `(A, 4)`; the whole image for a class without a finite prediction.
    """

    def of_class(predictions: tf.Tensor) -> tf.Tensor:
        merged, _ = merge(predictions[:, :4], predictions[:, 4], threshold)
        whole = tf.constant([[0, 0, 1, 1]], tf.float64)
        return tf.cast(tf.concat([merged, whole], 0)[0], tf.float32)

    return tf.map_fn(of_class, predictions, fn_output_signature=tf.TensorSpec((4,), tf.float32))


@tf.function(
    input_signature=[tf.TensorSpec(shape, tf.float64) for shape in ((None, 4), (None,), ())],
    autograph=False,
)
def _merge(
    boxes: tf.Tensor, scores: tf.Tensor, threshold: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    boxes, scores = _in_order(*_usable(boxes, scores))
    indices, members = tf.range(tf.size(scores)), tf.ones_like(scores)
    distances = match_distance(boxes[:, None], boxes[None])
    distances = tf.linalg.set_diag(distances, tf.fill(tf.shape(scores), _APART))

    def is_near(
        boxes: tf.Tensor, scores: tf.Tensor, members: tf.Tensor, distances: tf.Tensor
    ) -> tf.Tensor:
        nearest = tf.reduce_min(distances)  # infinite if there is no pair
        return (nearest <= threshold) & tf.math.is_finite(nearest)

    def merge_nearest(
        boxes: tf.Tensor, scores: tf.Tensor, members: tf.Tensor, distances: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        pair = tf.unravel_index(
            tf.argmin(tf.reshape(distances, (-1,)), output_type=tf.int32), tf.shape(distances)
        )
        i, j = tf.reduce_min(pair), tf.reduce_max(pair)
        is_i, is_j = tf.equal(indices, i), tf.equal(indices, j)
        both = members[i] + members[j]
        # Exact for identical boxes.
        box = boxes[i] + (boxes[j] - boxes[i]) * (members[j] / both)
        boxes = tf.where(is_i[:, None], box, boxes)
        scores = tf.where(is_i, scores[i] + scores[j], scores)
        # Box j is merged into box i: it has no members from now on.
        members = tf.where(is_i, both, tf.where(is_j, tf.zeros_like(members), members))
        row = tf.where(is_i | tf.equal(members, 0), _APART, match_distance(box, boxes))
        distances = tf.where(is_i[:, None], row, tf.where(is_i, row[:, None], distances))
        distances = tf.where(is_j[:, None] | is_j, _APART, distances)
        return boxes, scores, members, distances

    boxes, scores, members, _ = tf.while_loop(
        is_near, merge_nearest, (boxes, scores, members, distances)
    )
    boxes, scores = boxes[members > 0], scores[members > 0]
    best = tf.argsort(scores, direction="DESCENDING", stable=True)
    return tf.gather(boxes, best), tf.gather(scores, best)


def _usable(boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The finite predictions, clipped at the borders of the image, with no negative side."""
    finite = tf.reduce_all(tf.math.is_finite(boxes), 1) & tf.math.is_finite(scores)
    boxes = tf.clip_by_value(boxes[finite], 0, 1)
    return tf.concat([boxes[:, :2], tf.maximum(boxes[:, 2:], boxes[:, :2])], 1), scores[finite]


def _in_order(boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The predictions in an order that depends on their values only."""
    order = tf.range(tf.size(scores))
    for key in (scores, *tf.unstack(boxes, axis=1)[::-1]):  # the last key decides first
        order = tf.gather(order, tf.argsort(tf.gather(key, order), stable=True))
    return tf.gather(boxes, order), tf.gather(scores, order)


def match_distance(boxes: np.ndarray | tf.Tensor, others: np.ndarray | tf.Tensor) -> tf.Tensor:
    """How far boxes `(..., 4)` are from matching: 0 if they are identical, and more otherwise."""
    sides = (boxes[..., 2:] - boxes[..., :2] + others[..., 2:] - others[..., :2]) / 2
    centres = (boxes[..., 2:] + boxes[..., :2] - others[..., 2:] - others[..., :2]) / 2
    in_sides = centres / tf.maximum(tf.convert_to_tensor(sides), _LEAST_SIDE)
    distance = tf.sqrt(tf.reduce_sum(tf.square(in_sides), -1))
    same = tf.reduce_all(tf.equal(boxes, others), -1)
    return tf.where(same, tf.zeros_like(distance), distance + 1 - iou(boxes, others))
