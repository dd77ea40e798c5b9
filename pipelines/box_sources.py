"""Where boxes come from: a CSV file beside class folders, ILSVRC's annotations, TFDS features.

`boxed_split(source, source["train"])` gives the pictures that have usable boxes, and the boxes.
Files state pixels, counted from 0, first and last ones included; a picture may have several.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.cls_loc_source import annotation_of, number, objects_of
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.images import upright_size
from vgg_keras.pipelines.sources import FolderSplit, Source, Split
from vgg_keras.pipelines.voc_action_source import PeopleSplit

log = logging.getLogger(__name__)

BOXES_FILE = "boxes.csv"
_COLUMNS = ("split", "class", "file", "x_min", "y_min", "x_max", "y_max")
_ROUNDING = 1.5  # pixels that a box may reach beyond its picture: counted from 1, or rounded
_Lists = list[list[list[float]]]  # for each picture, its boxes


class BoxedSplit(NamedTuple):
    """Pictures with boxes.

    Attributes:
        split: the pictures, each with one usable box at least.
        boxes: theirs.
        skipped: names of the pictures that have none, and why.
    """

    split: Split
    boxes: Boxes
    skipped: dict[str, str]


def boxed_split(
    source: Source,
    split: Split,
    boxes_file: str | os.PathLike | None = None,
    *,
    skip_bad: bool = False,
) -> BoxedSplit:
    """The pictures of a split that have usable boxes.

    A picture is left out whole if one of its boxes is unusable: not four finite numbers, a last
    pixel before the first, or outside the picture.

    Args:
        source: from `open_source`.
        split: one of its splits, or part of one.
        boxes_file: of a `folder:` source; by default `boxes.csv` in its folder.
        skip_bad: leave such pictures out, in place of raising.

    Raises:
        SourceError: the data have no boxes; or one is missing or unusable, and `skip_bad` is
            False: the message names the picture and what is wrong.
    """
    lists, in_pixels = _read(source, split, boxes_file)
    sizes = _sizes(split) if in_pixels else np.ones((len(split), 2), np.int64)
    kept, problems = [], {}
    for i, size in enumerate(sizes):
        boxes, problem = _usable(lists[i], size, in_pixels)
        if problem:
            problems[i] = problem
        else:
            kept.append(boxes)
    names = dict(zip(split.names_of(problems), problems.values(), strict=True))
    if names and not skip_bad:
        first = next(iter(names))
        raise SourceError(
            f"{len(names)} of the {len(split)} pictures of {source.spec} have no usable box; "
            f"{first}: {names[first]}. Mend them, or leave them out with --on-bad-image skip."
        )
    if not kept:
        raise SourceError(f"No picture of {source.spec}, {split.name}, has a usable box.")
    for picture, problem in names.items():
        log.warning("skipped, %s: %s", problem, picture)
    return BoxedSplit(split.without(list(names)), Boxes.of_pictures(kept), names)


def _usable(boxes: Sequence[Sequence[float]], size, in_pixels: bool):
    """Boxes of a picture as shares, cut at its borders; or what is wrong with them."""
    if not len(boxes):
        return None, "it has no box"
    height, width = size
    if height < 1:
        return None, "the picture cannot be read"
    try:
        given = np.array(boxes, np.float64).reshape(-1, 4)
    except ValueError:
        return None, f"its box is not four numbers: {boxes}"
    sides = np.array([width, height, width, height])
    edges = (given + [0, 0, 1, 1]) / sides if in_pixels else given
    slack = _ROUNDING / sides if in_pixels else 1e-3
    for box, stated in zip(edges, given.tolist(), strict=True):
        if not np.isfinite(box).all():
            return None, f"its box is not finite: {stated}"
        if (box[2:] <= box[:2]).any():
            return None, f"its box ends before it begins: {stated}"
        if (box < -slack).any() or (box > 1 + slack).any():
            return None, f"its box lies outside the {width} x {height} picture: {stated}"
    return np.clip(edges, 0, 1), None


def _sizes(split: Split) -> np.ndarray:
    """Heights and widths by the files' headers, int64 `(N, 2)`, 0 where a file has none."""
    examples = split.in_order().map(
        lambda e: (e["index"], upright_size(split.read(e))), num_parallel_calls=tf.data.AUTOTUNE
    )
    sizes = np.zeros((len(split), 2), np.int64)
    for index, size in examples.ignore_errors().as_numpy_iterator():
        sizes[index] = size
    return sizes


def _read(
    source: Source, split: Split, boxes_file: str | os.PathLike | None
) -> tuple[_Lists, bool]:
    """Boxes as they are stated, a list a picture, and whether in pixels (or else in shares)."""
    if isinstance(split, PeopleSplit):
        return split.stated[:, None].tolist(), True
    if not isinstance(split, FolderSplit):
        from vgg_keras.pipelines.tfds_source import TfdsSplit, read_tfds_boxes

        if not isinstance(split, TfdsSplit):
            raise SourceError(f"{source.spec} has no boxes.")
        return read_tfds_boxes(source.spec, split), False
    if source.spec.startswith("cls-loc:"):
        classes = [source.class_names[label] for label in split.labels]
        files = [annotation_of(Path(path)) for path in split.paths]
        return [objects_of(f, c) for f, c in zip(files, classes, strict=True)], True
    return _of_csv(split, Path(boxes_file or Path(split.root) / BOXES_FILE)), True


def _of_csv(split: FolderSplit, file: Path) -> _Lists:
    found: Mapping[tuple[str, str], list] = defaultdict(list)
    try:
        with open(file, newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            names = ["class" if name == "wnid" else name for name in reader.fieldnames or ()]
            if not set(_COLUMNS) <= set(names):
                raise SourceError(
                    f"{file} must have the columns {','.join(_COLUMNS)}. Received: "
                    f"{','.join(names)}"
                )
            reader.fieldnames = names
            for row in reader:
                if row["split"] == split.name:
                    found[row["class"], row["file"]].append([number(row[c]) for c in _COLUMNS[3:]])
    except OSError as error:
        raise SourceError(
            f"Boxes of {split.root} are expected in {file}: {error}. Name another with --boxes."
        ) from error
    keys = [(Path(path).parent.name, Path(path).name) for path in split.paths]
    unknown = set(found) - set(keys)
    if unknown:
        log.warning("%s: boxes of %d pictures that are not there", file, len(unknown))
    return [found.get(key, []) for key in keys]
