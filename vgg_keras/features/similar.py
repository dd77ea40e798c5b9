"""Nearest neighbours of pictures by features."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_keras.errors import FeaturesError
from vgg_keras.features.descriptors import describe
from vgg_keras.features.nets import FeatureExtractor
from vgg_keras.features.table import Features, side_by_side
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.pipelines.statistics import ILSVRC


class Similar(NamedTuple):
    """What is most like some pictures.

    Attributes:
        places: int64 `(pictures, k)`, rows of the features, the most similar first.
        similarities: float32 `(pictures, k)`, cosines, -1 to 1.
    """

    places: np.ndarray
    similarities: np.ndarray


def nearest(queries: np.ndarray, features: Features, k: int = 5) -> Similar:
    """The k most similar pictures by the cosine of their descriptors, of equals the first.

    Args:
        queries: float32 `(pictures, D)`, rows of length 1.
        features: where to look.
        k: at most the number of pictures counts.

    Raises:
        FeaturesError: the queries are of other dimensions.
    """
    if queries.shape[1] != features.values.shape[1]:
        raise FeaturesError(
            f"Descriptors of {queries.shape[1]} and of {features.values.shape[1]} numbers cannot "
            f"be compared."
        )
    cosines = queries @ features.values.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Similar(order, np.take_along_axis(cosines, order, axis=1))


def describe_like(
    features: Features,
    images: Sequence[str | os.PathLike],
    *,
    moved_to: Sequence[str | os.PathLike] = (),
    batch_size: int = 64,
) -> np.ndarray:
    """Descriptors of picture files, made as those in `features` were.

    Args:
        features: whose `metadata` says by which nets and how.
        images: paths.
        moved_to: where the runs or weights files are now, in the features' order.
        batch_size: see `PassRunner`.

    Returns:
        float32 `(len(images), D)`, rows of length 1.

    Raises:
        FeaturesError: a net is not the one that made the features, or they are of boxes.
        BadImageError, SourceError, ValueError, MemoryError: a picture or net cannot be used.
    """
    pictures, parts = as_split(images), []
    members = features.members
    if moved_to and len(moved_to) != len(members):
        raise FeaturesError(
            f"{len(members)} nets made these features. Received: {len(moved_to)} places of them"
        )
    for i, metadata in enumerate(members):
        if metadata.get("region") != "image":
            raise FeaturesError("Pictures are compared whole; these features are of boxes too.")
        net = _describer(metadata, moved_to[i] if moved_to else None)
        how = {name: metadata[name] for name in ("test_scales", "aggregate", "flip")}
        if net.digest != metadata["digest"]:
            place = metadata.get("run") or metadata["weights"]
            raise FeaturesError(f"{place} is not the net that made these features any more.")
        parts.append(describe(net, pictures, batch_size=batch_size, **how))
    return side_by_side(parts)


def _describer(metadata: dict[str, Any], place: str | os.PathLike | None) -> FeatureExtractor:
    """The net that `metadata` tells of, from where it was or is now."""
    layer, rounding = metadata["layer"], metadata["pool_rounding"]
    if "run" in metadata:
        return FeatureExtractor.of_run(
            place or metadata["run"], layer, precision=metadata["precision"], pool_rounding=rounding
        )
    mean = metadata.get("statistics")
    return FeatureExtractor.of_weights(
        place or metadata["weights"],
        metadata["net"],
        layer,
        preprocessing=metadata.get("preprocessing"),
        statistics=mean and dataclasses.replace(ILSVRC, mean=tuple(mean)),
        pool_rounding=rounding,
    )


def pictures_of(features: Features, source: Source, rows: Sequence[int]) -> dict[int, np.ndarray]:
    """The pictures behind some rows: uint8 `(H, W, 3)` by row.

    Args:
        features: made of `source`.
        source: the data, from `open_source`.

    Raises:
        FeaturesError: the data have no such picture.
    """
    found: dict[int, np.ndarray] = {}
    for name in dict.fromkeys(features.splits[row] for row in rows):
        split = source[name]
        places = {key: i for i, key in enumerate(split.ids_of(range(len(split))))}
        wanted = [row for row in rows if features.splits[row] == name]
        missing = [features.names[row] for row in wanted if features.names[row] not in places]
        if missing:
            raise FeaturesError(f"{source.spec} has no picture {missing[0]}.")
        pixels = read_images(split, sorted({places[features.names[row]] for row in wanted}))
        found |= {row: pixels[places[features.names[row]]] for row in wanted}
    return found


def draw_sheet(
    images: Sequence[str | os.PathLike],
    features: Features,
    similar: Similar,
    source: Source,
    path: str | os.PathLike,
) -> None:
    """Writes a picture: each image in a row with what is like it, labels and similarities.

    Raises:
        FeaturesError, SourceError, BadImageError: a picture is not there.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    from vgg_keras.pipelines.files import atomic_path

    split: Split = as_split(images)
    queries = read_images(split, range(len(split)))
    others = pictures_of(features, source, sorted(set(similar.places.ravel().tolist())))
    columns = 1 + similar.places.shape[1]
    figure = Figure(figsize=(2 * columns, 2.3 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(axes):
        _show(row[0], queries[i], Path(images[i]).name)
        for axis, place, cosine in zip(
            row[1:], similar.places[i], similar.similarities[i], strict=True
        ):
            labels = ", ".join(features.labels_of(place))
            _show(axis, others[place], f"{labels}\n{cosine:.3f}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _show(axis, pixels: np.ndarray, title: str) -> None:
    axis.imshow(pixels)
    axis.set_title(title.replace("$", r"\$"), fontsize=8)
    axis.axis("off")
