"""Object boxes: of images, through crops and flips, and the overlap of two boxes.

A box is `[x_min, y_min, x_max, y_max]`: edges, as shares of the image's width and height, x to the
right, y down. It is the same at every scale. A *window* is a crop of a rescaled image (see
`pipelines/images.py`). In a window's coordinates a box is `[centre x, centre y, width, height]`, in
units of the crop's side, from its upper left corner: the box that fills the crop is
[0.5, 0.5, 1, 1], and a box that extends beyond the crop is not clipped.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.images import rescaled_size, window_origin

_Values = Any  # a tensor, or a NumPy array of the same shape


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a split's images, in the split's order.

    ```python
    boxes = Boxes.of_images([[[0, 0, 1, 1]], [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]])
    boxes[1]  # the two boxes of the second image
    ```

    Attributes:
        values: float32 `(M, 4)`, the boxes of the first image, then those of the second, ...
        splits: int64 `(N + 1,)`; the boxes of image i are `values[splits[i] : splits[i + 1]]`.
    """

    values: np.ndarray
    splits: np.ndarray

    @classmethod
    def of_images(cls, boxes: Iterable[Sequence[Sequence[float]] | np.ndarray]) -> Boxes:
        """Makes boxes from one list of boxes for each image."""
        lists = [np.reshape(np.asarray(b, np.float32), (-1, 4)) for b in boxes]
        values = np.concatenate([np.zeros((0, 4), np.float32), *lists])
        return cls(values, np.cumsum([0, *map(len, lists)], dtype=np.int64))

    def drawn(self, index: tf.Tensor, draw: tf.Tensor | float) -> tf.Tensor:
        """Draws one box of an image, float32 `(4,)`.

        Args:
            index: index of the image, int64.
            draw: a uniform draw in [0, 1); 0 for the first box.
        """
        values, splits = self._tensors
        first, last = tf.unstack(tf.gather(splits, tf.stack([index, index + 1])))
        chosen = tf.cast(draw * tf.cast(last - first, tf.float32), tf.int64)
        return tf.gather(values, first + chosen)

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """`values` and `splits`, which are not to be constants of the graphs that draw boxes."""
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.values), tf.constant(self.splits)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or another process, makes tensors of its own."""
        return {key: value for key, value in vars(self).items() if key != "_tensors"}

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The boxes of an image, float32 `(n, 4)`."""
        return self.values[self.splits[index] : self.splits[index + 1]]


def window_frame(
    size: tf.Tensor, scale: tf.Tensor | int, crop_size: int, position: _Values
) -> tf.Tensor:
    """The frame of a window in its image: `[left, top, width, height]` as shares, float32.

    Args:
        size: `[height, width]` of the image.
        scale: smaller side of the rescaled image.
        crop_size, position: see `vgg_keras.pipelines.images.window_origin`.
    """
    scaled = rescaled_size(size, scale)
    origin = tf.cast(window_origin(scaled, crop_size, position), tf.float32)
    scaled = tf.cast(scaled, tf.float32)
    extent = tf.fill((2,), tf.cast(crop_size, tf.float32))
    return tf.concat([(origin / scaled)[::-1], (extent / scaled)[::-1]], 0)


def to_window(boxes: _Values, frame: _Values, flip: tf.Tensor | bool = False) -> tf.Tensor:
    """Converts boxes of an image to a window's coordinates.

    Args:
        boxes: float32 `(..., 4)`, NumPy or TensorFlow.
        frame: from `window_frame`, `(..., 4)`.
        flip: whether the window is mirrored left and right.

    Returns:
        float32 `(..., 4)`: centre x, centre y, width, height in units of the window's side.
    """
    boxes, frame = tf.convert_to_tensor(boxes), tf.convert_to_tensor(frame)
    low, high, corner, extent = boxes[..., :2], boxes[..., 2:], frame[..., :2], frame[..., 2:]
    centre = ((low + high) / 2 - corner) / extent
    x = tf.where(flip, 1 - centre[..., :1], centre[..., :1])
    return tf.concat([x, centre[..., 1:], (high - low) / extent], -1)


def box_target(
    box: tf.Tensor, frame: tf.Tensor, flip: tf.Tensor | bool, label: tf.Tensor
) -> tf.Tensor:
    """The training target for a crop: the box in its coordinates, and the class; float32 `(5,)`."""
    return tf.concat([to_window(box, frame, flip), [tf.cast(label, tf.float32)]], 0)


def from_window(seen: _Values, frame: _Values, flip: bool = False) -> tf.Tensor:
    """The inverse of `to_window`: boxes as shares of the image, `(..., 4)`.

    A negative width or height, which a net may predict, counts as 0.

    Args:
        seen: boxes in a window's coordinates, `(..., 4)`, NumPy or TensorFlow.
        frame: from `window_frame`, `(..., 4)`.
        flip: whether the window was mirrored.
    """
    seen, frame = tf.convert_to_tensor(seen), tf.convert_to_tensor(frame)
    centre, extent = seen[..., :2], tf.maximum(seen[..., 2:], 0) / 2
    if flip:
        centre = tf.concat([1 - centre[..., :1], centre[..., 1:]], -1)
    low, high, corner, side = centre - extent, centre + extent, frame[..., :2], frame[..., 2:]
    return tf.concat([low * side + corner, high * side + corner], -1)


def inside(seen: _Values) -> tf.Tensor:
    """Whether the centre of a box, in a window's coordinates, is in the window; bool `(...)`."""
    centre = tf.convert_to_tensor(seen)[..., :2]
    return tf.reduce_all((centre >= 0) & (centre <= 1), -1)


def iou(boxes: _Values, others: _Values) -> tf.Tensor:
    """Intersection over union of each pair of boxes, 0 to 1; 0 if a box is empty.

    Args:
        boxes: `(..., 4)`, NumPy or TensorFlow, in the same unit as `others`. The shape of the image
            does not matter, because both areas scale alike.
        others: of a shape that broadcasts with `boxes`; `boxes[:, None], others[None]` gives all
            pairs.
    """
    boxes, others = tf.convert_to_tensor(boxes), tf.convert_to_tensor(others)
    low = tf.maximum(boxes[..., :2], others[..., :2])
    high = tf.minimum(boxes[..., 2:], others[..., 2:])
    both = tf.reduce_prod(tf.maximum(high - low, 0), -1)
    return tf.math.divide_no_nan(both, _area(boxes) + _area(others) - both)


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)
