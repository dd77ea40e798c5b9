"""Streams for evaluation, which give every image once.

Elements hold *views* of images, float32 RGB in 0..255 `(B, V, H, W, 3)`, with the indices of the
images in the split. The views are the whole image, or the crops of a regular grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from vgg_keras.pipelines.boxes import Boxes, box_target, window_frame
from vgg_keras.pipelines.checks import check_at_least, check_test_scale
from vgg_keras.pipelines.errors import ArgumentError
from vgg_keras.pipelines.images import (
    decode,
    no_autograph,
    rescale,
    rescaled_size,
    upright_size,
    window,
)
from vgg_keras.pipelines.splits import WHOLE_BATCH, Shard, Split

_WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_MAX_SIDE = 2**31  # above any side: height and width of a rescaled image become one number


def whole_images(
    split: Split,
    *,
    test_scale: int,
    batch_pixels: int,
    wanted: np.ndarray | None = None,
    skip_unreadable: bool = False,
) -> tf.data.Dataset:
    """Makes a dataset of whole images at a test scale, in batches of one shape.

    Encoded images are held back until a batch of their shape is full, so that no image is padded.

    ```python
    for indices, views in whole_images(split, test_scale=256, batch_pixels=4 * 256 * 340):
        scores[indices.numpy()] = model(views[:, 0] - mean)
    ```

    Args:
        split: the images.
        test_scale: the paper's Q, smaller side of the rescaled images.
        batch_pixels: largest number of pixels in a batch. A batch has at least one image.
        wanted: bool `(len(split),)`, which images to give; by default all.
        skip_unreadable: skip images that cannot be read instead of raising an error.

    Returns:
        A dataset of (int64 `(B,)`, float32 `(B, 1, H, W, 3)`). The order of the images is not
        defined.
    """

    @no_autograph
    def measured(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        height, width = tf.unstack(
            tf.cast(rescaled_size(upright_size(encoded), test_scale), tf.int64)
        )
        return height * _MAX_SIDE + width, index, encoded

    def batch_size(shape: tf.Tensor) -> tf.Tensor:
        return tf.maximum(batch_pixels // ((shape // _MAX_SIDE) * (shape % _MAX_SIDE)), 1)

    @no_autograph
    def load(_: tf.Tensor, index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, rescale(decode(encoded), test_scale)[None]

    def batch_of_a_shape(shape: tf.Tensor, images: tf.data.Dataset) -> tf.data.Dataset:
        loaded = images.map(load, num_parallel_calls=_WORKERS)
        return _readable(loaded, skip_unreadable).batch(batch_size(shape))

    images = _encoded(split, wanted).map(measured, num_parallel_calls=_WORKERS)
    return _buffered(
        _readable(images, skip_unreadable).group_by_window(
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
    """Makes a dataset of the crops of a regular grid over every rescaled image.

    A grid of 1 is the central crop. In a larger grid the first and last crops of each direction
    touch the image's borders.

    ```python
    crops = grid_crops(split, test_scale=256, crop_size=224, grid=5, batch_size=8)
    indices, views = next(iter(crops))  # views: (8, 25, 224, 224, 3)
    ```

    Args:
        crop_size: side of the crops.
        grid: number of crops in each direction, the paper's 5.
        batch_size: number of images in a batch; the last batch may be smaller.
        split, test_scale, wanted, skip_unreadable: see `whole_images`.

    Returns:
        A dataset of (int64 `(B,)`, float32 `(B, grid**2, crop_size, crop_size, 3)`), in order.

    Raises:
        ArgumentError: the scale is below the crop size.
    """
    check_test_scale(test_scale, crop_size)

    @no_autograph
    def load(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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
        size: `[height, width]` of the rescaled image.
        crop_size: side of the crops.
        grid: number of crops in each direction.
    """
    shares = [0.5] if grid == 1 else [i / (grid - 1) for i in range(grid)]
    last = tf.cast(tf.convert_to_tensor(size) - crop_size, tf.float32)
    return tf.cast(tf.floor(last[:, None] * tf.constant(shares) + 0.5), tf.int32)


def read_images(
    split: Split, indices: Sequence[int] | np.ndarray | None = None
) -> dict[int, np.ndarray]:
    """Decodes the images of a split, upright.

    ```python
    images = read_images(split, [0, 7])
    images[7].shape  # (H, W, 3)
    ```

    Args:
        split: the images.
        indices: which images to decode; by default all.

    Returns:
        uint8 `(H, W, 3)` by index.
    """
    wanted = np.full(len(split), indices is None)
    wanted[np.array([] if indices is None else indices, int)] = True
    encoded = _encoded(split, wanted).as_numpy_iterator()
    return {int(index): decode(image_bytes).numpy() for index, image_bytes in encoded}


