"""Greedy merging of box predictions (Sermanet et al. 2014, §4.3; the paper's §A.1).

The paper takes the method from OverFeat, whose constants are not published. Here two boxes match
the better the smaller

    distance of centres, in units of the mean width and height,  +  1 - intersection over union

is: 0 for identical boxes, and above 1 for any two that do not overlap. The pair that matches best
is replaced by one box, the average of all predictions in it, until no pair is below the threshold.
A merged box has the sum of its predictions' scores.

In TensorFlow, so that an exported graph merges by the same code.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.boxes import iou

THRESHOLD = 0.8
_LEAST_SIDE = 1e-6  # of the picture; narrower boxes count as that wide
_APART = tf.constant(np.inf, tf.float64)


def check_threshold(threshold: float) -> None:
    """Raises ValueError for what is no threshold."""
    if not (threshold >= 0 and math.isfinite(threshold)):
        raise ValueError(f"threshold must be a number, 0 or more. Received: {threshold}")


def merge(boxes, scores, threshold: float = THRESHOLD) -> tuple[tf.Tensor, tf.Tensor]:
    """Merges predictions of one class in one picture.

    The order of the predictions is of no influence, to the bit. Those that are not finite are
    left out, the others cut at the picture's borders.

    Args:
        boxes: `(N, 4)`, `[x_min, y_min, x_max, y_max]` in shares of the picture, NumPy or
            TensorFlow.
        scores: `(N,)`, what each adds to its box's score.
        threshold: match above which boxes stay apart, 0 or more; 0 merges identical ones only.

    Returns:
        The merged boxes `(M, 4)`, float64, best score first, and their scores `(M,)`.

    Raises:
        ValueError: see `check_threshold`.
    """
    check_threshold(threshold)
    return _merge(*(tf.cast(t, tf.float64) for t in (boxes, scores, threshold)))


def answer(predictions, threshold: float = THRESHOLD) -> tf.Tensor:
    """The best of the merged boxes for each class in one picture.

    Args:
        predictions: `(A, P, 5)`, for each class P boxes with their scores.
        threshold: of `merge`.

    Returns:
        float32 `(A, 4)`; the whole picture where no prediction is finite.
    """

    def of_class(predictions):
        merged, _ = merge(predictions[:, :4], predictions[:, 4], threshold)
        whole = tf.constant([[0, 0, 1, 1]], tf.float64)
        return tf.cast(tf.concat([merged, whole], 0)[0], tf.float32)

    return tf.map_fn(of_class, predictions, fn_output_signature=tf.TensorSpec((4,), tf.float32))


@tf.function(
    input_signature=[tf.TensorSpec(shape, tf.float64) for shape in ((None, 4), (None,), ())],
    autograph=False,
)
def _merge(boxes, scores, threshold):
    boxes, scores = _in_order(*_usable(boxes, scores))
    places, members = tf.range(tf.size(scores)), tf.ones_like(scores)
    matches = match(boxes[:, None], boxes[None])
    matches = tf.linalg.set_diag(matches, tf.fill(tf.shape(scores), _APART))

    def is_near(boxes, scores, members, matches):
        nearest = tf.reduce_min(matches)  # infinite where there is no pair
        return (nearest <= threshold) & tf.math.is_finite(nearest)

    def merge_nearest(boxes, scores, members, matches):
        pair = tf.unravel_index(
            tf.argmin(tf.reshape(matches, (-1,)), output_type=tf.int32), tf.shape(matches)
        )
        i, j = tf.reduce_min(pair), tf.reduce_max(pair)
        is_i, is_j = tf.equal(places, i), tf.equal(places, j)
        both = members[i] + members[j]
        # Exact for identical boxes.
        box = boxes[i] + (boxes[j] - boxes[i]) * (members[j] / both)
        boxes = tf.where(is_i[:, None], box, boxes)
        scores = tf.where(is_i, scores[i] + scores[j], scores)
        members = tf.where(
            is_i, both, tf.where(is_j, tf.zeros_like(members), members)
        )  # 0: j is no more
        row = tf.where(is_i | tf.equal(members, 0), _APART, match(box, boxes))
        matches = tf.where(is_i[:, None], row, tf.where(is_i, row[:, None], matches))
        matches = tf.where(is_j[:, None] | is_j, _APART, matches)
        return boxes, scores, members, matches

    boxes, scores, members, _ = tf.while_loop(
        is_near, merge_nearest, (boxes, scores, members, matches)
    )
    boxes, scores = boxes[members > 0], scores[members > 0]
    best = tf.argsort(scores, direction="DESCENDING", stable=True)
    return tf.gather(boxes, best), tf.gather(scores, best)


def _usable(boxes, scores):
    """The finite predictions, cut at the picture's borders, none of a negative side."""
    finite = tf.reduce_all(tf.math.is_finite(boxes), 1) & tf.math.is_finite(scores)
    boxes = tf.clip_by_value(boxes[finite], 0, 1)
    return tf.concat([boxes[:, :2], tf.maximum(boxes[:, 2:], boxes[:, :2])], 1), scores[finite]


def _in_order(boxes, scores):
    """Predictions in an order that follows from themselves."""
    order = tf.range(tf.size(scores))
    for key in (scores, *tf.unstack(boxes, axis=1)[::-1]):  # the last one decides first
        order = tf.gather(order, tf.argsort(tf.gather(key, order), stable=True))
    return tf.gather(boxes, order), tf.gather(scores, order)


def match(boxes, others) -> tf.Tensor:
    """How badly boxes match, 0 or more, broadcast over `(..., 4)`."""
    sides = (boxes[..., 2:] - boxes[..., :2] + others[..., 2:] - others[..., :2]) / 2
    centres = (boxes[..., 2:] + boxes[..., :2] - others[..., 2:] - others[..., :2]) / 2
    shares = centres / tf.maximum(tf.convert_to_tensor(sides), _LEAST_SIDE)
    distance = tf.sqrt(tf.reduce_sum(tf.square(shares), -1))
    same = tf.reduce_all(tf.equal(boxes, others), -1)
    return tf.where(same, tf.zeros_like(distance), distance + 1 - iou(boxes, others))
