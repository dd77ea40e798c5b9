"""Posteriors of a net for images without labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vgg_keras.errors import SourceError
from vgg_keras.evaluation.evaluate import conditions, score
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import Procedure, as_scales
from vgg_keras.imagenet_utils import warn_of_unit_range
from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.sources.own import ArraySplit, as_split
from vgg_keras.trained import TrainedNet


def predict(
    net: TrainedNet,
    images: Any,
    *,
    protocol: str = "dense",
    test_scales: int | Sequence[int] | None = None,
    multi_scale: bool = False,
    flip: bool | None = None,
    map_average: str = "scores",
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Predictions:
    """Computes the posteriors of a net for images without labels (§3.2).

    Args:
        net: classification net, from `TrainedNet.load` or `TrainedNet.of_model`.
        images: one path or several, a folder, whose files are all taken, the bytes of one file or
            several (JPEG, PNG, GIF or BMP, inferred from the content), or uint8 arrays:
            `(H, W, 3)`, `(N, H, W, 3)` or a list of `(H, W, 3)`. Each image has a row in the
            result. A warning is logged if no value of the arrays is above 1. A split of a source
            is accepted too; its labels are not used.
        protocol, test_scales, multi_scale, flip, map_average: see `Procedure`.
        batch_size, on_bad_image, verbose: see `RowFiller`.
        cache_dir: see `evaluate`.

    Returns:
        `Predictions` with labels of -1. Their `names` are paths as they were given, or "image 0",
        "image 1", ...; those of a source start at its folder.

    Raises:
        SourceError: a path is not a file, or none of the images can be read.
        BadImageError, ArgumentError, OutOfMemoryError: see `RowFiller.fill`.
        WriteError: the cache cannot be written.

    Example:
        classes, posteriors = predict(TrainedNet.load("runs/d"), "photo.jpg").top(5)
    """
    procedure = Procedure(protocol, as_scales(test_scales), multi_scale, flip, map_average)
    split = as_split(images)
    if isinstance(split, ArraySplit):
        warn_of_unit_range([image for image in split.images if isinstance(image, np.ndarray)])
    indices, rows, skipped = score(
        net,
        split,
        procedure.passes(net),
        batch_size=batch_size,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
        verbose=verbose,
    )
    if not len(indices):
        raise SourceError(f"None of the images can be read: {first_few(skipped)}.")
    metadata = conditions(net, procedure, skipped)
    labels = np.full(len(indices), -1)
    return Predictions(split.ids_of(indices), labels, rows, net.class_names, metadata)
