"""Data sets in files that hold many images: TFRecord, Parquet, WebDataset.

`tfrecord:PATTERN`, `parquet:DIR` and `webdataset:PATTERN` take a folder, a file, or a pattern with
`*`, `?`, `[...]` and `{000..099}`. The split of a file is the last of the words train, val,
validation, valid and test in its name, else in those of its folders: `train-00000-of-01024`,
`imagenet1k-validation-07.tar`, `train/000.tar`. Without such a word all files are one split, `all`.

Images are in the order of their labels, then of their names, then of the files. So the same images
in other files give the same streams, if their names are unique.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vgg_keras.pipelines.checks import first_few
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.classes import Classes, find_classes
from vgg_keras.pipelines.sources.image_index import IndexedFile, Scan, index_files
from vgg_keras.pipelines.sources.listing import list_files, text_of_path
from vgg_keras.pipelines.sources.parquet import scan_parquet
from vgg_keras.pipelines.sources.reading import PythonReadSplit
from vgg_keras.pipelines.sources.tfrecord import scan_tfrecord
from vgg_keras.pipelines.sources.webdataset import scan_webdataset
from vgg_keras.pipelines.splits import (
    TRAIN,
    VALIDATION,
    VALIDATION_NAMES,
    Source,
    StatedBoxes,
)

log = logging.getLogger(__name__)

_LABELS = "labels.txt"  # TF-Slim's file of class names
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_FILES = 100_000  # that a range may name
_SPLIT_WORD = re.compile(r"(?:^|[-_./])(train|validation|valid|val|test)(?=[-_./\d]|$)", re.I)
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)")


class _Kind(NamedTuple):
    """A kind of file: the names by which it is found in a folder, and how it is scanned."""

    names: re.Pattern[str]
    scan: Scan


_KINDS = {
    "tfrecord": _Kind(re.compile(r".*(\.tfrecords?|\.tfrec|\.record|-\d+-of-\d+)"), scan_tfrecord),
    "parquet": _Kind(re.compile(r".*\.parquet"), scan_parquet),
    "webdataset": _Kind(re.compile(r".*\.tar"), scan_webdataset),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ShardedSplit(PythonReadSplit):
    """Images that are read out of files that hold many.

    Attributes:
        name: name of the split.
        files: the files.
        rows: the index of the file of each image, and its row in that file, int64 `(N, 2)`.
        extents: offset and length of each image in its file, int64 `(N, 2)`.
        labels: int64 `(N,)`, -1 if unknown.
        root: folder of the files.
        class_names: names of the classes.
    """

    name: str
    files: tuple[IndexedFile, ...]
    rows: np.ndarray
    extents: np.ndarray
    labels: np.ndarray
    root: str
    class_names: tuple[str, ...] | None = None

    _PER_IMAGE = ("rows", "extents", "labels")

    def _columns(self) -> Mapping[str, np.ndarray]:
        return {}

    def bytes_of(self, index: int) -> bytes:
        offset, length = self.extents[index].tolist()
        return self.files[self.rows[index, 0]].read(offset, length)

    def names_of(self, indices: Iterable[int]) -> list[str]:
        wanted = self.rows[np.array(list(indices), np.int64)]
        names = np.empty(len(wanted), object)
        for i in np.unique(wanted[:, 0]).tolist():
            mine = wanted[:, 0] == i
            file, rows = self.files[i], wanted[mine, 1]
            found = file.table["name"].take(pa.array(rows)).to_pylist()
            names[mine] = [f"{text_of_path(file.path)}/{name}" for name in found]
        return names.tolist()

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        root = text_of_path(os.path.join(self.root, ""))
        return [name.removeprefix(root) for name in self.names_of(indices)]

    def identities(self) -> list[str]:
        names = self.names_of(range(len(self)))
        return [
            f"{name} {self.files[i].state}"
            for name, i in zip(names, self.rows[:, 0].tolist(), strict=True)
        ]

    def stated_boxes(self) -> StatedBoxes:
        boxes = [file.table["boxes"].to_pylist() for file in self.files]
        stated = [boxes[i][row] for i, row in self.rows.tolist()]
        if all(edges is None for edges in stated):
            return super().stated_boxes()
        return StatedBoxes([np.reshape(edges or [], (-1, 4)).tolist() for edges in stated], False)


def open_shards(
    spec: str, location: str, *, data_dir: str | os.PathLike | None, **unused: object
) -> Source:
    """Opens TFRecord, Parquet or WebDataset files; `spec` states their kind.

    Raises:
        SourceError: no file is found, or one is damaged, or labels contradict each other.
    """
    kind = spec.partition(":")[0]
    root, paths = _find_files(spec, location, _KINDS[kind])
    indexed = {
        name: index_files(of_split, kind, _KINDS[kind].scan, data_dir)
        for name, of_split in _by_split(root, paths).items()
    }
    classes = find_classes(spec, indexed, Path(root) / _LABELS)
    splits = {name: _split(name, files, classes, root) for name, files in indexed.items()}
    return Source(spec, classes.names, splits)


def _split(name: str, files: Sequence[IndexedFile], classes: Classes, root: str) -> ShardedSplit:
    """The images of the files, in their order."""
    sizes = [len(file.table) for file in files]
    table = pa.concat_tables([file.table for file in files])
    images = pa.table(
        {
            "label": classes.labels(table),
            "name": table["name"],
            "file": np.repeat(np.arange(len(files)), sizes),
            "row": np.concatenate([np.arange(size) for size in sizes]),
        }
    )
    # Names are not rearranged: an array of Arrow's strings holds at most 2 GiB.
    keys = [(column, "ascending") for column in images.column_names]
    order = pc.sort_indices(images, sort_keys=keys).to_numpy()
    rows = np.stack([images[key].to_numpy() for key in ("file", "row")], 1)[order]
    extents = np.stack([table[key].to_numpy() for key in ("offset", "length")], 1)[order]
    labels = images["label"].to_numpy()[order]
    return ShardedSplit(name, tuple(files), rows, extents, labels, root, classes.names)


def _find_files(spec: str, location: str, kind: _Kind) -> tuple[str, list[str]]:
    """Root folder, and absolute paths of the files, sorted."""
    pattern = os.path.abspath(os.path.expanduser(location))
    if os.path.isdir(pattern):
        root, found = pattern, list_files(pattern)
        paths = [os.path.join(root, file) for file in found if kind.names.fullmatch(file)]
    else:
        # Names of folders that exist may have brackets.
        root = next(os.fspath(folder) for folder in Path(pattern).parents if folder.is_dir())
        found_by_pattern = {
            one: _matching(root, one) for one in _expanded(spec, os.path.relpath(pattern, root))
        }
        paths = sorted({file for found in found_by_pattern.values() for file in found})
        missing = [os.path.join(root, one) for one, found in found_by_pattern.items() if not found]
        if missing and paths:
            raise SourceError(f"{spec}: these files are missing: {first_few(missing)}")
    if not paths:
        raise SourceError(
            f"{spec} names no file. It must name a folder of such files, or a pattern like "
            f"DIR/train-*."
        )
    return root, paths


def _matching(root: str, pattern: str) -> list[str]:
    """The files below a folder that a pattern names."""
    path = os.path.join(root, pattern)
    if os.path.isfile(path):  # whose name may have brackets
        return [path]
    found = glob.iglob(os.path.join(glob.escape(root), pattern), recursive=True)
    return [file for file in found if os.path.isfile(file)]


def _expanded(spec: str, pattern: str) -> list[str]:
    """The patterns that one with ranges, as in `{000..099}`, stands for."""
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    first, last = map(int, match.groups())
    if not first <= last < first + _MOST_FILES:
        raise SourceError(f"A range must be like {{000..099}}. Received: {match[0]} in {spec}")
    numbers = [f"{number:0{len(match[1])}}" for number in range(first, last + 1)]
    rest = _expanded(spec, pattern[match.end() :])
    return [
        pattern[: match.start()] + number + end for number, end in itertools.product(numbers, rest)
    ]


def _by_split(root: str, paths: Iterable[str]) -> dict[str, list[str]]:
    """The files of each split, `train` and `val` first."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(os.path.relpath(path, root))
        words, last = [[w.lower() for w in _SPLIT_WORD.findall(text)] for text in (folder, name)]
        if len(set(last)) > 1:
            raise SourceError(
                f"The name of a file must have at most one of the words train, "
                f"{', '.join(VALIDATION_NAMES)} and test. Received: {text_of_path(path)}"
            )
        found[["", *words, *last][-1]].append(path)
    others = found.pop("", [])
    if not found:
        _warn_of_missing("all", others)
        return {"all": others}
    if others:
        log.info("ignored beside the splits: %s", first_few(list(map(text_of_path, others))))
    validation = next((name for name in VALIDATION_NAMES if name in found), None)
    named = {VALIDATION if name == validation else name: files for name, files in found.items()}
    for name, files in named.items():
        _warn_of_missing(name, files)
    order = sorted(named, key=lambda name: (name != TRAIN, name != VALIDATION))
    return {name: named[name] for name in order}


def _warn_of_missing(name: str, files: Sequence[str]) -> None:
    """Warns if there are fewer files than their names, like `train-00000-of-01024`, state."""
    stated: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for match in filter(None, map(_NUMBERED.fullmatch, files)):
        stated[match[1], match[3], match[4]].add(int(match[2]))
    for (prefix, count, _), numbers in stated.items():
        if len(numbers) < int(count):
            log.warning(
                "%s: only %d of %s files %s-* are there",
                name,
                len(numbers),
                count,
                text_of_path(prefix),
            )
