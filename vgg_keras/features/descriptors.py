"""Descriptors: activations of a layer, averaged over positions, flips and scales (Appendix B)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_keras.errors import ArgumentError, SourceError
from vgg_keras.evaluation.cache import open_row_cache
from vgg_keras.evaluation.procedure import CROP_OF_PAPER, Pass, as_scales
from vgg_keras.evaluation.rows import RowFiller, RowPass, Table
from vgg_keras.features.extractor import PENULTIMATE, FeatureExtractor
from vgg_keras.features.procedure import SCALES, check_procedure
from vgg_keras.features.table import Features, side_by_side
from vgg_keras.forward import num_devices
from vgg_keras.metadata import join
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.checks import check_test_scale
from vgg_keras.pipelines.sources.cropped import CroppedSplit
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.trained import TrainedNet

log = logging.getLogger(__name__)

_AGGREGATED: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    # From the descriptors at each scale, (N, D).
    "mean": lambda tables: np.mean(tables, 0),
    "max": lambda tables: np.max(tables, 0),
    "stack": side_by_side,
}


def extract_features(
    nets: TrainedNet | FeatureExtractor | Sequence[TrainedNet | FeatureExtractor],
    data: Any,
    splits: str | Sequence[str] | None = None,
    *,
    layer: str = PENULTIMATE,
    region: str = "image",
    boxes_file: str | os.PathLike | None = None,
    test_scales: int | Sequence[int] | None = None,
    aggregate: str = "mean",
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> Features:
    """Computes descriptors of all images of a data set, with their names and labels (§B).

    Args:
        nets: one net or several. The descriptors of several nets are stacked, which is the late
            fusion of §B.
        data: a source or a split, whose labels are stored with the descriptors; or images without
            labels, in all forms that `vgg_keras.predict` takes, such as a folder.
        splits: names of the splits of a source; by default all of them.
        layer: name of the layer of a `TrainedNet` to use; a `FeatureExtractor` has its own.
        region: "image", "box", or "image+box" to stack both (Table 12).
        boxes_file: see `boxed_split`. The first box of an image is used.
        test_scales, aggregate, flip: see `compute_descriptors`.
        batch_size, on_bad_image, verbose: see `RowFiller`.
        cache_dir: see `compute_descriptors`.

    Raises:
        SourceError: there is no such split, no image can be read, or boxes are missing.
        ArgumentError: an argument has a value that is not allowed.
        BadImageError, OutOfMemoryError, WriteError: see `compute_descriptors`.

    Example:
        features = extract_features(TrainedNet.load("runs/d"), open_source("folder:caltech"))
        features.values, features.labels
    """
    extractors = _extractors(nets, layer)
    procedure: dict[str, Any] = {"test_scales": test_scales, "aggregate": aggregate, "flip": flip}
    members = [_member_metadata(one, region, **procedure) for one in extractors]
    running = {"batch_size": batch_size, "on_bad_image": on_bad_image, "verbose": verbose}
    options = {**procedure, **running, "cache_dir": cache_dir}
    source, names = _source_and_splits(data, splits)
    views = [(extractor, one) for extractor in extractors for one in region.split("+")]
    found = [_of_split(views, source, name, boxes_file, **options) for name in names]
    skipped = [name for one in found for name in one.skipped]
    metadata = {"data": source.spec, "splits": list(names)}
    if skipped:
        metadata["skipped"] = skipped
    return Features(
        [name for one in found for name in one.names],
        [split for split, one in zip(names, found, strict=True) for _ in one.names],
        np.concatenate([one.targets for one in found]),
        np.concatenate([one.values for one in found]),
        source.class_names,
        metadata | join([one for of_net in members for one in of_net]),
    )


def compute_descriptors(
    extractor: FeatureExtractor,
    split: Split,
    *,
    test_scales: int | Sequence[int] | None = None,
    aggregate: str = "mean",
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
    verbose: int | str = "auto",
) -> np.ndarray:
    """Computes descriptors of the images of a split with one net.

    Args:
        extractor: the net.
        split: images; their labels are not used.
        test_scales: Q, smaller side of the rescaled image, one or more; by default those of
            `default_scales`.
        aggregate: what is done with the descriptors of several scales: "mean", "max" for the
            maximum of each component, or "stack", each L2-normalised. The result is L2-normalised.
        flip: whether to average with the descriptors of the mirror images.
        batch_size, on_bad_image, verbose: see `RowFiller`.
        cache_dir: folder in which rows are cached, so that an interrupted extraction can continue.
            None: nothing is cached.

    Returns:
        float32 `(N, D)`, L2-normalised; rows of 0 if no unit is active, and rows of NaN for images
        that were skipped.

    Raises:
        BadImageError, ArgumentError, OutOfMemoryError: see `RowFiller.fill`; also an unknown
            `aggregate`, or a scale that is given twice.
        WriteError: the cache cannot be written.

    Example:
        compute_descriptors(FeatureExtractor.load("runs/d"), open_source("folder:photos")["all"])
    """
    scales = as_scales(test_scales) or default_scales(extractor)
    check_procedure(aggregate, scales)
    # RowFiller counts crops of min_side; batch_size counts crops of the net.
    factor = max(1, extractor.metadata["crop_size"] // extractor.min_side) ** 2
    filler = RowFiller(
        split, batch_size=batch_size * factor, on_bad_image=on_bad_image, verbose=verbose
    )
    folder = None if cache_dir is None else Path(cache_dir)
    images = split.fingerprint() if folder else ""
    tables = [
        _table(extractor, len(split), images, Pass("dense", scale, flip), folder)
        for scale in scales
    ]
    filler.fill(tables)
    return side_by_side([_AGGREGATED[aggregate]([table.rows for table in tables])])


def default_scales(extractor: FeatureExtractor) -> tuple[int, ...]:
    """The paper's test scales 256, 384 and 512, in proportion to the crop size of the net (§B)."""
    return tuple(round(scale * extractor.metadata["crop_size"] / CROP_OF_PAPER) for scale in SCALES)


