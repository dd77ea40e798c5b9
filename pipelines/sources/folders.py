"""Image files in class folders, read in place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.box_sources import BOXES_FILE, read_boxes_file
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.orders import IndexedSplit
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, Split, StatedBoxes


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit(IndexedSplit):
    """Image files that are read in place. Their formats are recognised by content, not by name.

    `tfds.ImageFolder` reads such folders too. It does not read by index, which a full shuffle by
    seed and the continuation of a killed run need; it does not read a single split; and it ignores
    an empty class without a message.

    Attributes:
        name: name of the split.
        paths: the files, `(N,)` of str.
        labels: int64 `(N,)`, -1 if unknown.
        root: folder of the data set; "" if the files have none.
        class_names: names of the classes.
    """

    name: str
    paths: np.ndarray
    labels: np.ndarray
    root: str = ""
    class_names: tuple[str, ...] | None = None

    def _examples(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        paths, labels = tf.constant(self.paths), tf.constant(self.labels)
        return indices.map(lambda i: {"index": i, "label": labels[i], "path": paths[i]})

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.io.read_file(example["path"])

    def names_of(self, indices: Iterable[int]) -> list[str]:
        return [str(self.paths[i]) for i in indices]

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        if not self.root:
            return self.names_of(indices)
        return [Path(name).relative_to(self.root).as_posix() for name in self.names_of(indices)]

    def without(self, names: Sequence[str]) -> Split:
        kept = ~np.isin(self.paths, list(names))
        return dataclasses.replace(self, paths=self.paths[kept], labels=self.labels[kept])

    def stated_boxes(self) -> StatedBoxes:
        if not self.root:
            return super().stated_boxes()
        file = Path(self.root) / BOXES_FILE
        return StatedBoxes(read_boxes_file(file, self.name, self.paths), True)


def open_folder(spec: str, location: str, **unused: object) -> Source:
    """Opens class folders: `train` and `val`, or a single split named `all`.

    Raises:
        SourceError: a folder is missing or empty, or the splits have different classes.
    """
    root = Path(location).expanduser().absolute()
    if not root.is_dir():
        raise SourceError(f"There is no folder {root}.")
    if (root / TRAIN).is_dir() or (root / VALIDATION).is_dir():
        folders = {name: root / name for name in (TRAIN, VALIDATION) if (root / name).is_dir()}
    else:
        folders = {"all": root}
    classes = {name: _class_folders(folder) for name, folder in folders.items()}
    if len(classes) == 2 and classes[TRAIN] != classes[VALIDATION]:
        only = [
            f"only in {name}: {', '.join(sorted(set(classes[name]) - set(classes[other])))}"
            for name, other in ((TRAIN, VALIDATION), (VALIDATION, TRAIN))
            if set(classes[name]) - set(classes[other])
        ]
        raise SourceError(f"{root}: train and val must have the same classes; {'; '.join(only)}.")
    class_names = tuple(next(iter(classes.values())))
    splits = {
        name: _list_split(name, folder, class_names, root) for name, folder in folders.items()
    }
    return Source(spec, class_names, splits)


def _class_folders(folder: Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise SourceError(f"{folder} holds no class folders. It must hold one folder per class.")
    return names


def _list_split(name: str, folder: Path, class_names: tuple[str, ...], root: Path) -> FolderSplit:
    paths: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        found = sorted(
            entry.path
            for entry in os.scandir(folder / class_name)
            if not entry.is_dir() and not entry.name.startswith(".")
        )
        if not found:
            raise SourceError(
                f"The class folder {folder / class_name} holds no images. Fill it or remove it."
            )
        paths += found
        labels += [label] * len(found)
    return FolderSplit(name, np.array(paths), np.array(labels, np.int64), str(root), class_names)
