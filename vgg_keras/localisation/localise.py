"""Boxes of localisation nets for a split with true boxes, by the two protocols of §A.1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.evaluation.evaluate import labels_for_net
from vgg_keras.evaluation.posteriors import row_pass
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.evaluation.rows import RowFiller, Table
from vgg_keras.localisation.answers import Dense, find_answers, is_complete, score_fn
from vgg_keras.localisation.dense import boxes_of_classes, centre_frames, make_box_fn
from vgg_keras.localisation.merging import MERGE_THRESHOLD
from vgg_keras.localisation.procedure import (
    check_localises,
    check_together,
    metadata_of_nets,
    scales_by_net,
)
from vgg_keras.localisation.results import Localised
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.boxes import Boxes, from_window
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pipelines.splits import VALIDATION, Source, Split
from vgg_keras.recipes import BAD_IMAGE_POLICIES
from vgg_keras.trained import TrainedNet


def centre_of_true_class(
    net: TrainedNet,
    data: Source,
    split: str = VALIDATION,
    *,
    test_scale: int | None = None,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    boxes: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Localised:
    """Finds the box of the true class in the central crop: the first protocol, "centre-gt".

    Args:
        net: localisation net.
        data, split, on_bad_image, boxes: see `localise`.
        test_scale: Q; by default the training scale.
        batch_size: number of crops that pass through the net together on a device.
        verbose: see `localise`.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        ArgumentError: the net gives no boxes, or the scale is below the crop size.

    Example:
        found = centre_of_true_class(TrainedNet.load("runs/boxes"), open_source("folder:ilsvrc"))
        print(found.result()["gt_class_localisation_error"])
    """
    check_localises(net)
    scales = scales_by_net([net], test_scale)
    images = _boxed_images(net, data, split, on_bad_image, boxes)
    predict_boxes, classes = make_box_fn(net), images.labels[:, None]
    score_crops = score_fn(
        net,
        lambda crops, classes: boxes_of_classes(predict_boxes(crops), classes)[:, 0, 0, 0],
        classes,
    )
    ((scale,),) = scales
    crops = row_pass(net, Pass("centre", scale, flip=False), score_crops)
    table = Table(np.full((len(classes), 4), np.nan, np.float32), is_complete, [crops])
    RowFiller(images.split, batch_size=batch_size, verbose=verbose).fill([table])
    frames = centre_frames(images.split, scale, net.architecture.crop_size)
    found = np.clip(from_window(table.rows, frames), 0, 1)[:, None]
    metadata = metadata_of_nets([net], scales) | {"protocol": "centre-gt"}
    return images.localised(classes, found, net.class_names, metadata)


def localise(
    nets: TrainedNet | Sequence[TrainedNet],
    data: Source,
    split: str = VALIDATION,
    *,
    classifiers: TrainedNet | Sequence[TrainedNet],
    test_scales: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    predictions: Predictions | None = None,
    threshold: float = MERGE_THRESHOLD,
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    boxes: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Localised:
    """Finds a box for each of the five most probable classes of each image (§A.1).

    Args:
        nets: localisation nets; the boxes of several are merged together (Table 9).
        data, split: source of images with boxes, and name of the split. The nets must know all
            classes of the data.
        classifiers: classification nets. The mean of their posteriors gives the five classes
            and rates each box.
        test_scales: see `scales_by_net`.
        predictions: posteriors for these images, from which the five classes are taken, such as
            a fusion of several nets (§4.5); by default the mean of the classifiers' own, dense.
        threshold: see `merge`.
        flip: whether mirror images are used too, as in classification (§3.2).
        batch_size, verbose: see `RowFiller`.
        on_bad_image: "stop", or "skip" to skip images whose boxes cannot be used.
        boxes: file of the true boxes; by default those that the data state, or for a `folder:`
            source the file in the recipe of the first net, see `boxed_split`.
        cache_dir: folder in which rows are cached, so that an interrupted call can continue.

    Raises:
        SourceError, BadImageError: the data cannot be used.
        PredictionsError: `predictions` are of other images or classes.
        ArgumentError: the nets do not fit together, or a scale is below the crop size.
        WriteError: the cache cannot be written.

    Example:
        net, classifier = TrainedNet.load("runs/boxes"), TrainedNet.load("runs/d")
        found = localise(net, open_source("cls-loc:ilsvrc"), classifiers=classifier)
    """
    test = Dense.checked(nets, classifiers, test_scales, threshold, flip)
    options: dict[str, Any] = {"cache_dir": cache_dir, "batch_size": batch_size, "verbose": verbose}
    (found,) = localise_together(
        [test], data, split, predictions, on_bad_image=on_bad_image, boxes=boxes, **options
    )
    return found


def localise_together(
    tests: Sequence[Dense],
    data: Source,
    split: str = VALIDATION,
    predictions: Predictions | None = None,
    *,
    on_bad_image: str = "stop",
    boxes: str | os.PathLike | None = None,
    **options: Any,
) -> list[Localised]:
    """Several tests as `localise` carries them out. They share passes over the images.

    Args:
        tests: from `Dense.checked`.
        data, split, predictions, on_bad_image, boxes: see `localise`.
        options: `batch_size`, `cache_dir` and `verbose` of `localise`.

    Raises:
        ArgumentError: the nets do not fit together.
        UserError: see `localise`.
    """
    nets = [net for test in tests for net in test.nets]
    check_together(nets, [net for test in tests for net in test.classifiers])
    images = _boxed_images(nets[0], data, split, on_bad_image, boxes)
    return [
        images.localised(found.classes, found.boxes, nets[0].class_names, test.metadata())
        for test, found in zip(
            tests, find_answers(tests, images.split, predictions, **options), strict=True
        )
    ]


@dataclass(frozen=True, eq=False)
class _BoxedImages:
    """Images with usable boxes.

    Attributes:
        split: the images.
        truth: their boxes.
        labels: their classes as indices into the classes of the net, int64 `(N,)`.
        origin: where they come from, for the metadata of the result.
    """

    split: Split
    truth: Boxes
    labels: np.ndarray
    origin: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.split.ids_of(range(len(self.split))))

    def localised(
        self,
        classes: np.ndarray,
        boxes: np.ndarray,
        class_names: tuple[str, ...],
        metadata: dict[str, Any],
    ) -> Localised:
        """The result for these images."""
        return Localised(
            self.names,
            self.labels,
            self.truth,
            classes,
            boxes,
            class_names,
            metadata | self.origin,
        )


def _boxed_images(
    net: TrainedNet,
    data: Source,
    split: str,
    on_bad_image: str,
    boxes: str | os.PathLike | None,
) -> _BoxedImages:
    """The images with usable boxes; the net must know their classes."""
    check_choice("on_bad_image", on_bad_image, BAD_IMAGE_POLICIES)
    labels = labels_for_net(net, data, split)
    file = boxes
    if file is None and data.spec.startswith("folder:"):  # other data state their own boxes
        file = getattr(net.recipe, "boxes", None) or None
    boxed = boxed_split(data, data[split], file, skip_bad=on_bad_image == "skip")
    names = data[split].names_of(range(len(labels)))
    is_usable = np.isin(names, list(boxed.skipped), invert=True)
    origin = {"data": data.spec, "split": split}
    return _BoxedImages(boxed.split, boxed.boxes, labels[is_usable], origin)
