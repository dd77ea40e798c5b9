"""Classes of files whose records state labels: their names, and labels from 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.image_index import IndexedFile
from vgg_keras.pipelines.sources.listing import text_of_path
from vgg_keras.pipelines.splits import TRAIN, VALIDATION

_MOST_DIGITS = 18  # of a label; fits into 64 bits


class Classes(NamedTuple):
    """The classes of a data set, in the order of the labels.

    Attributes:
        names: their names.
        stated: how the files state each class: by a number, or by a name.
    """

    names: tuple[str, ...]
    stated: tuple[int, ...] | tuple[str, ...]

    def labels(self, table: pa.Table) -> pa.Array:
        """Labels from 0 of the images of an index, int64; -1 if unknown."""
        by_name = bool(self.stated) and isinstance(self.stated[0], str)
        column = table["class_name" if by_name else "label"]
        found = pc.index_in(column, pa.array(self.stated, column.type))
        return pc.cast(pc.fill_null(found, -1), pa.int64())


# The first image of each label and name of a class that the files state.
_Stated = Mapping[tuple[int, str], str]


def find_classes(
    spec: str, splits: Mapping[str, Sequence[IndexedFile]], labels_file: Path
) -> Classes:
    """Finds the classes of all images.

    Records name their classes, or the labels file names them by lines `NUMBER:NAME`, or labels are
    all numbers from 0 or 1 to the largest and are their own names.

    Args:
        spec: the data, for messages.
        splits: the files of each split.
        labels_file: the labels file, which need not exist.

    Raises:
        SourceError: labels contradict each other, have no name, or are in the validation images
            only. The message names an image.
    """
    by_split = {name: _stated(files) for name, files in splits.items()}
    every: dict[tuple[int, str], str] = {}
    for found in by_split.values():
        every = {**found, **every}
    numbered = {pair: image for pair, image in every.items() if pair[0] >= 0}
    if len(numbered) < len(every):
        if numbered:
            (image, *_), (other, *_) = [
                [i for p, i in every.items() if (p in numbered) == is_numbered]
                for is_numbered in (True, False)
            ]
            raise SourceError(
                f"{spec}: labels must be either numbers or names. Received: the number of {image} "
                f"and the name of {other}"
            )
        names = tuple(sorted({name for _, name in every}))
        classes = Classes(names, names)
    else:
        classes = _numbered(spec, numbered, labels_file)
    if {TRAIN, VALIDATION} <= by_split.keys():
        key = 0 if numbered else 1
        known = {pair[key] for pair in by_split[TRAIN]}
        for pair, image in by_split[VALIDATION].items():
            if pair[key] not in known:
                raise SourceError(
                    f"{spec}: {image} has the label {pair[key]!r}, which no training image has."
                )
    return classes


def _stated(files: Sequence[IndexedFile]) -> dict[tuple[int, str], str]:
    """What the files state of the classes of their images."""
    found: dict[tuple[int, str], str] = {}
    pairs = pa.concat_tables([file.table.select(["label", "class_name"]) for file in files])
    starts = np.cumsum([0, *(len(file.table) for file in files)])
    rows = pairs.append_column("row", pa.array(np.arange(len(pairs))))
    first = rows.group_by(["label", "class_name"]).aggregate([("row", "min")]).sort_by("row_min")
    for pair in first.to_pylist():
        i = int(np.searchsorted(starts, pair["row_min"], "right")) - 1
        name = files[i].table["name"][int(pair["row_min"] - starts[i])].as_py()
        found[pair["label"], pair["class_name"]] = f"{text_of_path(files[i].path)}/{name}"
    return {pair: image for pair, image in found.items() if pair != (-1, "")}


def _numbered(spec: str, stated: _Stated, labels_file: Path) -> Classes:
    names = {} if all(name for _, name in stated) else _listed(labels_file)
    first: dict[int | str, tuple[int, str, str]] = {}
    for (label, name), image in stated.items():
        for key in (label, name) if name else ():
            label_before, name_before, image_before = first.setdefault(key, (label, name, image))
            if (label_before, name_before) != (label, name):
                raise SourceError(
                    f"{spec}: a label must belong to one class. Received: {label} is {name!r} for "
                    f"{image}, and {label_before} is {name_before!r} for {image_before}"
                )
        names[label] = name or names.get(label, "")
    labels = sorted({label for label, _ in stated})
    if not any(names.get(label) for label in labels) and labels:
        expected = range(min(labels[0], 1), min(labels[0], 1) + len(labels))
        wrong = [label for label, number in zip(labels, expected, strict=True) if label != number]
        names = {label: str(label) for label in labels if label not in wrong}
    unnamed = [label for label in labels if not names.get(label)]
    if unnamed:
        raise SourceError(
            f"{spec}: labels without names must be all numbers from 0 or 1 to the largest. Name "
            f"others in {labels_file}, one line {unnamed[0]}:NAME for each. Received: the label "
            f"{unnamed[0]} for {stated[unnamed[0], '']}"
        )
    class_names = tuple(names[label] for label in labels)
    if len(set(class_names)) < len(class_names):
        raise SourceError(f"{labels_file} must give each label another name.")
    return Classes(class_names, tuple(labels))


def _listed(file: Path) -> dict[int, str]:
    """The names in a labels file, as TF-Slim writes it."""
    if not file.is_file():
        return {}
    names = {}
    for line in file.read_text("utf-8", "replace").splitlines():
        number, _, name = line.partition(":")
        if line.strip():
            number = number.strip()
            if not number.isdecimal() or len(number) > _MOST_DIGITS or not name.strip():
                raise SourceError(
                    f"Each line of {file} must be NUMBER:NAME. Received: {line!r:.80}"
                )
            names[int(number)] = name.strip()
    return names
