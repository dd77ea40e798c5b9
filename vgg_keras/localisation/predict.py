"""Boxes for images without labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.submissions import save_submission
from vgg_keras.localisation.answers import Dense, find_answers
from vgg_keras.localisation.merging import MERGE_THRESHOLD
from vgg_keras.localisation.results import boxes_in_pixels
from vgg_keras.pipelines.reprs import ShortRepr
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.trained import TrainedNet


@dataclass(frozen=True, eq=False, repr=False)
class Located(ShortRepr):
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

    def save_submission(self, path: str | os.PathLike, images: Any) -> None:
        """Writes the answers as ILSVRC's evaluation server takes them, with boxes in pixels.

        Args:
            path: the text file.
            images: the images as they were given to `predict_boxes`; they give the sizes.

        Raises:
            PredictionsError: these are other images, or see
                `vgg_keras.evaluation.submissions.save_submission`.
            WriteError: the file cannot be written.

        Example:
            predict_boxes(net, "test", classifiers=d).save_submission("test.txt", "test")
        """
        boxes = boxes_in_pixels(as_split(images), self.images, self.boxes)
        save_submission(path, self.images, self.class_names, self.classes, boxes)


def predict_boxes(
    nets: TrainedNet | Sequence[TrainedNet],
    images: Any,
    *,
    classifiers: TrainedNet | Sequence[TrainedNet],
    test_scales: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    predictions: Predictions | None = None,
    threshold: float = MERGE_THRESHOLD,
    flip: bool = True,
    batch_size: int = 64,
    cache_dir: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Located:
    """Finds a box for each of the five most probable classes of images without labels (§A.1).

    Args:
        nets, classifiers, test_scales, predictions, threshold, flip: see `localise`.
        images: see `vgg_keras.predict`.
        batch_size, cache_dir, verbose: see `localise`.

    Raises:
        SourceError, BadImageError: an image cannot be read.
        PredictionsError: `predictions` are of other images or classes.
        ArgumentError: the nets do not fit together, or a scale is below the crop size.
        WriteError: the cache cannot be written.

    Example:
        net, classifier = TrainedNet.load("runs/boxes"), TrainedNet.load("runs/d")
        predict_boxes(net, "photo.jpg", classifiers=classifier).answers()
    """
    test, split = Dense.checked(nets, classifiers, test_scales, threshold, flip), as_split(images)
    options: dict[str, Any] = {"cache_dir": cache_dir, "batch_size": batch_size, "verbose": verbose}
    (found,) = find_answers([test], split, predictions, **options)
    names = tuple(split.ids_of(range(len(split))))
    return Located(names, *found, test.nets[0].class_names, test.metadata())
