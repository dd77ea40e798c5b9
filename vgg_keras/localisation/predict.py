"""Boxes for images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.evaluation.predictions import top_classes
from vgg_keras.evaluation.rows import RowFiller
from vgg_keras.localisation.localise import Dense
from vgg_keras.localisation.merging import MERGE_THRESHOLD, check_threshold
from vgg_keras.localisation.procedure import ANSWERS, check_together, scales_by_net
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.trained import TrainedNet


@dataclass(frozen=True, eq=False)
class Located:
    """The most probable classes of images, each with a box.

    Attributes:
        images: names of the N images.
        classes: A classes for each image, the most probable first, int64 `(N, A)`.
        posteriors: their posteriors, float32 `(N, A)`.
        boxes: float32 `(N, A, 4)`, `[x_min, y_min, x_max, y_max]` as fractions of the image.
        class_names: names of the classes of the nets.
        metadata: which nets were used, and how; can be written as JSON.

    Example:
        found = predict_boxes(net, ["photo.jpg"], classifiers=classifier)
        print(found.class_names[found.classes[0, 0]], found.boxes[0, 0])
    """

    images: tuple[str, ...]
    classes: np.ndarray
    posteriors: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    def answers(self) -> list[list[dict[str, Any]]]:
        """For each image a list of `class`, `posterior` and `box`; can be written as JSON."""
        return [
            [
                {"class": self.class_names[c], "posterior": float(p), "box": box.tolist()}
                for c, p, box in zip(*of_image, strict=True)
            ]
            for of_image in zip(self.classes, self.posteriors, self.boxes, strict=True)
        ]


def predict_boxes(
    nets: TrainedNet | Sequence[TrainedNet],
    images: Any,
    *,
    classifiers: TrainedNet | Sequence[TrainedNet],
    test_scales: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    threshold: float = MERGE_THRESHOLD,
    flip: bool = True,
    batch_size: int = 64,
    verbose: int | str = "auto",
) -> Located:
    """Finds a box for each of the five most probable classes of images without labels (§A.1).

    Args:
        nets, classifiers, test_scales, threshold, flip, batch_size, verbose: see `localise`.
        images: see `vgg_keras.predict`.

    Raises:
        SourceError, BadImageError: an image cannot be read.
        ArgumentError: the nets do not fit together, or a scale is below the crop size.

    Example:
        net, classifier = TrainedNet.load("runs/boxes"), TrainedNet.load("runs/d")
        predict_boxes(net, "photo.jpg", classifiers=classifier).answers()
    """
    nets, classifiers = (
        (one,) if isinstance(one, TrainedNet) else tuple(one) for one in (nets, classifiers)
    )
    check_together(nets, classifiers)
    check_threshold(threshold)
    dense = Dense(nets, classifiers, scales_by_net(nets, test_scales), threshold, flip)
    split = as_split(images)
    options: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
    posteriors = dense.posteriors(split, **options)
    classes, best = top_classes(posteriors, min(ANSWERS, posteriors.shape[1]))
    table = dense.table(split, classes, None)
    RowFiller(split, **options).fill([table])
    names = tuple(split.ids_of(range(len(split))))
    boxes = np.array(table.rows)
    return Located(names, classes, best, boxes, nets[0].class_names, dense.metadata())
