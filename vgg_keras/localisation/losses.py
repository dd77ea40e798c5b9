"""The Euclidean loss and the ILSVRC criterion on what a localisation net says (§A.1, §A.2).

Targets are `(B, 5)`: the box as the crop sees it, `[centre x, centre y, width, height]` in units of
the crop's side (see `pipelines/boxes.py`), and the class. Predictions are `(B, 4)`, one box for all
classes, or `(B, 4 * classes)`, of which the true class's counts.
"""

from __future__ import annotations

import keras
from keras import ops


def of_true_class(targets, predictions):
    """The boxes that count, `(B, 4)`."""
    if predictions.shape[-1] == 4:
        return predictions
    by_class = ops.reshape(predictions, (-1, predictions.shape[-1] // 4, 4))
    labels = ops.cast(targets[:, 4], "int32")
    return ops.take_along_axis(by_class, labels[:, None, None], axis=1)[:, 0]


@keras.saving.register_keras_serializable("vgg_keras")
class EuclideanBoxLoss(keras.losses.Loss):
    """Half the squared distance of box and prediction, `(B,)` before the mean: Caffe's."""

    def __init__(self, name="euclidean_box_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        difference = of_true_class(y_true, y_pred) - y_true[:, :4]
        return ops.sum(ops.square(difference), -1) / 2


def box_accuracy(y_true, y_pred):
    """1 where the intersection over union is above 0.5, else 0; float32 `(B,)`."""
    found, true = of_true_class(y_true, y_pred), y_true[:, :4]
    low = ops.maximum(_low(found), _low(true))
    high = ops.minimum(_high(found), _high(true))
    both = _area(high - low)
    union = _area(found[:, 2:]) + _area(true[:, 2:]) - both
    return ops.cast(both > 0.5 * union, "float32")


def _low(boxes):
    return boxes[:, :2] - boxes[:, 2:] / 2


def _high(boxes):
    return boxes[:, :2] + boxes[:, 2:] / 2


def _area(sides):
    return ops.prod(ops.maximum(sides, 0.0), -1)
