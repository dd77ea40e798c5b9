"""The boxes of a localisation result, and its errors by the ILSVRC rule (§A.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.evaluation.submissions import save_submission
from vgg_keras.metadata import ANSWERS_KEY
from vgg_keras.pipelines.box_sources import upright_sizes
from vgg_keras.pipelines.boxes import Boxes, iou
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.pipelines.reprs import ShortRepr
from vgg_keras.pipelines.splits import Split

OVERLAP = 0.5  # intersection over union that a correct box must exceed


@dataclass(frozen=True, eq=False, repr=False)
class Localised(ShortRepr):
    """Classes and boxes for the images of a split, with the true ones.

    Attributes:
        images: names of the N images.
        labels: true classes, int64 `(N,)`.
        truth: true boxes, as fractions of the image.
        classes: A classes for each image, the most probable first, int64 `(N, A)`; with the
            protocol "centre-gt" the true class alone.
        boxes: one box for each of these classes, float32 `(N, A, 4)`,
            `[x_min, y_min, x_max, y_max]` as fractions of the image.
        class_names: names of the classes of the nets.
        metadata: which nets were used, and how; can be written as JSON.

    Example:
        found = localise(net, data, classifiers=classifier)
        print(found.result()["top5_localisation_error"])
    """

    images: tuple[str, ...]
    labels: np.ndarray
    truth: Boxes
    classes: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    def hits(self) -> np.ndarray:
        """Which answers are correct, bool `(N, A)`.

        An answer is correct if its class is the true one and its box overlaps any of the true
        boxes by more than `OVERLAP`.
        """
        # All pairs at once: a call of `iou` for each image takes longer than its net.
        image_of_box = np.repeat(np.arange(len(self.images)), np.diff(self.truth.splits))
        of_boxes = iou(self.boxes[image_of_box], self.truth.values[:, None]).numpy()
        overlaps = np.zeros(self.classes.shape, of_boxes.dtype)
        np.maximum.at(overlaps, image_of_box, of_boxes)
        return (self.classes == self.labels[:, None]) & (overlaps > OVERLAP)

    def result(self) -> dict[str, Any]:
        """`metadata`, the number of `images` and the errors in percent; can be written as JSON.

        The errors are `top1_localisation_error` and `top5_localisation_error`, or
        `gt_class_localisation_error` if the true class alone has a box.
        """
        hits = self.hits()
        error = {"top1_localisation_error": 100 * (1 - float(hits[:, 0].mean()))}
        if self.classes.shape[1] > 1:
            error["top5_localisation_error"] = 100 * (1 - float(hits.any(1).mean()))
        else:
            error = {"gt_class_localisation_error": error["top1_localisation_error"]}
        return error | {"images": len(self.images)} | self.metadata

    def save_submission(self, path: str | os.PathLike, images: Split) -> None:
        """Writes the answers as ILSVRC's evaluation server takes them, with boxes in pixels.

        Args:
            path: the text file.
            images: the split that was localised, whose images give the sizes.

        Raises:
            PredictionsError: images of the split were skipped, or see
                `vgg_keras.evaluation.submissions.save_submission`.
            WriteError: the file cannot be written.

        Example:
            localise(net, data, classifiers=classifier).save_submission("val.txt", data["val"])
        """
        boxes = boxes_in_pixels(images, self.images, self.boxes)
        save_submission(path, self.images, self.class_names, self.classes, boxes)

    def result_with_answers(self) -> dict[str, Any]:
        """`result()` and, for each image, its class, its boxes and the answers."""
        images = [
            {
                "image": image,
                "class": self.class_names[label],
                "boxes": self.truth[i].tolist(),
                "answers": [
                    {"class": self.class_names[c], "box": box.tolist(), "right": bool(hit)}
                    for c, box, hit in zip(self.classes[i], self.boxes[i], hits, strict=True)
                ],
            }
            for i, (image, label, hits) in enumerate(
                zip(self.images, self.labels, self.hits(), strict=True)
            )
        ]
        return self.result() | {ANSWERS_KEY: images}

    def save(self, path: str | os.PathLike) -> None:
        """Writes `result_with_answers()` as JSON.

        Raises:
            WriteError: the file cannot be written; what was there before is intact.
        """
        atomic_write(path, json.dumps(self.result_with_answers()) + "\n")


def boxes_in_pixels(images: Split, names: Sequence[str], boxes: np.ndarray) -> np.ndarray:
    """Boxes in pixels from 0, with the first and the last pixel inside the box.

    Args:
        images: the split of which the boxes are.
        names: names of the N images that have boxes.
        boxes: float32 `(N, A, 4)`, as fractions of the image.

    Returns:
        int64 `(N, A, 4)`. Each box has a pixel of the image.

    Raises:
        PredictionsError: the images with boxes are not all images of the split.
    """
    if list(names) != images.ids_of(range(len(images))):
        raise PredictionsError(
            f"A submission needs all {len(images)} images of the split {images.name!r}. "
            f"Received: answers for {len(names)} images"
        )
    sides = np.tile(upright_sizes(images)[:, None, ::-1], 2)
    edges = np.rint(boxes * sides).astype(np.int64)
    first = np.minimum(edges[..., :2], sides[..., :2] - 1)
    last = np.maximum(edges[..., 2:] - 1, first)
    return np.concatenate([first, last], 2)