def validation_stream(
    split: Split,
    *,
    crop_size: int,
    test_scale: int,
    batch_size: int,
    mean: Sequence[float],
    boxes: Boxes | None = None,
    fill_last: bool = False,
    shard: Shard = WHOLE_BATCH,
) -> tf.data.Dataset:
    """Makes a dataset of the central crop of every image, in order, for `validation_data`.

    The last batch is smaller if the batch size does not divide the number of images, so
    `metrics=["accuracy"]` is the accuracy over all images.

    ```python
    val = validation_stream(split, crop_size=224, test_scale=384, batch_size=64, mean=colours.mean)
    ```

    Args:
        split: the images.
        crop_size: side of the crops.
        test_scale: smaller side of the rescaled images.
        batch_size: number of images in a batch.
        mean: RGB mean that is subtracted from every pixel.
        boxes: boxes of the images, to validate a net that predicts boxes.
        fill_last: fill the last batch with rows of weight 0, and give weights. Batches of one size
            divide evenly among devices. With the weights every image counts once in
            `weighted_metrics`; Keras's `val_loss` still divides by the batch size.
        shard: the rows of every batch to give, if several processes share the batches. It needs
            `fill_last`.

    Returns:
        A dataset of (float32 `(B, crop_size, crop_size, 3)`, RGB minus the mean; int64 labels
        `(B,)`). With `boxes`, `box_target`s of the images' first boxes, float32 `(B, 5)`, instead
        of labels. With `fill_last`, also float32 weights `(B,)`, 1 for an image and 0 for filling.

    Raises:
        ArgumentError: the scale is below the crop size, or `shard` is given without `fill_last`.
    """
    check_test_scale(test_scale, crop_size)
    check_at_least("batch_size", batch_size, 1)
    _check_shard(shard, fill_last)
    rows, batches = shard.rows(batch_size), -(-len(split) // batch_size)
    batched = (
        shard.of(split.in_order(), batch_size)
        .map(
            _central_crop(split, crop_size, test_scale, mean, boxes),
            num_parallel_calls=_WORKERS,
            deterministic=True,
        )
        .batch(rows)
    )
    if fill_last:
        batched = _filled(batched, rows, batches)
    return _buffered(batched.apply(tf.data.experimental.assert_cardinality(batches)))


def _check_shard(shard: Shard, fill_last: bool) -> None:
    if shard.count > 1 and not fill_last:
        raise ArgumentError(
            f"fill_last must be True if several processes share the batches. Received: "
            f"fill_last=False, shard={shard}",
            "fill_last",
        )


def _central_crop(
    split: Split, crop_size: int, test_scale: int, mean: Sequence[float], boxes: Boxes | None
) -> Callable[[Mapping[str, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """A function from an example to its central crop and its target."""
    minus_mean = -tf.constant(mean, tf.float32)

    @no_autograph
    def central_crop(example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        centre = tf.constant([0.5, 0.5])
        image_bytes = split.read(example)
        crop = window(image_bytes, test_scale, crop_size, centre, False, minus_mean)
        if boxes is None:
            return crop, example["label"]
        frame = window_frame(upright_size(image_bytes), test_scale, crop_size, centre)
        return crop, box_target(boxes.drawn(example["index"], 0.0), frame, False, example["label"])

    return central_crop


def _filled(batched: tf.data.Dataset, rows: int, batches: int) -> tf.data.Dataset:
    """The given number of batches of `rows` rows, filled with zeros, with weights."""

    @no_autograph
    def fill(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = tf.shape(targets)[0]
        missing = rows - count
        weights = tf.pad(tf.ones(count), [[0, missing]])
        images, targets = (
            tf.pad(tensor, [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1))
            for tensor in (images, targets)
        )
        return (
            tf.ensure_shape(images, (rows, *images.shape[1:])),
            tf.ensure_shape(targets, (rows, *targets.shape[1:])),
            tf.ensure_shape(weights, (rows,)),
        )

    filled = batched.map(fill, num_parallel_calls=_WORKERS)
    # The last batch can end before this shard of it begins.
    blank = [tf.zeros(spec.shape, spec.dtype) for spec in filled.element_spec]
    return filled.concatenate(tf.data.Dataset.from_tensors(tuple(blank))).take(batches)


def _encoded(split: Split, wanted: np.ndarray | None) -> tf.data.Dataset:
    """(index, encoded bytes) of the wanted images, in order."""
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
    """Prepares batches in advance, without two features of tf.data (seen with TensorFlow 2.21).

    The end of an iterator waits for the tuning thread, sometimes for seconds. Rewriting the graph
    takes as long as all other preparation of a stream, and makes no stream faster.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.prefetch(2).with_options(options)
