"""Scores nets on a split by the protocols of the paper."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vgg_keras.errors import SourceError
from vgg_keras.evaluation.posteriors import posteriors
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import Pass, Procedure, as_scales
from vgg_keras.facts import NetFacts
from vgg_keras.pipelines.checks import first_few, indices_of, normal_form
from vgg_keras.pipelines.screening import check_labels
from vgg_keras.pipelines.sources.held_out import take_fraction
from vgg_keras.pipelines.splits import VALIDATION, Source, Split
from vgg_keras.trained import TrainedNet

log = logging.getLogger(__name__)


def evaluate(
    net: TrainedNet,
    data: Source | Split,
    split: str = VALIDATION,
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
    """Computes the posteriors of a net for every image of a split (§3.2).

    Args:
        net: classification net, from `TrainedNet.load` or `TrainedNet.of_model`.
        data: a source, whose split named `split` is tested, or a split. The net must know all
            classes of the data; the data may have only some of the net's classes.
        split: name of the split.
        protocol, test_scales, multi_scale, flip, map_average: see `Procedure`.
        batch_size, on_bad_image, verbose: see `RowFiller`.
        cache_dir: folder in which rows are cached, so that an interrupted evaluation can continue.
            None: nothing is cached.

    Returns:
        `Predictions`, whose `result()` gives the errors in percent. With on_bad_image="skip" they
        are those of the images that can be read; `metadata["skipped"]` names the others.

    Raises:
        SourceError: the data have a class that the net does not know or an image without a label,
            or no image can be read.
        BadImageError, ArgumentError, OutOfMemoryError: see `RowFiller.fill`.
        WriteError: the cache cannot be written.

    Example:
        predictions = evaluate(TrainedNet.load("runs/d"), open_source("folder:ilsvrc"))
        print(predictions.result()["top5_error"])
    """
    procedure = Procedure(protocol, as_scales(test_scales), multi_scale, flip, map_average)
    images, where = split_of(data, split)
    labels = labels_for_net(net, data, split)
    _warn_of_training_images(net, where["data"])
    indices, rows, skipped = score(
        net,
        images,
        procedure.passes(net),
        batch_size=batch_size,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
        verbose=verbose,
    )
    if not len(indices):
        raise SourceError(f"None of the {len(images)} images of {where['data']} can be read.")
    metadata = conditions(net, procedure, skipped) | where
    ids = images.ids_of(indices)
    return Predictions(ids, labels[indices], rows, net.class_names, metadata)


def score(
    net: TrainedNet,
    images: Split,
    passes: Sequence[Pass],
    *,
    on_bad_image: str = "stop",
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Posteriors of the images that can be read; the names of the others are logged.

    Args:
        net: classification net.
        images: their labels are not used.
        passes: from `Procedure.passes`.
        on_bad_image, options: see `posteriors`.

    Returns:
        Indices of the M images that can be read, int64 `(M,)`; their posteriors, float32
        `(M, classes)`; names of the others, of which there are none unless on_bad_image="skip".

    Raises:
        BadImageError, ArgumentError, OutOfMemoryError, WriteError: see `posteriors`.
    """
    rows = posteriors(net, images, passes, on_bad_image=on_bad_image, **options)
    is_read = np.ones(len(images), bool)
    if on_bad_image == "skip":
        is_read = ~np.isnan(rows.max(1))  # NaN if a value is
    skipped = images.names_of(np.flatnonzero(~is_read))
    for name in skipped:
        log.warning("skipped, cannot be read: %s", name)
    return np.flatnonzero(is_read), rows[is_read] if skipped else rows, skipped


def conditions(net: NetFacts, procedure: Procedure, skipped: Sequence[str] = ()) -> dict[str, Any]:
    """Which net was tested and how; can be written as JSON."""
    found = {**net.metadata(), **procedure.metadata(net)}
    return found | ({"skipped": list(skipped)} if skipped else {})


def split_of(data: Source | Split, split: str) -> tuple[Split, dict[str, str]]:
    """The split to use, and its data and name for the metadata of a result."""
    if isinstance(data, Split):
        return data, {"data": "own data", "split": data.name}
    return data[split], {"data": data.spec, "split": split}


def _warn_of_training_images(net: NetFacts, data: str) -> None:
    """Warns if another fraction of the data was held out when the net was trained."""
    if net.recipe is None:
        return
    (here, fraction), (there, in_training) = (
        take_fraction(spec, spec) for spec in (data, net.recipe.data)
    )
    if here == there and fraction and in_training and fraction != in_training:
        log.warning(
            "%s was trained with val=%g of %s, so some of these images may be its training images. "
            "Test with the same fraction.",
            net.name,
            in_training,
            here,
        )


def labels_for_net(net: NetFacts, data: Source | Split, split: str) -> np.ndarray:
    """Labels of the images as indices into the classes of the net, matched by class name.

    Raises:
        SourceError: the data have a class that the net does not know, or an image has no label.
    """
    images, where = split_of(data, split)
    if data.class_names is None:
        raise SourceError(f"The split {images.name!r} must have class names: give it class_names.")
    class_names, names_of_net = (
        list(map(normal_form, names)) for names in (data.class_names, net.class_names)
    )
    unknown = set(class_names) - set(names_of_net)

    def missing(name: str) -> SourceError:
        return SourceError(
            f"{where['data']} has classes that {net.name} was not trained on: {len(unknown)} of "
            f"its {len(class_names)} are not among the {len(net.class_names)} of the net, the "
            f"first is {name!r}. Classes of the net: {first_few(list(map(repr, names_of_net)))}"
        )

    of_net = indices_of(class_names, names_of_net, missing)
    check_labels(images, class_names, where["data"])
    return of_net[images.all_labels()]
