"""Streams for scoring: every picture once.

Elements are *views* of pictures, float32 RGB in 0..255 `(B, V, H, W, 3)`, with the pictures' places
in the split: one view of the whole picture, or the crops of a regular grid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from vgg_keras.pipelines.boxes import Boxes, box_target, window_frame
from vgg_keras.pipelines.images import (
    decode,
    no_autograph,
    rescale,
    rescaled_size,
    upright_size,
    window,
)
from vgg_keras.pipelines.sources import WHOLE, Part, Split

_WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_SIDES = 2**31  # height and width of a rescaled picture as one key


def whole_images(
    split: Split,
    *,
    test_scale: int,
    batch_pixels: int,
    wanted: np.ndarray | None = None,
    skip_unreadable: bool = False,
) -> tf.data.Dataset:
    """Whole pictures, rescaled to a smaller side of `test_scale`, in batches of one shape.

    Pictures wait, encoded, until there are enough of their shape, so no pixel is padding.

    Args:
        split: pictures.
        test_scale: the paper's Q.
        batch_pixels: pixels a batch at most, but one picture at least.
        wanted: bool `(len(split),)`, which pictures to give; all by default.
        skip_unreadable: leave out pictures that cannot be read, in place of raising.

    Returns:
        A data set of (int64 `(B,)`, float32 `(B, 1, H, W, 3)`), in no order to rely on.
    """

    @no_autograph
    def measured(index, encoded):
        height, width = tf.unstack(
            tf.cast(rescaled_size(upright_size(encoded), test_scale), tf.int64)
        )
        return height * _SIDES + width, index, encoded

    def batch_size(shape):
        return tf.maximum(batch_pixels // ((shape // _SIDES) * (shape % _SIDES)), 1)

    @no_autograph
    def load(_, index, encoded):
        return index, rescale(decode(encoded), test_scale)[None]

    def batch_of_a_shape(shape, pictures):
        loaded = pictures.map(load, num_parallel_calls=_WORKERS)
        return _readable(loaded, skip_unreadable).batch(batch_size(shape))

    pictures = _encoded(split, wanted).map(measured, num_parallel_calls=_WORKERS)
    return _buffered(
        _readable(pictures, skip_unreadable).group_by_window(
            lambda shape, *_: shape, batch_of_a_shape, window_size_func=batch_size
        )
    )


def grid_crops(
    split: Split,
    *,
    test_scale: int,
    crop_size: int,
    grid: int,
    batch_size: int,
    wanted: np.ndarray | None = None,
    skip_unreadable: bool = False,
) -> tf.data.Dataset:
    """The crops of a regular grid over every rescaled picture.

    A grid of 1 is the central crop. In a larger one the first and last crops of each direction
    touch the picture's borders.

    Args:
        crop_size: side of the crops.
        grid: crops in each direction, the paper's 5.
        batch_size: pictures a batch; the last one may be smaller.
        split, test_scale, wanted, skip_unreadable: as for `whole_images`.

    Returns:
        A data set of (int64 `(B,)`, float32 `(B, grid**2, crop_size, crop_size, 3)`), in order.

    Raises:
        ValueError: the scale is below the crop size.
    """
    check_test_scale(test_scale, crop_size)

    @no_autograph
    def load(index, encoded):
        image = rescale(decode(encoded), test_scale)
        rows, columns = tf.unstack(grid_origins(tf.shape(image)[:2], crop_size, grid))
        crops = [
            image[rows[i] : rows[i] + crop_size, columns[j] : columns[j] + crop_size]
            for i in range(grid)
            for j in range(grid)
        ]
        return index, tf.ensure_shape(tf.stack(crops), (grid**2, crop_size, crop_size, 3))

    loaded = _encoded(split, wanted).map(load, num_parallel_calls=_WORKERS)
    return _buffered(_readable(loaded, skip_unreadable).batch(batch_size))


def grid_origins(size: tf.Tensor, crop_size: int, grid: int) -> tf.Tensor:
    """First rows and first columns of a grid of crops, int32 `(2, grid)`.

    Args:
        size: `[height, width]` of the rescaled picture.
        crop_size: side of the crops.
        grid: crops in each direction.
    """
    shares = [0.5] if grid == 1 else [i / (grid - 1) for i in range(grid)]
    room = tf.cast(tf.convert_to_tensor(size) - crop_size, tf.float32)
    return tf.cast(tf.floor(room[:, None] * tf.constant(shares) + 0.5), tf.int32)


def read_pictures(split: Split, places: Sequence[int]) -> dict[int, np.ndarray]:
    """The pictures at some places of a split: uint8 `(H, W, 3)`, upright, by place."""
    wanted = np.zeros(len(split), bool)
    wanted[list(places)] = True
    encoded = _encoded(split, wanted).as_numpy_iterator()
    return {int(place): decode(image_bytes).numpy() for place, image_bytes in encoded}


def check_test_scale(test_scale: int, crop_size: int) -> None:
    """Raises ValueError for a scale at which pictures are smaller than the crop."""
    if test_scale < crop_size:
        raise ValueError(
            f"A test scale must be at least the crop size, {crop_size}. Received: {test_scale}"
        )


def _encoded(split: Split, wanted: np.ndarray | None) -> tf.data.Dataset:
    """(place, encoded bytes) of the wanted pictures, in order."""
    examples = split.in_order()
    if wanted is not None:
        is_wanted = tf.constant(wanted)
        examples = examples.filter(lambda example: is_wanted[example["index"]])
    return examples.map(
        lambda example: (example["index"], split.read(example)),
        num_parallel_calls=_WORKERS,
    )


def _readable(dataset: tf.data.Dataset, skip_unreadable: bool) -> tf.data.Dataset:
    return dataset.ignore_errors() if skip_unreadable else dataset


def _buffered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """With batches made ahead, and without two things of tf.data (seen with TensorFlow 2.21): its
    tuning thread, for which the iterator's end waits, sometimes for seconds; and its rewriting of
    the graph, which takes as long as the rest of setting a stream up and makes none faster."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.prefetch(2).with_options(options)


