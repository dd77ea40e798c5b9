"""The most probable classes of images, each with a box: the protocol "dense" of §A.1."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.cache import open_row_cache
from vgg_keras.evaluation.evaluate import score
from vgg_keras.evaluation.posteriors import row_pass
from vgg_keras.evaluation.predictions import Predictions, top_classes
from vgg_keras.evaluation.procedure import Pass, Procedure
from vgg_keras.evaluation.rows import RowFiller, RowPass, Score, Table
from vgg_keras.forward import on_all_devices
from vgg_keras.localisation.dense import Finder, make_map_fn, scored_boxes
from vgg_keras.localisation.merging import MERGE_THRESHOLD, best_boxes, check_threshold
from vgg_keras.localisation.procedure import (
    ANSWERS,
    check_together,
    metadata_of_nets,
    scales_by_net,
)
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
    scales: Sequence[Sequence[int]]
    threshold: float = MERGE_THRESHOLD
    flip: bool = True

    @classmethod
    def checked(
        cls,
        nets: TrainedNet | Sequence[TrainedNet],
        classifiers: TrainedNet | Sequence[TrainedNet],
        test_scales: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
        threshold: float = MERGE_THRESHOLD,
        flip: bool = True,
    ) -> Dense:
        """Nets that fit together.

        Raises:
            ArgumentError: the nets do not fit together, or an argument is not allowed.
        """
        nets, classifiers = _as_tuple(nets), _as_tuple(classifiers)
        check_together(nets, classifiers)
        check_threshold(threshold)
        return cls(nets, classifiers, scales_by_net(nets, test_scales), threshold, flip)

    def posteriors(
        self, split: Split, predictions: Predictions | None, **options: Any
    ) -> np.ndarray:
        """Posteriors `(N, C)`: those given, or the mean of the classifiers, dense (§3.2)."""
        if predictions is not None:
            names = split.ids_of(range(len(split)))
            return predictions.rows_for(names, self.nets[0].class_names)
        dense = Procedure("dense")
        return np.mean(
            [score(net, split, dense.passes(net), **options)[1] for net in self.classifiers], 0
        )

    def cached_rows(
        self, split: Split, classes: np.ndarray, cache_dir: str | os.PathLike | None
    ) -> np.ndarray:
        """The merged boxes of A classes of each image, `(N, A, 4)`, as far as they are cached."""
        decisive = cache_dir and [  # everything that decides the boxes
            split.fingerprint(),
            classes.tolist(),
            self.threshold,
            self.flip,
            [(self.nets.index(net), scale) for net, scale in self.nets_at_scales()],
            *([net.digest, net.mean] for net in (*self.nets, *self.classifiers)),
        ]
        folder = Path(cache_dir) if cache_dir else None
        return open_row_cache(folder, "answers", decisive, (*classes.shape, 4))

    def nets_at_scales(self) -> list[tuple[TrainedNet, int]]:
        """Each net at each of its scales."""
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


class Answers(NamedTuple):
    """The most probable classes of images, each with a box.

    Attributes:
        classes: A classes for each image, the most probable first, int64 `(N, A)`.
        posteriors: float32 `(N, A)`.
        boxes: float32 `(N, A, 4)`.
    """

    classes: np.ndarray
    posteriors: np.ndarray
    boxes: np.ndarray


def find_answers(
    tests: Sequence[Dense],
    split: Split,
    predictions: Predictions | None = None,
    *,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> list[Answers]:
    """The most probable classes of images with their boxes, by several tests.

    No net sees an image twice at a scale to predict boxes or to rate them.

    Args:
        tests: the tests. All nets fit together.
        split: the images.
        predictions, cache_dir: see `localise`.
        options: `batch_size` and `verbose`, see `RowFiller`.
    """
    best = []
    for test in tests:
        rows = test.posteriors(split, predictions, cache_dir=cache_dir or None, **options)
        best.append(top_classes(rows, min(ANSWERS, rows.shape[1])))
    chosen = {test: classes for test, (classes, _) in zip(tests, best, strict=True)}
    shared = _shared_passes(tests)
    passes = {views: one.row_pass(chosen) for views, one in shared.items()}
    tables = []
    for test, classes in chosen.items():
        used = {scale: (scale, test.flip) for _, scale in test.nets_at_scales()}
        merge = _merging(test, {scale: shared[views] for scale, views in used.items()})
        rows = test.cached_rows(split, classes, cache_dir)
        tables.append(Table(rows, is_complete, [passes[views] for views in used.values()], merge))
    RowFiller(split, **options).fill(tables)
    return [Answers(*of, np.array(table.rows)) for of, table in zip(best, tables, strict=True)]


@dataclass(frozen=True, eq=False)
class _SharedPass:
    """What some tests take from one pass over the images: all of their nets at a scale.

    Attributes:
        tests: the tests that use the scale.
        scale: Q.
        flip: whether the mirror images are used too.
    """

    tests: Sequence[Dense]
    scale: int
    flip: bool

    @property
    def nets(self) -> list[TrainedNet]:
        """The localisation nets."""
        used = (at for test in self.tests for at in test.nets_at_scales())
        return list(dict.fromkeys(net for net, scale in used if scale == self.scale))

    @property
    def classifiers(self) -> list[TrainedNet]:
        """The classification nets."""
        return list(dict.fromkeys(net for test in self.tests for net in test.classifiers))

    def row_pass(self, classes: Mapping[Dense, np.ndarray]) -> RowPass:
        """The pass, for the classes `(N, A)` of each test. Rows are `(T * A, P, maps)`."""
        first, *_ = self.nets
        predict_maps = make_map_fn(self.nets, self.classifiers, self.flip)
        of_tests = np.concatenate([classes[test] for test in self.tests], 1)
        score = score_fn(first, predict_maps, of_tests)
        names = " + ".join(Path(net.name).name for net in self.nets)
        whole_images = row_pass(first, Pass("dense", self.scale, self.flip), score)
        return dataclasses.replace(whole_images, name=f"{names} Q={self.scale}")

    def scored_boxes(self, maps: tf.Tensor, test: Dense, net: TrainedNet) -> tf.Tensor:
        """The boxes of a net for the classes of a test, `(A, P, 5)`, from a row of the pass."""
        of_test = tf.split(maps, len(self.tests))[self.tests.index(test)]
        classifiers = [self.classifiers.index(one) for one in test.classifiers]
        return scored_boxes(of_test, self.nets.index(net), len(self.nets), classifiers)


def _shared_passes(tests: Sequence[Dense]) -> dict[tuple[int, bool], _SharedPass]:
    """The passes that tests need, by scale and `flip`."""
    using: dict[tuple[int, bool], dict[Dense, None]] = {}
    for test in tests:
        for _, scale in test.nets_at_scales():
            using.setdefault((scale, test.flip), {})[test] = None
    return {views: _SharedPass(tuple(of_tests), *views) for views, of_tests in using.items()}


def _merging(
    test: Dense, passes: Mapping[int, _SharedPass]
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """From the rows of an image, one for each scale, to the merged boxes of a test, `(A, 4)`."""
    row = tf.TensorSpec((None, None, None), tf.float32)  # one trace for images of all sizes

    @tf.function(input_signature=[row] * len(passes), autograph=False)
    def merge(*rows: tf.Tensor) -> tf.Tensor:
        maps = dict(zip(passes, rows, strict=True))
        boxes = [
            passes[scale].scored_boxes(maps[scale], test, net)
            for net, scale in test.nets_at_scales()
        ]
        return best_boxes(tf.concat(boxes, 1), test.threshold)

    return lambda rows: merge(*rows).numpy()


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


def _as_tuple(nets: TrainedNet | Sequence[TrainedNet]) -> tuple[TrainedNet, ...]:
    return (nets,) if isinstance(nets, TrainedNet) else tuple(nets)
