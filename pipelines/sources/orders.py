"""The two ways to order images: by index, or through a shuffle buffer."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.checks import indices_of
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.images import no_autograph
from vgg_keras.pipelines.sources.packed import PackedStrings
from vgg_keras.pipelines.splits import Split

# Encoded images in the shuffle buffer. TFDS shuffles once when it writes; data sets that are not
# larger than this are shuffled in full at every epoch.
_SHUFFLE_BUFFER = 16_384
_LOOKED_UP = 256  # examples that are looked up at once, at a tenth of the time for each


class IndexedSplit(Split):
    """Images that can be read by index. Every shuffle is a full one.

    Subclasses give what `read` needs as columns, which become tensors once for a split. So the cost
    of a stream's graph does not depend on the number of images.

    Subclasses are data classes.

    Attributes:
        labels: int64 `(N,)`, -1 if unknown.
    """

    labels: np.ndarray

    _PER_IMAGE: ClassVar[tuple[str, ...]]  # the attributes that have one value for each image

    @abc.abstractmethod
    def _columns(self) -> Mapping[str, np.ndarray | PackedStrings]:
        """What `read` needs, by key of the example. A column has one value for each image."""

    @functools.cached_property
    def _lookups(self) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
        """A function from indices `(B,)` to values `(B,)` for each key of an example."""
        # Streams make the examples of an epoch in a function that `flat_map` traces. Columns that
        # became tensors there would be constants of its graph: half a minute for a million paths.
        with tf.init_scope(), tf.device("CPU"):
            columns = {"label": self.labels, **self._columns()}
            return {key: _lookup(column) for key, column in columns.items()}

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or another process, makes tensors of its own."""
        return {key: value for key, value in vars(self).items() if key != "_lookups"}

    def _examples(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """The examples at these indices."""
        lookups = self._lookups

        @no_autograph
        def examples(i: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"index": i, **{key: lookup(i) for key, lookup in lookups.items()}}

        found = indices.batch(_LOOKED_UP).map(examples).unbatch()
        return found.apply(tf.data.experimental.assert_cardinality(len(self)))

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self) -> tf.data.Dataset:
        return self._examples(tf.data.Dataset.range(len(self)))

    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        # index_shuffle would need no memory, but its orders of a few images are far from even.
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self), dtype=tf.int64), _key(seed)
        )
        return self._examples(tf.data.Dataset.from_tensor_slices(order))

    def all_labels(self) -> np.ndarray:
        return self.labels

    def selected(self, is_selected: np.ndarray, name: str) -> Split:
        """The images that a mask, bool `(len(self),)`, selects, as a split of that name."""
        this: Any = self
        columns = {key: getattr(self, key)[is_selected] for key in self._PER_IMAGE}
        return dataclasses.replace(this, name=name, **columns)

    def without(self, names: Sequence[str]) -> Split:
        if len(names) == 0:
            return self
        gone = set(names)
        every = self.names_of(range(len(self)))
        return self.selected(np.array([name not in gone for name in every], bool), self.name)


class StreamedSplit(Split):
    """Images that can be read in one order only. They are shuffled through a buffer.

    Subclasses are data classes.

    Attributes:
        ignored: indices, in the data set's own order, of the images that are not in this split.
    """

    ignored: tuple[int, ...]

    @abc.abstractmethod
    def _size(self) -> int:
        """Number of images of the whole data set."""

    @abc.abstractmethod
    def _elements(self) -> tf.data.Dataset:
        """All elements of the data set, in its own order."""

    @abc.abstractmethod
    def _example(self, index: tf.Tensor, element: Any) -> dict[str, tf.Tensor]:
        """The example of an element. Its `image` is the encoded image."""

    @abc.abstractmethod
    def _names(self) -> Sequence[str]:
        """Names of all images of this split, in order."""

    def __len__(self) -> int:
        return self._size() - len(self.ignored)

    def in_order(self) -> tf.data.Dataset:
        dataset = self._elements().enumerate()
        if self.ignored:
            is_kept = np.ones(self._size(), bool)
            is_kept[list(self.ignored)] = False
            table = tf.constant(is_kept)
            dataset = dataset.filter(lambda i, _: tf.gather(table, i))
        return dataset.map(lambda _, element: element).enumerate().map(self._example)

    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        examples, buffer = self.in_order(), min(len(self), _SHUFFLE_BUFFER)

        def shuffle(mixed: tf.Tensor) -> tf.data.Dataset:
            # Dataset.shuffle takes TensorFlow's global seed into its own: here it is a constant.
            tf.compat.v1.get_default_graph().seed = 1
            return examples.shuffle(buffer, seed=mixed, reshuffle_each_iteration=False)

        # Mixed, because it is cut to 31 bits.
        mixed = tf.random.stateless_uniform((), _key(seed), 0, 2**31 - 1, tf.int64)
        return tf.data.Dataset.from_tensors(mixed).flat_map(shuffle)

    def read(self, example: Any) -> tf.Tensor:
        return example["image"]

    def names_of(self, indices: Iterable[int]) -> list[str]:
        indices = list(indices)
        names = self._names() if indices else ()  # names can cost a pass over the data
        return [names[i] for i in indices]

    def selected(self, is_selected: np.ndarray, name: str) -> Split:
        """The images that a mask, bool `(len(self),)`, selects, as a split of that name."""
        selected: Any = self.without(self.names_of(np.flatnonzero(~is_selected).tolist()))
        return dataclasses.replace(selected, name=name)

    def without(self, names: Sequence[str]) -> Split:
        if len(names) == 0:
            return self
        this: Any = self
        whole = dataclasses.replace(this, ignored=())
        ignored = indices_of(names, whole._names(), _missing_image)
        return dataclasses.replace(this, ignored=tuple(sorted({*self.ignored, *map(int, ignored)})))

    def _kept(self, values: Iterable[Any]) -> list[Any]:
        """Of values of all images of the data set, those of the images of this split."""
        ignored = set(self.ignored)
        return [value for i, value in enumerate(values) if i not in ignored]


def _lookup(column: np.ndarray | PackedStrings) -> Callable[[tf.Tensor], tf.Tensor]:
    if isinstance(column, PackedStrings):
        return column.lookup()
    return functools.partial(tf.gather, tf.constant(column))


def _key(seed: tf.Tensor) -> tf.Tensor:
    """The two numbers from which TensorFlow's stateless functions draw."""
    return tf.stack([seed // 2**32, seed % 2**32])


def _missing_image(name: str) -> SourceError:
    return SourceError(f"The split has no image {name}.")