def validation_stream(
    split: Split,
    *,
    crop_size: int,
    test_scale: int,
    batch_size: int,
    mean: Sequence[float],
    boxes: Boxes | None = None,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """Central crops for `validation_data`: full batches, the last one filled with weight 0.

    Batches of one size divide among replicas, and the weights let every picture count once:
    use `weighted_metrics`. (Keras's `val_loss` divides by the batch size, filling included.)

    Args:
        part: rows of every batch to give, where several processes share the batches.

    Returns:
        A data set of (float32 `(batch_size, crop_size, crop_size, 3)`, int64 `(batch_size,)`,
        float32 weights `(batch_size,)`, 1 for a picture and 0 for filling). With `boxes`, float32
        `box_target`s of the pictures' first boxes, `(batch_size, 5)`, in place of labels.

    Raises:
        ValueError: the scale is below the crop size.
    """
    check_test_scale(test_scale, crop_size)
    minus_mean = -tf.constant(mean, tf.float32)
    rows, batches = part.rows(batch_size), -(-len(split) // batch_size)

    @no_autograph
    def central_crop(example):
        centre = tf.constant([0.5, 0.5])
        image_bytes = split.read(example)
        crop = window(image_bytes, test_scale, crop_size, centre, False, minus_mean)
        if boxes is None:
            return crop, example["label"]
        frame = window_frame(upright_size(image_bytes), test_scale, crop_size, centre)
        return crop, box_target(boxes.drawn(example["index"], 0.0), frame, False, example["label"])

    @no_autograph
    def fill(images, targets):
        count = tf.shape(targets)[0]
        missing = rows - count
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        weights = tf.pad(tf.ones(count), [[0, missing]])
        targets = tf.pad(targets, [[0, missing]] + [[0, 0]] * (targets.shape.rank - 1))
        shape = (rows, crop_size, crop_size, 3)
        return (
            tf.ensure_shape(images, shape),
            tf.ensure_shape(targets, (rows, *targets.shape[1:])),
            tf.ensure_shape(weights, shape[:1]),
        )

    filled = (
        part.of(split.in_order(), batch_size)
        .map(central_crop, num_parallel_calls=_WORKERS, deterministic=True)
        .batch(rows)
        .map(fill, num_parallel_calls=_WORKERS)
    )
    # The last batch can end before this part of it begins.
    blank = [tf.zeros(spec.shape, spec.dtype) for spec in filled.element_spec]
    whole = filled.concatenate(tf.data.Dataset.from_tensors(tuple(blank))).take(batches)
    return _buffered(whole.apply(tf.data.experimental.assert_cardinality(batches)))
