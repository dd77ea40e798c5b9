"""The training stream of §3.1: rescale, crop, flip, colour shift, mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.boxes import Boxes, box_target, inside, window_frame
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.images import no_autograph, upright_size, window
from vgg_keras.pipelines.splits import WHOLE_BATCH, Shard, Split
from vgg_keras.pipelines.statistics import Statistics


def training_stream(
    split: Split,
    *,
    crop_size: int,
    train_scale: int | tuple[int, int],
    batch_size: int,
    statistics: Statistics,
    seed: int = 0,
    first_epoch: int = 0,
    flip: bool = True,
    colour_shift: float = 0.1,
    boxes: Boxes | None = None,
    shard: Shard = WHOLE_BATCH,
) -> tf.data.Dataset:
    """Makes an infinite dataset of batches of random crops. Each epoch has its own order.

    An epoch is `steps_per_epoch(split, batch_size)` batches; images that do not fill a last batch
    are not used in it. Every draw is a function of (seed, epoch, index of the image), so the stream
    is bit-identical for any number of threads. A stream that starts at `first_epoch` continues a
    stream that ended there.

    ```python
    crops = {"crop_size": 224, "train_scale": (256, 512), "batch_size": 256}
    train = training_stream(split, statistics=ILSVRC, **crops)
    model.fit(train, steps_per_epoch=steps_per_epoch(split, 256), shuffle=False)
    ```

    Args:
        split: the images.
        crop_size: side of the crops.
        train_scale: the paper's S, smaller side of the rescaled image: fixed, or a pair between
            which it is drawn for each image, both ends included.
        batch_size: number of images in a batch, over all devices.
        statistics: the mean to subtract and the components of the colour shift.
        seed: 0 to 2**31 - 1.
        first_epoch: epoch to start from.
        flip: whether half of the crops are mirrored.
        colour_shift: standard deviation of the colour draws; 0 for none (Krizhevsky et al.
            2012, §4.1: 0.1).
        boxes: boxes of the images, to train a net that predicts boxes. One of several is drawn.
        shard: the rows of every batch to give; other rows are not read where that is possible.

    Returns:
        An infinite dataset of (float32 `(batch_size, crop_size, crop_size, 3)`, RGB minus the
        mean; int64 labels `(batch_size,)`). With `boxes`, of (the same images; `box_target`s
        `(batch_size, 5)`; float32 weights `(batch_size,)`, 0 for a crop without the box's centre).

    Raises:
        ArgumentError: a scale is below the crop size, or the batch is larger than the split.
    """
    draw = _Draw(crop_size, scale_range(train_scale, crop_size), statistics, flip, colour_shift)
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    examples = epochs.flat_map(_epochs(split, seed, batch_size, shard))
    return (
        split.fetched(examples)
        .map(_random_crop(split, draw, boxes), tf.data.AUTOTUNE, deterministic=True)
        .batch(shard.rows(batch_size), drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


class _Draw(NamedTuple):
    """How a crop is drawn; see `training_stream`."""

    crop_size: int
    scales: tuple[int, int]
    statistics: Statistics
    flip: bool
    colour_shift: float


def _epochs(
    split: Split, seed: int, batch_size: int, shard: Shard
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from an epoch to its (example, key of its draws)."""
    images = steps_per_epoch(split, batch_size) * batch_size

    @no_autograph
    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.cast(seed, tf.int64) * 2**32 + epoch
        examples = split.shuffled(key).take(images)
        keys = tf.data.Dataset.from_tensors(key).repeat()
        return tf.data.Dataset.zip(shard.of(examples, batch_size), keys)

    return epoch_of


def _random_crop(split: Split, draw: _Draw, boxes: Boxes | None) -> Callable:
    """A function from an example and a key to its random crop and its target."""
    crop_size, (smallest, largest) = draw.crop_size, draw.scales
    mean = tf.constant(draw.statistics.mean, tf.float32)
    shift_matrix = tf.constant(draw.statistics.shift_matrix() * draw.colour_shift, tf.float32)

    @no_autograph
    def crop(example: Mapping[str, tf.Tensor], key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draws = tf.random.stateless_uniform((7,), tf.stack([key, example["index"]]))
        scale = smallest + tf.cast(draws[0] * (largest - smallest + 1.0), tf.int32)
        mirrored = draws[3] < 0.5 if draw.flip else tf.constant(False)
        normal = tf.math.ndtri(tf.maximum(draws[4:7], 1e-7))  # ndtri(0) is -inf
        shift = tf.linalg.matvec(shift_matrix, normal) - mean
        image_bytes = split.read(example)
        pixels = window(image_bytes, scale, crop_size, draws[1:3], mirrored, shift)
        if boxes is None:
            return pixels, example["label"]
        # A separate draw, so that the crops are the same as in classification.
        which = tf.random.stateless_uniform((), tf.stack([key, -1 - example["index"]]))
        box = boxes.drawn(example["index"], which)
        frame = window_frame(upright_size(image_bytes), scale, crop_size, draws[1:3])
        target = box_target(box, frame, mirrored, example["label"])
        return pixels, target, tf.cast(inside(target), tf.float32)

    return crop


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of full batches in the split.

    ```python
    model.fit(stream, steps_per_epoch=steps_per_epoch(split, 64), epochs=74)
    ```

    Raises:
        ArgumentError: the batch is larger than the split.
    """
    if not 1 <= batch_size <= len(split):
        raise ArgumentError(
            f"batch_size must be from 1 to the number of training images, {len(split)}. "
            f"Received: batch_size={batch_size}",
            "batch_size",
        )
    return len(split) // batch_size


def scale_range(train_scale: int | tuple[int, int], crop_size: int) -> tuple[int, int]:
    """(S_min, S_max) of a fixed or drawn scale.

    Raises:
        ArgumentError: a scale is below the crop size, or S_min is above S_max.
    """
    pair = (train_scale, train_scale) if isinstance(train_scale, int) else tuple(train_scale)
    if len(pair) != 2 or not crop_size <= pair[0] <= pair[1]:
        raise ArgumentError(
            f"train_scale must be a number, or a pair S_min, S_max with S_min <= S_max, at least "
            f"the crop size, {crop_size}. Received: train_scale={train_scale}",
            "train_scale",
        )
    return pair[0], pair[1]
