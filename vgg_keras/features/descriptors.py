"""Descriptors of pictures: activations of a layer, pooled over places, flips and scales (§B)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.passes import PassRunner
from vgg_keras.evaluation.procedure import CROP_OF_PAPER, Pass
from vgg_keras.features.nets import FeatureExtractor
from vgg_keras.features.procedure import SCALES, check_procedure
from vgg_keras.features.table import Features, side_by_side
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.checks import check_test_scale
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.cropped import CroppedSplit
from vgg_keras.pipelines.splits import Source, Split

log = logging.getLogger(__name__)

_POOLED: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    # From the descriptors at each scale, (N, D).
    "mean": lambda tables: np.mean(tables, 0),
    "max": lambda tables: np.max(tables, 0),
    "stack": side_by_side,
}


class DescriptorRunner(PassRunner):
    """A net up to a layer that looks at a split; its rows are descriptors of one scale, float32
    `(N, D)`: activations averaged over places and the mirror image.

    Args:
        net: what describes.
        split, options: see `PassRunner`.
    """

    def __init__(self, net: FeatureExtractor, split: Split, **options):
        super().__init__(net.model, split, crop_size=net.smallest, mean=net.mean, **options)
        self.net = net

    @staticmethod
    def _done(table: np.ndarray) -> np.ndarray:
        """Which rows are there whole: one cut off by a kill ends in NaN."""
        return ~np.isnan(table).any(1)

    def _scorer(self, flip: bool, map_average: str) -> Callable[[tf.Tensor], tf.Tensor]:
        return self.net.look(flip)

    @property
    def _digest(self) -> str:
        return self.net.digest


def describe(
    net: FeatureExtractor,
    pictures: Split,
    *,
    test_scales: Sequence[int] | None = None,
    aggregate: str = "mean",
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
) -> np.ndarray:
    """Descriptors of pictures by one net; rows of NaN for those that cannot be read, with "skip".

    The descriptors of all scales are averaged, or their greatest values taken, or they are
    stacked, each of length 1; the result has length 1.

    Args:
        net: what describes.
        pictures: labels are not looked at.
        test_scales: Q, smaller side of the rescaled picture; by default those of `scales_of`.
        aggregate: "mean", "max" or "stack".
        flip: average with the mirror image's.
        batch_size, on_bad_image, cache_dir: see `PassRunner`.

    Returns:
        float32 `(N, D)`; rows of length 1, or 0 where no unit is active.

    Raises:
        BadImageError, MemoryError, OSError: see `PassRunner.tables`.
        ValueError: an unknown aggregate, a scale twice or too small.
    """
    scales = tuple(test_scales or scales_of(net))
    check_procedure(aggregate, scales)
    crop = net.metadata["crop_size"]
    runner = DescriptorRunner(
        net,
        pictures,
        batch_size=batch_size * max(1, crop // net.smallest) ** 2,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
    )
    tables = runner.tables([Pass("dense", scale, flip) for scale in scales])
    return side_by_side([_POOLED[aggregate](tables)])


def scales_of(net: FeatureExtractor) -> tuple[int, ...]:
    """The paper's 256, 384 and 512, in proportion to the net's crops (§B)."""
    return tuple(round(scale * net.metadata["crop_size"] / CROP_OF_PAPER) for scale in SCALES)


def extract(
    nets: Sequence[FeatureExtractor],
    source: Source,
    splits: Sequence[str] | None = None,
    *,
    region: str = "image",
    boxes_file: str | os.PathLike | None = None,
    test_scales: Sequence[int] | None = None,
    aggregate: str = "mean",
    flip: bool = True,
    batch_size: int = 64,
    on_bad_image: str = "stop",
    cache_dir: str | os.PathLike | None = None,
) -> Features:
    """Descriptors of a data set's pictures, with names and labels (§B).

    Args:
        nets: what describes; the descriptors of several are stacked, the late fusion of §B.
        source: from `open_source`.
        splits: their names; all by default.
        region: "image", "box", or "image+box", both stacked (Table 12).
        boxes_file: see `boxed_split`. Of several boxes the first one counts.
        test_scales, aggregate, flip: see `describe`.
        batch_size, on_bad_image, cache_dir: see `PassRunner`; none changes the result.

    Raises:
        SourceError: no such split, no picture is readable, or boxes are missing.
        BadImageError, MemoryError, OSError, ValueError: see `describe`.
    """
    if not nets:
        raise ValueError("One net or more are needed. Received: none")
    parts = [(net, part) for net in nets for part in region.split("+")]
    options: dict[str, Any] = {"aggregate": aggregate, "flip": flip}
    members = []
    for net, part in parts:
        scales = tuple(test_scales or scales_of(net))
        check_procedure(aggregate, scales, region)
        check_test_scale(min(scales), net.smallest)
        members.append(about_of(net, part, test_scales=scales, **options))
    options |= {"batch_size": batch_size, "on_bad_image": on_bad_image, "cache_dir": cache_dir}
    names = tuple(splits or source.splits)
    found = [
        _of_split(parts, source, name, boxes_file, test_scales=test_scales, **options)
        for name in names
    ]
    skipped = [name for one in found for name in one.skipped]
    metadata = {"data": source.spec, "splits": list(names)} | (
        {"skipped": skipped} if skipped else {}
    )
    return Features(
        [name for one in found for name in one.names],
        [split for split, one in zip(names, found, strict=True) for _ in one.names],
        np.concatenate([one.targets for one in found]),
        np.concatenate([one.values for one in found]),
        source.class_names,
        metadata | (members[0] if len(members) == 1 else {"members": members}),
    )


class _OfSplit(NamedTuple):
    names: list[str]
    targets: np.ndarray
    values: np.ndarray
    skipped: list[str]


def _of_split(
    parts: Sequence[tuple[FeatureExtractor, str]],
    source: Source,
    split: str,
    boxes_file: str | os.PathLike | None,
    **options,
) -> _OfSplit:
    """Descriptors of one split by each net of each region, side by side."""
    pictures, skipped = source[split], []
    views = {"image": pictures}
    if any(part == "box" for _, part in parts):
        skip_bad = options["on_bad_image"] == "skip"
        boxed = boxed_split(source, pictures, boxes_file, skip_bad=skip_bad)
        pictures, skipped = boxed.split, list(boxed.skipped)
        views = {"image": pictures, "box": CroppedSplit(split, pictures, boxed.boxes)}
    values = side_by_side([describe(net, views[part], **options) for net, part in parts])
    read = ~np.isnan(values).any(1)
    if not read.any():
        raise SourceError(f"None of the {len(read)} pictures of {source.spec} can be read.")
    for name in pictures.names_of(np.flatnonzero(~read)):
        log.warning("skipped, cannot be read: %s", name)
        skipped.append(name)
    places = np.flatnonzero(read)
    targets = pictures.all_targets(len(source.class_names))
    return _OfSplit(pictures.ids_of(places), targets[places], values[places], skipped)


def about_of(
    net: FeatureExtractor,
    region: str = "image",
    *,
    test_scales: Sequence[int],
    aggregate: str,
    flip: bool,
) -> dict[str, Any]:
    """All that decides a descriptor but the picture; can be written as JSON."""
    return net.metadata | {
        "digest": net.digest,
        "test_scales": list(test_scales),
        "aggregate": aggregate,
        "flip": flip,
        "region": region,
    }
