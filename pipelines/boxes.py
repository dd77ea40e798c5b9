"""Object boxes: of pictures, through crops and flips, and how well two of them agree.

A box is `[x_min, y_min, x_max, y_max]`: edges, as shares of the picture's width and height, x to
the right, y down. So it stays the same at every scale. A *window* is the crop of a rescaled
image (see `pipelines/images.py`); seen from it a box is `[centre x, centre y, width, height]` in
units of the crop's side, from its upper left corner: the box that fills the crop is
[0.5, 0.5, 1, 1], and one that reaches beyond it is not cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.images import rescaled_size, window_origin


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a split's pictures, in the split's order.

    Attributes:
        values: float32 `(M, 4)`, the boxes of the first picture, then those of the next.
        splits: int64 `(N + 1,)`: those of picture i are `values[splits[i] : splits[i + 1]]`.
    """

    values: np.ndarray
    splits: np.ndarray

    @classmethod
    def of_pictures(cls, boxes: Iterable[Sequence[Sequence[float]]]) -> Boxes:
        """From a list of boxes a picture."""
        lists = [np.reshape(np.asarray(b, np.float32), (-1, 4)) for b in boxes]
        values = np.concatenate([np.zeros((0, 4), np.float32), *lists])
        return cls(values, np.cumsum([0, *map(len, lists)], dtype=np.int64))

    def drawn(self, picture: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        """One box of a picture, float32 `(4,)`: a uniform draw in [0, 1), or 0 for the first."""
        first, last = tf.unstack(tf.gather(self.splits, tf.stack([picture, picture + 1])))
        chosen = tf.cast(draw * tf.cast(last - first, tf.float32), tf.int64)
        return tf.gather(self.values, first + chosen)

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __getitem__(self, picture: int) -> np.ndarray:
        """The boxes of a picture, float32 `(n, 4)`."""
        return self.values[self.splits[picture] : self.splits[picture + 1]]


def window_frame(size: tf.Tensor, scale: tf.Tensor, crop_size: int, position) -> tf.Tensor:
    """Where a window lies in its picture: `[left, top, width, height]` as shares, float32.

    Args:
        size, scale: of the picture, and to what its smaller side is rescaled.
        crop_size, position: see `vgg_keras.pipelines.images.window_origin`.
    """
    scaled = rescaled_size(size, scale)
    origin = tf.cast(window_origin(scaled, crop_size, position), tf.float32)
    scaled = tf.cast(scaled, tf.float32)
    extent = tf.fill((2,), tf.cast(crop_size, tf.float32))
    return tf.concat([(origin / scaled)[::-1], (extent / scaled)[::-1]], 0)


def to_window(boxes, frame, flip=False):
    """Boxes of a picture as a window sees them.

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


def box_target(box: tf.Tensor, frame: tf.Tensor, flip, label: tf.Tensor) -> tf.Tensor:
    """What a net is to say of a window: the box as it sees it, and the class; float32 `(5,)`."""
    return tf.concat([to_window(box, frame, flip), [tf.cast(label, tf.float32)]], 0)


def from_window(seen, frame, flip: bool = False):
    """What `to_window` took, from what it gave: boxes in shares of the picture, a tensor.

    A negative width or height, which a net may say, counts as 0.

    Args:
        seen: `(..., 4)`, NumPy or TensorFlow.
        frame: `(..., 4)`.
        flip: whether the window was mirrored.
    """
    seen, frame = tf.convert_to_tensor(seen), tf.convert_to_tensor(frame)
    centre, extent = seen[..., :2], tf.maximum(seen[..., 2:], 0) / 2
    if flip:
        centre = tf.concat([1 - centre[..., :1], centre[..., 1:]], -1)
    low, high, corner, side = centre - extent, centre + extent, frame[..., :2], frame[..., 2:]
    return tf.concat([low * side + corner, high * side + corner], -1)


def inside(seen: tf.Tensor) -> tf.Tensor:
    """Whether the centre of a box, as a window sees it, lies in the window; bool `(...)`."""
    centre = tf.convert_to_tensor(seen)[..., :2]
    return tf.reduce_all((centre >= 0) & (centre <= 1), -1)


def iou(boxes, others):
    """Intersection over union of each pair, 0 to 1, 0 where a box is empty; a tensor.

    Args:
        boxes: `(..., 4)`, NumPy or TensorFlow, in one unit with `others`; a picture that is not
            square changes nothing, for both areas scale alike.
        others: of a shape that broadcasts with it; `boxes[:, None], others[None]` for all pairs.
    """
    boxes, others = tf.convert_to_tensor(boxes), tf.convert_to_tensor(others)
    low = tf.maximum(boxes[..., :2], others[..., :2])
    high = tf.minimum(boxes[..., 2:], others[..., 2:])
    both = tf.reduce_prod(tf.maximum(high - low, 0), -1)
    return tf.math.divide_no_nan(both, _area(boxes) + _area(others) - both)


def _area(boxes):
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)
