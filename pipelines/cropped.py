"""Pictures cut out of pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.images import decode
from vgg_keras.pipelines.sources import Split


@dataclasses.dataclass(frozen=True, eq=False)
class Cropped(Split):
    """A split's pictures, each cut to its first box: all pixels that the box touches.

    A picture is handed on as PNG, so that whatever reads splits reads these, and nothing is lost.
    """

    name: str
    whole: Split
    boxes: Boxes

    def __len__(self):
        return len(self.whole)

    def in_order(self):
        return self.whole.in_order()

    def shuffled(self, seed):
        return self.whole.shuffled(seed)

    def read(self, example):
        image = decode(self.whole.read(example))
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        edges = self.boxes.drawn(example["index"], 0.0) * tf.gather(size, [1, 0, 1, 0])
        # A float32 edge that is a hair beyond a pixel's does not touch the next one.
        low = tf.cast(tf.floor(edges[:2] + 1e-3), tf.int32)
        high = tf.maximum(tf.cast(tf.math.ceil(edges[2:] - 1e-3), tf.int32), low + 1)
        return tf.io.encode_png(image[low[1] : high[1], low[0] : high[0]], compression=1)

    def all_labels(self):
        return self.whole.all_labels()

    def all_targets(self, num_classes):
        return self.whole.all_targets(num_classes)

    def names_of(self, indices):
        places = list(indices)
        names = zip(places, self.whole.names_of(places), strict=True)
        return [f"{name} {np.round(self.boxes[i][0], 6).tolist()}" for i, name in names]

    def ids_of(self, indices):
        return self.whole.ids_of(indices)

    def without(self, names):
        gone = set(names)
        left_out = [i for i, name in enumerate(self.names_of(range(len(self)))) if name in gone]
        kept = [self.boxes[i].tolist() for i in range(len(self)) if i not in set(left_out)]
        return Cropped(
            self.name, self.whole.without(self.whole.names_of(left_out)), Boxes.of_pictures(kept)
        )
