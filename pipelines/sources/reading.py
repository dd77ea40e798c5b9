"""Images whose bytes Python reads, inside `tf.data`."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.images import no_autograph
from vgg_keras.pipelines.sources.orders import IndexedSplit

# Images that one call of Python reads: a call costs as much as ten reads.
_READ_TOGETHER = 32
_FETCHED = "bytes"  # key of an example whose image is read already


class PythonReadSplit(IndexedSplit):
    """Images that a function of Python reads by index."""

    @abc.abstractmethod
    def bytes_of(self, index: int) -> bytes:
        """The encoded image at an index."""

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if _FETCHED in example:
            return example[_FETCHED]
        content = tf.numpy_function(
            lambda index: self.bytes_of(int(index)), [example["index"]], tf.string, stateful=False
        )
        return tf.ensure_shape(content, ())

    def fetched(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        @no_autograph
        def read(example: Mapping[str, tf.Tensor], *others: tf.Tensor) -> tuple:
            content = tf.numpy_function(
                lambda indices: np.array([self.bytes_of(i) for i in indices.tolist()], object),
                [example["index"]],
                tf.string,
                stateful=False,
            )
            return {**example, _FETCHED: tf.ensure_shape(content, (None,))}, *others

        batches = dataset.batch(_READ_TOGETHER)
        return batches.map(read, tf.data.AUTOTUNE, deterministic=True).unbatch()
