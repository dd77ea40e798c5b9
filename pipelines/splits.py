"""The contract between data and streams: `Split`, `Source` and `Shard`.

Every kind of data is a subclass of `Split`, and everything that reads images takes a `Split`. This
module imports no other module of `pipelines` but `errors` and `reprs`.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import hashlib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.errors import ArgumentError, SourceError
from vgg_keras.pipelines.reprs import CountRepr, ShortRepr

TRAIN = "train"
"""The split to train on, as in `data[TRAIN]`."""
VALIDATION = "val"
"""The split to test on, as in `data[VALIDATION]`."""

# Names under which data sets have their validation images; the first that exists is called `val`.
VALIDATION_NAMES = (VALIDATION, "validation", "valid")


@dataclasses.dataclass(frozen=True)
class Shard:
    """The rows of every batch that one process reads, where several processes share the batches.

    The batches are the same as those of a single process. Concatenating the shards in the order of
    their indices gives the batch.

    Attributes:
        index: index of this shard, from 0.
        count: number of shards.
    """

    index: int
    count: int

    def rows(self, batch_size: int) -> int:
        """Number of rows that this shard has in a batch.

        Raises:
            ArgumentError: the batch size is not a multiple of the number of shards.
        """
        if batch_size % self.count:
            raise ArgumentError(
                f"batch_size must be a multiple of the number of processes, {self.count}. "
                f"Received: batch_size={batch_size}",
                "batch_size",
            )
        return batch_size // self.count

    def of(self, examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Selects the examples of this shard from all examples, which are given in order."""
        if self.count == 1:
            return examples
        rows = self.rows(batch_size)
        mine = examples.enumerate().filter(lambda i, _: i % batch_size // rows == self.index)
        return mine.map(lambda _, example: example)


WHOLE_BATCH = Shard(0, 1)


class StatedBoxes(NamedTuple):
    """Object boxes as a data set states them, not checked.

    Attributes:
        boxes: one list for each image; each box is `[x_min, y_min, x_max, y_max]`.
        in_pixels: True if edges are pixels, counted from 0, with the first and the last pixel
            inside the box. False if edges are shares of the image's width and height.
    """

    boxes: list[list[list[float]]]
    in_pixels: bool


class Split(CountRepr, abc.ABC):
    """Images with labels, in a fixed order.

    An *example* is a dictionary of scalar tensors: `index` (int64, index of the image in that
    order), `label` (int64, -1 if unknown), and what `read` needs.

    Splits of a data set come from `open_source`. Splits of your own data come from
    `Split.from_arrays`, `Split.from_paths` and `Split.from_dataset`.

    Attributes:
        name: name of the split, such as `train`.
        class_names: names of the classes, in the order of the labels; None if they are unknown.
        origin: name of the split that the images are selected from; "" if it is `name`.
    """

    name: str
    class_names: tuple[str, ...] | None = None
    origin: str = ""

    @staticmethod
    def from_arrays(
        images: np.ndarray | Sequence[np.ndarray],
        labels: Sequence[int] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Split:
        """Makes a split of images in memory.

        ```python
        (x_train, y_train), _ = keras.datasets.cifar10.load_data()
        split = Split.from_arrays(x_train, y_train)
        ```

        Args:
            images: uint8 RGB array `(N, H, W, 3)`, or a list of uint8 arrays `(H, W, 3)` of any
                sizes. The arrays are not copied.
            labels: integers `(N,)` from 0; None for unlabelled images.
            class_names: names of the classes; by default the labels as text, from "0" to the
                largest label.

        Raises:
            ArgumentError: an image or a label is not allowed. The message names the first one.
        """
        return _own_data().from_arrays(images, labels, class_names)

    @staticmethod
    def from_paths(
        paths: Sequence[str | os.PathLike],
        labels: Sequence[int] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Split:
        """Makes a split of JPEG, PNG, GIF or BMP files.

        ```python
        split = Split.from_paths(["cat.jpg", "dog.png"], [0, 1], ["cat", "dog"])
        ```

        Args:
            paths: the files. Their formats are recognised by content.
            labels, class_names: see `from_arrays`.

        Raises:
            SourceError: a file is missing.
            ArgumentError: a label is not allowed. The message names the first one.
        """
        return _own_data().from_paths(paths, labels, class_names)

    @staticmethod
    def from_dataset(
        dataset: tf.data.Dataset, count: int, class_names: Sequence[str] | None = None
    ) -> Split:
        """Makes a split of a `tf.data.Dataset` of encoded images and labels.

        The dataset is read once to check its labels. Training shuffles it through a buffer of
        16,384 encoded images.

        ```python
        records = tf.data.TFRecordDataset("train.tfrecord").map(parse)  # -> (bytes, label)
        split = Split.from_dataset(records, count=5000)
        ```

        Args:
            dataset: elements are (encoded image, scalar string; label, scalar integer). It must
                give the same elements in the same order each time that it is iterated.
            count: number of elements.
            class_names: see `from_arrays`.

        Raises:
            ArgumentError: the dataset has other elements, or not `count` of them, or a label is
                not allowed.
        """
        return _own_data().from_dataset(dataset, count, class_names)

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def in_order(self) -> tf.data.Dataset:
        """Every example once, in order."""

    @abc.abstractmethod
    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        """Every example once, in an order that is a function of `seed` (int64, scalar)."""

    @abc.abstractmethod
    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Encoded bytes of the example's image. This is called inside `Dataset.map`."""

    def fetched(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same elements, for `read` to be called on each.

        Splits read several images at once here if that is faster.

        Args:
            dataset: elements are tuples that begin with an example.
        """
        return dataset

    @abc.abstractmethod
    def all_labels(self) -> np.ndarray:
        """Labels of all images in order, int64 `(len(self),)`."""

    def all_targets(self, num_classes: int) -> np.ndarray:
        """Which classes are present in each image, int8 `(len(self), num_classes)`.

        1 if the class is present, -1 if it is absent, 0 if the class is present but marked
        difficult, in which case the image is ignored for that class.
        """
        targets, labels = np.full((len(self), num_classes), -1, np.int8), self.all_labels()
        known = np.flatnonzero(labels >= 0)
        targets[known, labels[known]] = 1
        return targets

    @abc.abstractmethod
    def names_of(self, indices: Iterable[int]) -> list[str]:
        """Names of the images at these indices, for messages: paths, or TFDS ids."""

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        """Names that stay the same when the data are moved to another folder."""
        return self.names_of(indices)

    def identities(self) -> list[str]:
        """Texts by which caches recognise the images, one for each image in order.

        Equal texts mean the same image with the same contents, also across splits. A file is the
        same as long as its absolute path, its size and its time of modification are.
        """
        return self.names_of(range(len(self)))

    def fingerprint(self) -> str:
        """Hash that changes when images are added, removed, reordered or changed."""
        fingerprint = hashlib.blake2b(digest_size=16)
        for identity in self.identities():
            fingerprint.update(identity.encode("utf-8", "surrogateescape") + b"\0")
        return fingerprint.hexdigest()

    @abc.abstractmethod
    def without(self, names: Sequence[str]) -> Split:
        """This split without the named images."""

    def stated_boxes(self) -> StatedBoxes:
        """Object boxes of all images in order, as the data set states them.

        Raises:
            SourceError: the data have no boxes.
        """
        raise SourceError(f"The {self.name!r} split has no boxes.")


@dataclasses.dataclass(frozen=True, repr=False)
class Source(ShortRepr):
    """A data set: the names of its classes, and its splits.

    Attributes:
        spec: what was given to `open_source`.
        class_names: names of the classes, in the order of the labels.
        splits: the splits by name; `train` and `val` are usual.
        advice: how to get another split, for the message about a missing one.
    """

    spec: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    advice: str = ""

    @classmethod
    def of(cls, **splits: Split) -> Source:
        """Makes a source of your own splits.

        ```python
        data = Source.of(train=Split.from_arrays(x, y), val=Split.from_arrays(x_val, y_val))
        ```

        Args:
            splits: the splits by name, as `train=` and `val=`.

        Raises:
            ArgumentError: no split is given, or their class names are missing or differ.
        """
        if not splits:
            raise ArgumentError("At least one split is required, as in train=split. Received: none")
        first, *others = splits
        class_names = splits[first].class_names
        if class_names is None:
            raise ArgumentError(f"{first} must have class names. Received: class_names=None", first)
        for name in others:
            if splits[name].class_names != class_names:
                raise ArgumentError(
                    f"{first} and {name} must have the same class names: give class_names to both. "
                    f"Received: {class_names} and {splits[name].class_names}",
                    name,
                )
        renamed = {name: _renamed(split, name) for name, split in splits.items()}
        return cls("own data", class_names, renamed)

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            found = ", ".join(self.splits)
            text = f"{self.spec} has no split {name!r}. Its splits: {found}. {self.advice}"
            raise SourceError(text.rstrip())
        return self.splits[name]


def _renamed(split: Split, name: str) -> Split:
    """A copy of a split under the name that its source gives it."""
    renamed: Any = copy.copy(split)
    object.__setattr__(renamed, "name", name)  # splits are frozen
    return renamed


def _own_data() -> ModuleType:
    """The splits of one's own data. They build on this module, so they are loaded by name."""
    return importlib.import_module("vgg_keras.pipelines.sources.own")
