"""What nets say of pictures, and how often they are right by the ILSVRC rule (§A.2)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.pipelines.boxes import Boxes, iou
from vgg_keras.pipelines.files import atomic_write

OVERLAP = 0.5  # intersection over union that an answer must exceed


@dataclass(frozen=True, eq=False)
class Localised:
    """What nets say of pictures.

    Attributes:
        images: names of the N pictures.
        labels: their classes, int64 `(N,)`.
        truth: their boxes, shares of the picture.
        classes: named for each, best first, int64 `(N, A)`; with "centre-gt" the true one.
        boxes: of those, float32 `(N, A, 4)`, in shares.
        class_names: of the nets.
        about: how it was done; can be written as JSON.
    """

    images: tuple[str, ...]
    labels: np.ndarray
    truth: Boxes
    classes: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    metadata: dict[str, Any]

    def hits(self) -> np.ndarray:
        """Whether each answer is right, bool `(N, A)`: the class, and its box with any true one."""
        overlaps = np.array(
            [
                iou(self.boxes[i][:, None], self.truth[i][None]).numpy().max(1, initial=0)
                for i in range(len(self.images))
            ]
        ).reshape(self.classes.shape)
        return (self.classes == self.labels[:, None]) & (overlaps > OVERLAP)

    def result(self) -> dict[str, Any]:
        """Errors in percent, and how they were measured; can be written as JSON."""
        hits = self.hits()
        error = {"top1_localisation_error": 100 * (1 - float(hits[:, 0].mean()))}
        if self.classes.shape[1] > 1:
            error["top5_localisation_error"] = 100 * (1 - float(hits.any(1).mean()))
        else:
            error = {"gt_class_localisation_error": error["top1_localisation_error"]}
        return error | {"images": len(self.images)} | self.metadata

    def save(self, path: str | os.PathLike) -> None:
        """Writes the result and, for each picture, its class and boxes and the answers, as JSON."""
        pictures = [
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
        atomic_write(path, json.dumps(self.result() | {"pictures": pictures}) + "\n")
