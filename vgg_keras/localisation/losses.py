"""The Euclidean loss and the ILSVRC criterion for the outputs of a localisation net (§A.1, §A.2).

Targets are `(B, 5)`: the box in the coordinates of the crop, `[centre x, centre y, width, height]`
in units of the crop's side (see `vgg_keras.pipelines.boxes`), and the class. Predictions are
`(B, 4)`, one box for all classes, or `(B, 4 * classes)`, of which the box of the true class is
used.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any  # of the Keras backend


def boxes_of_true_class(targets: Tensor, predictions: Tensor) -> Tensor:
    """The predicted boxes of the true classes, `(B, 4)`."""
    if predictions.shape[-1] == 4:
        return predictions
    by_class = ops.reshape(predictions, (-1, predictions.shape[-1] // 4, 4))
    labels = ops.cast(targets[:, 4], "int32")
    return ops.take_along_axis(by_class, labels[:, None, None], axis=1)[:, 0]


@keras.saving.register_keras_serializable("vgg_keras")
class EuclideanBoxLoss(keras.losses.Loss):
    """Half the squared distance between target and predicted box, as Caffe's Euclidean loss.

    The loss of each crop is `(B,)`; Keras averages it over the batch.
    """

    def __init__(self, name: str = "euclidean_box_loss", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        difference = boxes_of_true_class(y_true, y_pred) - y_true[:, :4]
        return ops.sum(ops.square(difference), -1) / 2


def box_accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """1 if the intersection over union is above 0.5, else 0; float32 `(B,)`."""
    found, true = boxes_of_true_class(y_true, y_pred), y_true[:, :4]
    low = ops.maximum(_low(found), _low(true))
    high = ops.minimum(_high(found), _high(true))
    both = _area(high - low)
    union = _area(found[:, 2:]) + _area(true[:, 2:]) - both
    return ops.cast(both > 0.5 * union, "float32")


def _low(boxes: Tensor) -> Tensor:
    return boxes[:, :2] - boxes[:, 2:] / 2


def _high(boxes: Tensor) -> Tensor:
    return boxes[:, :2] + boxes[:, 2:] / 2


def _area(sides: Tensor) -> Tensor:
    return ops.prod(ops.maximum(sides, 0.0), -1)
