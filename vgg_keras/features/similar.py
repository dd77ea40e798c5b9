"""Nearest neighbours of images by features."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_keras.errors import FeaturesError, WriteError
from vgg_keras.features.descriptors import compute_descriptors
from vgg_keras.features.extractor import FeatureExtractor, load_file
from vgg_keras.features.table import Features, side_by_side
from vgg_keras.metadata import net_name
from vgg_keras.pipelines.checks import indices_of
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources.own import as_split
from vgg_keras.pipelines.splits import Source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.report.figures import save_figure
from vgg_keras.report.sheets import INK, RIGHT, Section, Tile, image_sheet


class Neighbours(NamedTuple):
    """The images that are most similar to some query images.

    Attributes:
        indices: int64 `(queries, k)`, row indices of the features, the most similar first.
        similarities: float32 `(queries, k)`, cosines, from -1 to 1.

    Example:
        found = nearest(queries, features, k=5)
        [features.names[i] for i in found.indices[0]]
    """

    indices: np.ndarray
    similarities: np.ndarray


def nearest(queries: np.ndarray, features: Features, k: int = 5) -> Neighbours:
    """Finds the k most similar images by the cosine of descriptors. Ties keep index order.

    Args:
        queries: descriptors, float32 `(queries, D)`, L2-normalised.
        features: features of the images that are searched.
        k: number of neighbours; all images if there are fewer.

    Raises:
        FeaturesError: the queries have another number of dimensions.

    Example:
        features = Features.load("photos.parquet")
        nearest(query_descriptors(features, ["query.jpg"]), features).indices
    """
    if queries.shape[1] != features.values.shape[1]:
        raise FeaturesError(
            f"Descriptors of {queries.shape[1]} and of {features.values.shape[1]} numbers cannot "
            f"be compared."
        )
    cosines = queries @ features.values.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Neighbours(order, np.take_along_axis(cosines, order, axis=1))


def query_descriptors(
    features: Features,
    images: Sequence[str | os.PathLike],
    *,
    moved_to: Sequence[str | os.PathLike] = (),
    batch_size: int = 64,
    verbose: int | str = "auto",
) -> np.ndarray:
    """Computes descriptors of image files in the same way as those in `features`.

    Args:
        features: features whose `metadata` names the nets and the procedure.
        images: paths.
        moved_to: paths of the nets, if they have been moved, in the order of `features.members`.
        batch_size, verbose: see `RowFiller`.

    Returns:
        float32 `(len(images), D)`, L2-normalised.

    Raises:
        FeaturesError: a net is not the one that computed the features, or the features are of
            boxes.
        RunError, WeightsError: a net cannot be loaded.
        BadImageError, SourceError, OutOfMemoryError: see `compute_descriptors`.

    Example:
        features = Features.load("photos.parquet")
        queries = query_descriptors(features, ["query.jpg"])
    """
    split, members = as_split(images), features.members
    if moved_to and len(moved_to) != len(members):
        raise FeaturesError(
            f"moved_to must be one path for each of the {len(members)} nets that computed these "
            f"features. Received: {len(moved_to)} paths"
        )
    stacked = []
    for i, metadata in enumerate(members):
        if metadata.get("region") != "image":
            raise FeaturesError(
                "Query images are compared whole, but these features are of boxes too."
            )
        if missing := _NEEDED - metadata.keys():
            raise FeaturesError(
                f"The metadata of these features lack {', '.join(sorted(missing))}, so that the "
                f"features of other images cannot be computed in the same way."
            )
        extractor = _reloaded(metadata, moved_to[i] if moved_to else None)
        if extractor.digest != metadata["digest"]:
            raise FeaturesError(
                f"{net_name(extractor.metadata)} is not the net that computed these features."
            )
        procedure = {name: metadata[name] for name in ("test_scales", "aggregate", "flip")}
        stacked.append(
            compute_descriptors(
                extractor, split, batch_size=batch_size, verbose=verbose, **procedure
            )
        )
    return side_by_side(stacked)


_NEEDED = {"layer", "digest", "precision", "pool_rounding", "test_scales", "aggregate", "flip"}


def _reloaded(metadata: dict[str, Any], moved_to: str | os.PathLike | None) -> FeatureExtractor:
    """The net that `metadata` describes, from where it was or where it is now."""
    if "weights" not in metadata and "run" not in metadata and moved_to is None:
        raise FeaturesError(
            f"These features were computed by the model {net_name(metadata)!r} in memory. Save its "
            f"net and give the folder as moved_to."
        )
    where = Path(moved_to or net_name(metadata))
    of_net = {name: metadata[name] for name in ("layer", "precision", "pool_rounding")}
    if "weights" not in metadata:
        return FeatureExtractor.load(where, **of_net)
    # In features of earlier versions the mean of the file is under "statistics", and a net of
    # which none was given subtracts that of ILSVRC.
    mean = metadata.get("source_mean", metadata.get("statistics"))
    return load_file(
        where,
        net=metadata.get("net"),
        preprocessing=metadata.get("preprocessing"),
        mean=mean,
        subtracted=metadata.get("mean", mean or ILSVRC.mean),
        **of_net,
    )


def images_of(features: Features, source: Source, rows: Sequence[int]) -> dict[int, np.ndarray]:
    """Reads the images that some rows of the features belong to.

    Args:
        features: features of images of `source`.
        source: the data, from `open_source`.
        rows: row indices of the features.

    Returns:
        The images by row, uint8 `(H, W, 3)`.

    Raises:
        FeaturesError: the data have no such image.
        SourceError, BadImageError: the data have no such split, or an image cannot be read.
    """
    found: dict[int, np.ndarray] = {}
    for name in dict.fromkeys(features.splits[row] for row in rows):
        split = source[name]
        wanted = [row for row in rows if features.splits[row] == name]
        indices = indices_of(
            [features.names[row] for row in wanted],
            split.ids_of(range(len(split))),
            lambda image: FeaturesError(f"{source.spec} has no image {image}."),
        ).tolist()
        pixels = read_images(split, sorted(set(indices)))
        found |= {row: pixels[index] for row, index in zip(wanted, indices, strict=True)}
    return found


def draw_sheet(
    images: Sequence[str | os.PathLike],
    features: Features,
    neighbours: Neighbours,
    source: Source,
    path: str | os.PathLike,
) -> None:
    """Draws each query image in a row with its neighbours, their labels and similarities.

    The query is framed. If its class is known, the neighbours of this class are framed too, see
    `classes_of_query`.

    Args:
        images: paths of the query images.
        features: features of the images that were searched.
        neighbours: from `nearest`.
        source: data that the features were computed from.
        path: image file to write.

    Raises:
        FeaturesError, SourceError, BadImageError: an image is missing or cannot be read.
        WriteError: the file cannot be written.
    """
    split = as_split(images)
    queries = read_images(split, range(len(split)))
    others = images_of(features, source, sorted(set(neighbours.indices.ravel().tolist())))
    sections = []
    for i, (rows, cosines) in enumerate(zip(*neighbours, strict=True)):
        name = Path(images[i]).name
        classes = classes_of_query(images[i], features, rows[0], cosines[0])
        tiles = [Tile(queries[i], [name, ", ".join(classes)], _QUERY, _QUERY)]
        for row, cosine in zip(rows.tolist(), cosines, strict=True):
            labels = features.labels_of(row)
            frame = RIGHT if set(labels) & set(classes) else None
            lines = [f"{cosine:.3f}", ", ".join(labels)]
            tiles.append(Tile(others[row], lines, frame or INK, frame))
        sections.append(Section(tiles))
    figure = image_sheet(sections, _LEGEND, width=math.inf)
    try:
        save_figure(figure, path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error}") from error


_QUERY = "#1f5f99"
_LEGEND = "Blue: the query. Green: images of its class. Numbers: cosine similarity."
_THE_SAME = 0.9999  # cosine of an image with itself, in spite of rounding


def classes_of_query(
    path: str | os.PathLike, features: Features, nearest_row: int, cosine: float
) -> list[str]:
    """The classes of a query image, as far as they are known; else an empty list.

    If the query is one of the searched images, it has their labels. Otherwise its class is the name
    of its folder, if that is the name of a class.

    Args:
        path: path of the query image.
        features: features of the images that were searched.
        nearest_row: row index of the most similar image.
        cosine: its similarity.
    """
    if cosine > _THE_SAME:
        return features.labels_of(nearest_row)
    folder = Path(path).resolve().parent.name
    return [folder] if folder in features.class_names else []
