"""Boxes of a split's images: checked, as shares of the image; and CSV files of boxes.

`boxed_split(source, source["train"])` gives the images that have usable boxes, with the boxes.
Files state pixels, counted from 0, with the first and the last pixel inside the box. An image may
have several boxes.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.checks import first_few, normal_form
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.images import upright_size
from vgg_keras.pipelines.splits import VALIDATION, VALIDATION_NAMES, Source, Split, StatedBoxes

log = logging.getLogger(__name__)

BOXES_FILE = "boxes.csv"
_COLUMNS = ("split", "class", "file", "x_min", "y_min", "x_max", "y_max")
_ROUNDING = 1.5  # pixels that a box may extend beyond its image: counted from 1, or rounded


class BoxedSplit(NamedTuple):
    """Images with boxes.

    Attributes:
        split: the images; each has at least one usable box.
        boxes: the boxes of these images.
        skipped: names of the skipped images, with the reason for each.
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
    """Selects the images of a split that have usable boxes.

    ```python
    data = open_source("folder:ilsvrc")  # with ilsvrc/boxes.csv
    images, boxes, skipped = boxed_split(data, data["train"], skip_bad=True)
    ```

    An image is unusable if one of its boxes is not four finite numbers, has its last pixel before
    the first, or is outside the image.

    Args:
        source: from `open_source`.
        split: one of its splits, or some images of one.
        boxes_file: CSV file of the boxes of image files in class folders; by default the boxes
            that the split states, which for a `folder:` source are in its `boxes.csv`.
        skip_bad: skip images without usable boxes instead of raising an error.

    Raises:
        SourceError: the data have no boxes, or no image has a usable one. If `skip_bad` is False,
            also: an image has no usable box. The message names the image and the problem.
    """
    boxes_of_images, in_pixels = (
        split.stated_boxes()
        if boxes_file is None
        else StatedBoxes(read_boxes_file(boxes_file, split), True)
    )
    sizes = upright_sizes(split) if in_pixels else np.ones((len(split), 2), np.int64)
    kept, problems = [], {}
    for i, size in enumerate(sizes):
        boxes, problem = _usable(boxes_of_images[i], size, in_pixels)
        if boxes is None:
            problems[i] = problem
        else:
            kept.append(boxes)
    skipped = dict(zip(split.names_of(problems), problems.values(), strict=True))
    if skipped and not skip_bad:
        first = next(iter(skipped))
        raise SourceError(
            f"{len(skipped)} of the {len(split)} images of {source.spec} have no usable box; "
            f"{first}: {skipped[first]}. Correct the boxes, or skip these images with "
            f'on_bad_image="skip".'
        )
    if not kept:
        raise SourceError(f"No image of {source.spec}, {split.name}, has a usable box.")
    for name, problem in skipped.items():
        log.warning("skipped, %s: %s", problem, name)
    return BoxedSplit(split.without(list(skipped)), Boxes.of_images(kept), skipped)


def read_boxes_file(path: str | os.PathLike, split: Split) -> list[list[list[float]]]:
    """Reads the boxes of image files in class folders from a CSV file.

    The columns are split, class, file, x_min, y_min, x_max, y_max. `wnid` is accepted for `class`,
    and `validation` and `valid` for the split `val`. `file` is the path below the class folder, or
    below the last folder of that name. The file is UTF-8 or UTF-16, with commas, semicolons or
    tabs.

    Args:
        path: the CSV file.
        split: the images, whose names end in CLASS/FILE. Rows of other splits are ignored.

    Returns:
        One list of boxes for each image, as the file states them; NaN for what is not a number.

    Raises:
        SourceError: the file is missing, is not such a file, or has rows that two images share.
    """
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    name = split.origin or split.name
    split_names = VALIDATION_NAMES if name == VALIDATION else (name,)
    for row in _read_rows(path):
        if row["split"] in split_names:
            key = normal_form(row["class"] or ""), normal_form(row["file"] or "")
            found[key].append([float_or_nan(row[column]) for column in _COLUMNS[3:]])
    keys = _class_and_file(split)
    shared = next((key for key, count in Counter(keys).items() if count > 1 and key in found), None)
    if shared:
        names = split.names_of([i for i, key in enumerate(keys) if key == shared])
        raise SourceError(
            f"{path} has boxes of {shared[1]!r} of the class {shared[0]!r}, which several images "
            f"can be: {first_few(list(map(ascii, names)))}. Rename all but one."
        )
    unknown = set(found) - set(keys)
    if unknown:
        log.warning("%s has boxes of %d images that do not exist", path, len(unknown))
    return [found.get(key, []) for key in keys]


def _read_rows(path: str | os.PathLike) -> Iterator[dict[str, str]]:
    """Rows of a CSV file, as Excel and others save it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(
            f"The boxes are expected in {path}: {error}. Give the path of another file as "
            f"boxes_file."
        ) from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} must be encoded in UTF-8 or UTF-16; Excel saves it as 'CSV UTF-8'. "
            f"Received: {error}"
        ) from error
    header = text[: text.find("\n")]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True
    )
    try:
        names = ["class" if name == "wnid" else name for name in map(str.strip, next(reader, []))]
        if not set(_COLUMNS) <= set(names):
            raise SourceError(
                f"{path} must have the columns {','.join(_COLUMNS)}. Received: {','.join(names)!a}"
            )
        for row in reader:
            yield dict(itertools.zip_longest(names, row[: len(names)]))
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}, cannot be read: {error}.") from error


def _class_and_file(split: Split) -> list[tuple[str, str]]:
    """Class of each image, and its path below the class folder."""
    classes = dict(enumerate(map(normal_form, split.class_names or ())))
    keys = []
    for label, name in zip(split.all_labels(), split.names_of(range(len(split))), strict=True):
        path = normal_form(name)
        class_name = classes.get(int(label)) or "/"  # which is never between two "/"
        _, is_below, file = path.rpartition(f"/{class_name}/")
        keys.append((class_name, file) if is_below else (Path(path).parent.name, Path(path).name))
    return keys


def float_or_nan(text: str | None) -> float:
    """The number that a text states, or NaN if it does not state one."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _usable(
    boxes: Sequence[Sequence[float]], size: np.ndarray, in_pixels: bool
) -> tuple[np.ndarray | None, str]:
    """Boxes of an image as shares, clipped at its borders; or None and the problem."""
    if not len(boxes):
        return None, "it has no box"
    height, width = size
    if height < 1:
        return None, "the image cannot be read"
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
            return None, f"its box is outside the {width} x {height} image: {stated}"
    return np.clip(edges, 0, 1), ""


def upright_sizes(split: Split) -> np.ndarray:
    """Heights and widths of the images, int64 `(N, 2)`; 0 if an image cannot be read.

    Of a JPEG or PNG only the header is decoded.
    """
    examples = split.in_order().map(
        lambda e: (e["index"], upright_size(split.read(e))), num_parallel_calls=tf.data.AUTOTUNE
    )
    sizes = np.zeros((len(split), 2), np.int64)
    for index, size in examples.ignore_errors().as_numpy_iterator():
        sizes[index] = size
    return sizes
