"""Images cut out of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.pipelines.images import decode
from vgg_keras.pipelines.splits import Split


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CroppedSplit(Split):
    """A split whose images are cut to their first boxes, which keeps all pixels that a box touches.

    Images are passed on as PNG, which loses nothing, so that everything that reads a split can read
    this one.

    Attributes:
        name: name of the split.
        whole: the split of the whole images.
        boxes: the boxes of its images.
    """

    name: str
    whole: Split
    boxes: Boxes

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]  # elsewhere a field
        return self.whole.class_names

    def __len__(self) -> int:
        return len(self.whole)

    def in_order(self) -> tf.data.Dataset:
        return self.whole.in_order()

    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        return self.whole.shuffled(seed)

    def read(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        image = decode(self.whole.read(example))
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        edges = self.boxes.drawn(example["index"], 0.0) * tf.gather(size, [1, 0, 1, 0])
        # A float32 edge that rounding moved just past a pixel's edge does not touch the next pixel.
        low = tf.cast(tf.floor(edges[:2] + 1e-3), tf.int32)
        high = tf.maximum(tf.cast(tf.math.ceil(edges[2:] - 1e-3), tf.int32), low + 1)
        return tf.io.encode_png(image[low[1] : high[1], low[0] : high[0]], compression=1)

    def all_labels(self) -> np.ndarray:
        return self.whole.all_labels()

    def all_targets(self, num_classes: int) -> np.ndarray:
        return self.whole.all_targets(num_classes)

    def names_of(self, indices: Iterable[int]) -> list[str]:
        indices = list(indices)
        return self._with_boxes(indices, self.whole.names_of(indices))

    def identities(self) -> list[str]:
        return self._with_boxes(range(len(self)), self.whole.identities())

    def _with_boxes(self, indices: Iterable[int], names: Iterable[str]) -> list[str]:
        pairs = zip(indices, names, strict=True)
        return [f"{name} {np.round(self.boxes[i][0], 6).tolist()}" for i, name in pairs]

    def ids_of(self, indices: Iterable[int]) -> list[str]:
        return self.whole.ids_of(indices)

    def without(self, names: Sequence[str]) -> Split:
        is_gone = np.isin(self.names_of(range(len(self))), list(names))
        kept = [self.boxes[i].tolist() for i in np.flatnonzero(~is_gone).tolist()]
        whole = self.whole.without(self.whole.names_of(np.flatnonzero(is_gone)))
        return CroppedSplit(self.name, whole, Boxes.of_images(kept))
