"""Streams for scoring: every picture once, in order."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pipelines.images import add_to_pixels, window
from pipelines.sources import Split


def centre_crops(
    split: Split,
    *,
    crop_size: int,
    test_scales: Sequence[int],
    batch_size: int,
    mean: Sequence[float],
) -> tf.data.Dataset:
    """The central crop of every picture at each test scale.

    Args:
        split: pictures.
        crop_size: side of the crops.
        test_scales: the paper's Q, smaller sides of the rescaled picture.
        batch_size: pictures a batch; the last one may be smaller.
        mean: RGB, to subtract.

    Returns:
        A data set of (float32 `(B, len(test_scales), crop_size, crop_size, 3)`, int64 `(B,)`).

    Raises:
        ValueError: a scale below the crop size.
    """
    for scale in test_scales:
        if scale < crop_size:
            raise ValueError(
                f"A test scale must be at least the crop size, {crop_size}. Received: {scale}"
            )
    minus_mean = -tf.constant(mean, tf.float32)

    def crops(example):
        encoded = split.read(example)
        centre = tf.constant([0.5, 0.5])
        views = [window(encoded, q, crop_size, centre, False) for q in test_scales]
        return tf.stack([add_to_pixels(v, minus_mean) for v in views]), example["label"]

    return (
        split.in_order()
        .map(crops, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_stream(
    split: Split,
    *,
    crop_size: int,
    test_scale: int,
    batch_size: int,
    mean: Sequence[float],
) -> tf.data.Dataset:
    """Central crops for `validation_data`: full batches, the last one filled with weight 0.

    Batches of one size divide among replicas, and the weights let every picture count once:
    use `weighted_metrics`. (Keras's `val_loss` divides by the batch size, filling included.)

    Returns:
        A data set of (float32 `(batch_size, crop_size, crop_size, 3)`, int64 `(batch_size,)`,
        float32 weights `(batch_size,)`, 1 for a picture and 0 for filling).
    """
    crops = centre_crops(
        split, crop_size=crop_size, test_scales=(test_scale,), batch_size=batch_size, mean=mean
    )

    def fill(images, labels):
        count = tf.shape(labels)[0]
        missing = batch_size - count
        images = tf.pad(images[:, 0], [[0, missing], [0, 0], [0, 0], [0, 0]])
        weights = tf.pad(tf.ones(count), [[0, missing]])
        labels = tf.pad(labels, [[0, missing]])
        shape = (batch_size, crop_size, crop_size, 3)
        return (
            tf.ensure_shape(images, shape),
            tf.ensure_shape(labels, shape[:1]),
            tf.ensure_shape(weights, shape[:1]),
        )

    return crops.map(fill, num_parallel_calls=tf.data.AUTOTUNE)
