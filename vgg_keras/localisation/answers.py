"""The most probable classes of images, each with a box: the protocol "dense" of §A.1."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.cache import open_row_cache
from vgg_keras.evaluation.evaluate import score
from vgg_keras.evaluation.posteriors import row_pass
from vgg_keras.evaluation.predictions import Predictions, top_classes
from vgg_keras.evaluation.procedure import Pass, Procedure
from vgg_keras.evaluation.rows import RowFiller, RowPass, Score, Table
from vgg_keras.forward import on_all_devices
from vgg_keras.localisation.dense import Finder, make_finder
from vgg_keras.localisation.merging import best_boxes
from vgg_keras.localisation.procedure import ANSWERS, metadata_of_nets
from vgg_keras.pipelines.splits import Split
from vgg_keras.trained import TrainedNet

_VIEWS_AND_INDICES = [  # one trace for images of all sizes
    tf.TensorSpec((None, None, None, None, 3), tf.float32),
    tf.TensorSpec((None,), tf.int64),
]


@dataclass(frozen=True, eq=False)
class Dense:
    """The second protocol, "dense", for some nets; see `localise`."""

    nets: tuple[TrainedNet, ...]
    classifiers: tuple[TrainedNet, ...]
    scales: list[tuple[int, ...]]
    threshold: float
    flip: bool

    def posteriors(self, split: Split, **options: Any) -> np.ndarray:
        """The mean of the classifiers' dense posteriors (§3.2)."""
        dense = Procedure("dense")
        return np.mean(
            [score(net, split, dense.passes(net), **options)[1] for net in self.classifiers], 0
        )

    def answers(
        self,
        split: Split,
        predictions: Predictions | None = None,
        *,
        cache_dir: str | os.PathLike | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The most probable classes of images, each with a box.

        Args:
            split: the images.
            predictions, cache_dir: see `localise`.
            options: `batch_size` and `verbose`, see `RowFiller`.

        Returns:
            A classes for each image, the most probable first, int64 `(N, A)`; their posteriors,
            float32 `(N, A)`; and a box for each, float32 `(N, A, 4)`.
        """
        if predictions is None:
            posteriors = self.posteriors(split, cache_dir=cache_dir or None, **options)
        else:
            names = split.ids_of(range(len(split)))
            posteriors = predictions.rows_for(names, self.nets[0].class_names)
        classes, best = top_classes(posteriors, min(ANSWERS, posteriors.shape[1]))
        table = self.table(split, classes, cache_dir)
        RowFiller(split, **options).fill([table])
        return classes, best, np.array(table.rows)

    def table(
        self, split: Split, classes: np.ndarray, cache_dir: str | os.PathLike | None
    ) -> Table:
        """The table of merged boxes, `(N, A, 4)`, for A classes of each image, `(N, A)`."""
        folder = Path(cache_dir) if cache_dir else None
        decisive = folder and self._decisive(split, classes)
        rows = open_row_cache(folder, "answers", decisive, (*classes.shape, 4))
        scores = {
            net: score_fn(net, make_finder(net, self.classifiers, self.flip), classes)
            for net in self.nets
        }
        passes = [self._pass(net, scale, scores[net]) for net, scale in self._nets_at_scales()]
        merge = tf.function(
            lambda found: best_boxes(found, self.threshold),
            input_signature=[tf.TensorSpec((None, None, 5), tf.float32)],
            autograph=False,
        )
        return Table(
            rows, is_complete, passes, lambda parts: merge(np.concatenate(parts, 1)).numpy()
        )

    def _decisive(self, split: Split, classes: np.ndarray) -> list[Any]:
        """Everything that decides the boxes."""
        return [
            split.fingerprint(),
            classes.tolist(),
            self.threshold,
            self.flip,
            [(self.nets.index(net), scale) for net, scale in self._nets_at_scales()],
            *([net.digest, net.mean] for net in (*self.nets, *self.classifiers)),
        ]

    def _pass(self, net: TrainedNet, scale: int, score: Score) -> RowPass:
        whole_images = row_pass(net, Pass("dense", scale, self.flip), score)
        return dataclasses.replace(whole_images, name=f"{Path(net.name).name} Q={scale}")

    def _nets_at_scales(self) -> list[tuple[TrainedNet, int]]:
        return [
            (net, scale)
            for net, of_net in zip(self.nets, self.scales, strict=True)
            for scale in of_net
        ]

    def metadata(self) -> dict[str, Any]:
        """Which nets are used, and how; can be written as JSON."""
        return metadata_of_nets(self.nets, self.scales) | {
            "protocol": "dense",
            "classifiers": [net.name for net in self.classifiers],
            "merge_threshold": self.threshold,
            "flip": self.flip,
        }


def score_fn(net: TrainedNet, find: Finder, classes: np.ndarray) -> Score:
    """A `Score` that shares a batch among the devices of a net.

    Args:
        net: localisation net.
        find: from images and their classes to rows.
        classes: those of all images of the split, int64 `(N, A)`.
    """

    @tf.function(input_signature=_VIEWS_AND_INDICES, autograph=False)
    def score_views(views: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        of_images = tf.gather(tf.constant(classes, tf.int64), indices)
        return on_all_devices(net.model, find, views[:, 0], of_images)

    return score_views


def is_complete(rows: np.ndarray) -> np.ndarray:
    """Which rows are complete: one that a kill cut off still holds NaN."""
    return np.isfinite(rows).reshape(len(rows), -1).all(1)
