"""One way in for images: class folders, TFDS data sets and the embedded set.

`open_source("folder:DIR")`, `open_source("tfds:imagenette/160px-v2")` and
`open_source("shapes")` all give a `Source`: named splits of encoded pictures with labels.
"""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.errors import SourceError

TRAIN, VALIDATION = "train", "val"


@dataclasses.dataclass(frozen=True)
class Part:
    """Which rows of every batch a process reads, where several share the batches.

    The batches are those of one process: the parts, in the order of their indices, make up each.
    """

    index: int
    parts: int

    def rows(self, batch_size: int) -> int:
        """Rows of this part in a batch.

        Raises:
            ValueError: the parts cannot be even.
        """
        if batch_size % self.parts:
            raise ValueError(
                f"batch_size must be a multiple of the number of processes, {self.parts}. "
                f"Received: batch_size={batch_size}"
            )
        return batch_size // self.parts

    def of(self, examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """The examples, given in order, that are in this part of their batch."""
        if self.parts == 1:
            return examples
        rows = self.rows(batch_size)
        numbered = examples.enumerate()
        mine = numbered.filter(lambda i, _: i % batch_size // rows == self.index)
        return mine.map(lambda _, example: example)


WHOLE = Part(0, 1)


class Split(abc.ABC):
    """Pictures with labels, in a fixed order.

    An *example* is a dictionary of scalars: `index` (int64, its place in that order), `label`
    (int64), and what `read` needs.
    """

    name: str

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of pictures."""

    @abc.abstractmethod
    def in_order(self) -> tf.data.Dataset:
        """Every example once, in order."""

    @abc.abstractmethod
    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        """Every example once, in the order that `seed` (int64, scalar) stands for."""

    @abc.abstractmethod
    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Encoded bytes of the example's picture; called inside `Dataset.map`."""

    @abc.abstractmethod
    def all_labels(self) -> np.ndarray:
        """Labels of all pictures in order, int64 `(len(self),)`."""

    def all_targets(self, num_classes: int) -> np.ndarray:
        """Which classes are in each picture, int8 `(len(self), num_classes)`: 1 there, -1 not
        there, 0 to be left out of account, as VOC does where it is there but difficult to see."""
        targets, labels = np.full((len(self), num_classes), -1, np.int8), self.all_labels()
        known = np.flatnonzero(labels >= 0)
        targets[known, labels[known]] = 1
        return targets

    @abc.abstractmethod
    def names_of(self, indices: Iterable[int]) -> list[str]:
        """Where the pictures at these places are to be found: absolute paths, or TFDS ids."""

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        """Names that stay the same wherever the data lie."""
        return self.names_of(indices)

    @abc.abstractmethod
    def without(self, names: Sequence[str]) -> Split:
        """This split less the named pictures."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its class names and its splits, of which `train` and `val` are usual."""

    spec: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            raise SourceError(
                f"{self.spec} has no split {name!r}. Its splits: {', '.join(self.splits)}."
            )
        return self.splits[name]


def open_source(
    spec: str,
    data_dir: str | os.PathLike | None = None,
    *,
    prepare: bool = True,
    several_labels: bool = False,
) -> Source:
    """Opens a data set.

    Args:
        spec: `shapes` (drawn on first use), `folder:DIR` with DIR/train/CLASS/* and
            DIR/val/CLASS/*, or DIR/CLASS/* as one split named `all`, `tfds:NAME[/CONFIG]`,
            `cls-loc:DIR` for ILSVRC's pictures with boxes, or `caltech256:PATH` and
            `voc-action:PATH`, folders or archives.
        data_dir: where TFDS keeps its data; by default ~/tensorflow_datasets.
        prepare: whether TFDS may download or draw what is not there yet.
        several_labels: take data whose pictures have several labels too, as VOC's. Their
            `all_labels` are -1 and their `all_targets` say all.

    Raises:
        SourceError: nothing usable is there.
    """
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        return _open_folder(spec, Path(rest).expanduser().absolute())
    if kind == "cls-loc" and rest:
        from vgg_keras.pipelines.cls_loc_source import open_cls_loc

        return open_cls_loc(spec, Path(rest).expanduser().absolute())
    if kind == "tfds" and rest:
        from vgg_keras.pipelines.tfds_source import open_tfds  # TFDS takes seconds to import

        return open_tfds(spec, rest, data_dir, prepare, several_labels)
    if kind == "caltech256" and rest:
        from vgg_keras.pipelines.caltech256_source import open_caltech256

        return open_caltech256(spec, rest)
    if kind == "voc-action" and rest:
        from vgg_keras.pipelines.voc_action_source import open_voc_action

        if not several_labels:
            raise SourceError(f"{spec} has no single label an image, which classification needs.")
        return open_voc_action(spec, rest)
    if spec == "shapes":
        from vgg_keras.pipelines.tfds_source import open_shapes

        return open_shapes(spec, data_dir, prepare)
    raise SourceError(
        f"Data are given as shapes, folder:DIR, tfds:NAME[/CONFIG], cls-loc:DIR, caltech256:PATH "
        f"or voc-action:PATH. Received: {spec!r}"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit(Split):
    """Files read in place, whatever their names end in: pictures are told by content.

    `tfds.ImageFolder` reads such folders too, but not by index (which gives a full shuffle by
    seed, and lets a killed run go on, at any size), not as a single split, and it passes over
    an empty class in silence.
    """

    name: str
    paths: np.ndarray  # (N,) of str
    labels: np.ndarray  # (N,) int64
    root: str = ""  # of the data set

    def __len__(self):
        return len(self.paths)

    def _examples(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        paths, labels = tf.constant(self.paths), tf.constant(self.labels)
        return indices.map(lambda i: {"index": i, "label": labels[i], "path": paths[i]})

    def in_order(self):
        return self._examples(tf.data.Dataset.range(len(self)))

    def shuffled(self, seed):
        # index_shuffle would need no memory, but its orders of a few pictures are far from even.
        key = tf.stack([seed // 2**32, seed % 2**32])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self), dtype=tf.int64), key)
        return self._examples(tf.data.Dataset.from_tensor_slices(order))

    def read(self, example):
        return tf.io.read_file(example["path"])

    def all_labels(self):
        return self.labels

    def names_of(self, indices):
        return [str(self.paths[i]) for i in indices]

    def ids_of(self, indices):
        if not self.root:
            return self.names_of(indices)
        return [Path(name).relative_to(self.root).as_posix() for name in self.names_of(indices)]

    def without(self, names):
        kept = ~np.isin(self.paths, list(names))
        return dataclasses.replace(self, paths=self.paths[kept], labels=self.labels[kept])


def _open_folder(spec: str, root: Path) -> Source:
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
        raise SourceError(f"{root}: train and val must hold the same classes; {'; '.join(only)}.")
    class_names = next(iter(classes.values()))
    splits = {
        name: dataclasses.replace(_list_split(name, folder, class_names), root=str(root))
        for name, folder in folders.items()
    }
    return Source(spec, tuple(class_names), splits)


def _class_folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if _is_visible_folder(entry))
    if not names:
        raise SourceError(f"{folder} holds no class folders; one folder a class is expected.")
    return names


def _is_visible_folder(entry: os.DirEntry) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _list_split(name: str, folder: Path, class_names: Sequence[str]) -> FolderSplit:
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
                f"The class folder {folder / class_name} holds no pictures. Fill it or remove it."
            )
        paths += found
        labels += [label] * len(found)
    return FolderSplit(name, np.array(paths), np.array(labels, np.int64))