def row_pass(extractor: FeatureExtractor, one: Pass) -> RowPass:
    """A pass whose rows are descriptors, float32 `(N, D)`, not normalised."""
    scorer = extractor.scorer(one.flip)
    return RowPass(
        name=str(one),
        views=one.views,
        test_scale=one.test_scale,
        flip=one.flip,
        crop_size=extractor.min_side,
        score=lambda views, _: scorer(views),
        precision=extractor.metadata["precision"],
        devices=num_devices(extractor.model),
    )


def _table(
    extractor: FeatureExtractor, count: int, images: str, one: Pass, folder: Path | None
) -> Table:
    """The descriptors at one scale, as far as they are cached; `images` is their fingerprint."""
    # Everything that decides the rows.
    decisive = [
        extractor.digest,
        images,
        extractor.mean,
        extractor.min_side,
        asdict(one),
    ]
    shape = count, extractor.model.output_shape[-1]
    rows = open_row_cache(folder, f"{one.views}-q{one.test_scale}", decisive, shape)
    return Table(rows, _is_finite, [row_pass(extractor, one)])


def _is_finite(rows: np.ndarray) -> np.ndarray:
    """Which descriptors are complete: one that a kill cut off ends in NaN."""
    return np.isfinite(rows).all(1)


def _extractors(
    nets: TrainedNet | FeatureExtractor | Sequence[TrainedNet | FeatureExtractor], layer: str
) -> list[FeatureExtractor]:
    given = [nets] if isinstance(nets, TrainedNet | FeatureExtractor) else list(nets)
    if not given:
        raise ArgumentError("nets must be one net or more. Received: none", "nets")
    return [
        FeatureExtractor.of_net(net, layer) if isinstance(net, TrainedNet) else net for net in given
    ]


def _source_and_splits(
    data: Any, splits: str | Sequence[str] | None
) -> tuple[Source, dict[str, Split]]:
    """The data as a source, and the splits to use by name.

    Raises:
        SourceError: a split is missing; this is said before the features of another are computed.
    """
    if not isinstance(data, Source):
        split = as_split(data)
        class_names = split.class_names
        if class_names is None:
            class_names = tuple(map(str, range(1 + split.all_labels().max(initial=-1))))
        spec = os.fspath(data) if isinstance(data, str | os.PathLike) else "own data"
        data = Source(spec, class_names, {split.name: split})
    names = (splits,) if isinstance(splits, str) else tuple(splits or data.splits)
    return data, {name: data[name] for name in names}


class _OfSplit(NamedTuple):
    names: list[str]
    targets: np.ndarray
    values: np.ndarray
    skipped: list[str]


def _of_split(
    views: Sequence[tuple[FeatureExtractor, str]],
    source: Source,
    name: str,
    boxes_file: str | os.PathLike | None,
    **options: Any,
) -> _OfSplit:
    """Descriptors of one split: each net and region, side by side."""
    split, skipped = source[name], []
    shown = {"image": split}
    if any(region == "box" for _, region in views):
        skip_bad = options["on_bad_image"] == "skip"
        boxed = boxed_split(source, split, boxes_file, skip_bad=skip_bad)
        split, skipped = boxed.split, list(boxed.skipped)
        shown = {"image": split, "box": CroppedSplit(name, split, boxed.boxes)}
    values = side_by_side(
        [compute_descriptors(extractor, shown[region], **options) for extractor, region in views]
    )
    is_read = ~np.isnan(values).any(1)
    if not is_read.any():
        raise SourceError(f"None of the {len(is_read)} images of {source.spec} can be read.")
    for image in split.names_of(np.flatnonzero(~is_read)):
        log.warning("skipped, cannot be read: %s", image)
        skipped.append(image)
    indices = np.flatnonzero(is_read)
    targets = split.all_targets(len(source.class_names))
    return _OfSplit(split.ids_of(indices), targets[indices], values[indices], skipped)


def _member_metadata(
    extractor: FeatureExtractor,
    region: str,
    *,
    test_scales: int | Sequence[int] | None,
    aggregate: str,
    flip: bool,
) -> list[dict[str, Any]]:
    """Everything that decides a descriptor, except the image, for each region.

    Raises:
        ArgumentError: an argument has a value that is not allowed.
    """
    scales = as_scales(test_scales) or default_scales(extractor)
    check_procedure(aggregate, scales, region)
    check_test_scale(min(scales), extractor.min_side)
    metadata = extractor.metadata | {
        "digest": extractor.digest,
        "test_scales": list(scales),
        "aggregate": aggregate,
        "flip": flip,
    }
    return [metadata | {"region": one} for one in region.split("+")]
