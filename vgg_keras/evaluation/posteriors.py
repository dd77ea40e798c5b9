"""Posteriors of a net for the images of a split, and the functions that compute them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.cache import open_row_cache
from vgg_keras.evaluation.procedure import Pass
from vgg_keras.evaluation.rows import RowFiller, RowPass, Table
from vgg_keras.forward import forward, num_devices, on_all_devices
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.splits import Split
from vgg_keras.trained import TrainedNet


def posteriors(
    net: TrainedNet,
    split: Split,
    passes: Sequence[Pass],
    *,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> np.ndarray:
    """Computes the mean posteriors of several passes, except for what is cached.

    Passes of one kind of view are averaged first, then the kinds, so that "multi-crop+dense" is
    the mean of two posteriors (§4.3).

    Args:
        net: classification net.
        split: images; their labels are not used.
        passes: from `Procedure.passes`.
        cache_dir: folder of the row cache, from which an interrupted evaluation continues. None:
            rows are in memory only.
        options: `batch_size`, `on_bad_image` and `verbose` of `RowFiller`.

    Returns:
        float32 `(len(split), classes)`; rows of NaN for images that were skipped.

    Raises:
        BadImageError, ArgumentError, OutOfMemoryError: see `RowFiller.fill`.
        WriteError: the cache cannot be written.
    """
    tables = posteriors_by_pass(net, split, passes, cache_dir=cache_dir, **options)
    kinds = dict.fromkeys(one.views for one in passes)
    return _mean(
        [
            _mean([rows for one, rows in zip(passes, tables, strict=True) if one.views == kind])
            for kind in kinds
        ]
    )


def posteriors_by_pass(
    net: TrainedNet,
    split: Split,
    passes: Sequence[Pass],
    *,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> list[np.ndarray]:
    """For each pass, posteriors as float32 `(len(split), classes)`; see `posteriors`."""
    tables, folder, decisive = [], Path(cache_dir) if cache_dir else None, []
    if folder:  # everything that decides the rows
        decisive = [net.digest, split.fingerprint(), net.mean, net.architecture.crop_size]
    shape = len(split), net.architecture.num_classes
    for one in passes:
        score = make_scorer(net, flip=one.flip, map_average=one.map_average)
        name = f"{one.views}-q{one.test_scale}"
        rows = open_row_cache(folder, name, [*decisive, asdict(one)], shape)
        tables.append(Table(rows, _sum_to_one, [row_pass(net, one, lambda v, _, s=score: s(v))]))
    RowFiller(split, **options).fill(tables)
    return [table.rows for table in tables]


def row_pass(net: TrainedNet, one: Pass, score: Callable, crop_size: int | None = None) -> RowPass:
    """A pass of a net, whose rows `score` computes."""
    return RowPass(
        name=str(one),
        views=one.views,
        test_scale=one.test_scale,
        flip=one.flip,
        crop_size=crop_size or net.architecture.crop_size,
        score=score,
        precision=net.precision,
        devices=num_devices(net.model),
    )


def _sum_to_one(rows: np.ndarray) -> np.ndarray:
    """Which posteriors are complete: one cut off by a kill does not sum to 1, nor does NaN."""
    return np.abs(rows.sum(1) - 1) < 1e-2


def make_scorer(
    net: TrainedNet, *, flip: bool = True, map_average: str = "scores"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a function from views of images to posteriors. One trace serves all image sizes.

    A net is traced once for each pair of `flip` and `map_average`.

    Args:
        net: classification net.
        flip: whether posteriors are averaged with those of the mirror images, which pass through
            the net in the same batch.
        map_average: see `Pass`.

    Returns:
        A `tf.function` from float32 `(B, V, H, W, 3)`, RGB in 0..255, to float32
        `(B, classes)`: the soft-max posteriors averaged over the views and both flips.

    Example:
        score = make_scorer(net)
        posteriors = score(tf.cast(images, tf.float32)[:, None])  # images: uint8 (B, H, W, 3)
    """
    scorers = _SCORERS.setdefault(net, {})
    if (flip, map_average) not in scorers:
        predict_fn = make_predict_fn(net, flip=flip, map_average=map_average)
        scorers[flip, map_average] = _scorer(net.model, predict_fn)
    return scorers[flip, map_average]


# The functions refer to models and not to nets, so that a net that is no longer used is freed.
_SCORERS: WeakKeyDictionary[TrainedNet, dict[tuple[bool, str], Callable]] = WeakKeyDictionary()


def _scorer(model: keras.Model, predict_fn: Callable) -> Callable[[tf.Tensor], tf.Tensor]:
    views_of_any_size = tf.TensorSpec((None, None, None, None, 3), tf.float32)

    def score_here(views: tf.Tensor) -> tf.Tensor:
        b, v, h, w, _ = tf.unstack(tf.shape(views))
        rows = predict_fn(tf.reshape(views, (b * v, h, w, 3)))["posteriors"]
        return tf.reduce_mean(tf.reshape(rows, (b, v, rows.shape[-1])), 1)

    @tf.function(input_signature=[views_of_any_size], autograph=False)
    def score(views: tf.Tensor) -> tf.Tensor:
        return on_all_devices(model, score_here, views)

    return score


def make_predict_fn(
    net: TrainedNet, *, flip: bool = True, map_average: str = "scores"
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function from images of one size to what the net gives, for use in a `tf.function`.

    Args:
        net, flip, map_average: see `make_scorer`.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, to float32 `posteriors`
        `(B, classes)`, with `flip` averaged with those of the mirror images, and `score_map`
        `(B, h, w, classes)`, the class scores of the images themselves.
    """
    maps, mean = forward(fully_convolutional(net.model)), net.mean

    def predict_fn(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = maps(with_mirror_images(images - tf.constant(mean, tf.float32), flip))
        if map_average == "scores":
            rows = tf.nn.softmax(found["scores"])
        else:
            rows = tf.reduce_mean(tf.nn.softmax(found["score_map"]), (1, 2))
        return {
            "posteriors": mean_over_flips(rows, flip),
            "score_map": found["score_map"][: tf.shape(images)[0]],
        }

    return predict_fn


def make_descriptor_fn(
    layer: keras.Model, mean: Sequence[float], flip: bool = True
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images of one size to descriptors, for use in a `tf.function` (§B).

    Args:
        layer: from images to the map of a layer, `(B, h, w, D)`.
        mean: RGB, subtracted from every pixel.
        flip: see `make_scorer`.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, to float32 `(B, D)`: activations
        averaged over positions and, with `flip`, with those of the mirror images.
    """

    activations_of = forward(layer)

    def descriptor_fn(images: tf.Tensor) -> tf.Tensor:
        centred = images - tf.constant(mean, tf.float32)
        activations = tf.cast(activations_of(with_mirror_images(centred, flip)), tf.float32)
        return mean_over_flips(tf.reduce_mean(activations, (1, 2)), flip)

    return descriptor_fn


def with_mirror_images(images: tf.Tensor, flip: bool) -> tf.Tensor:
    """`(B, H, W, 3)`, followed by their mirror images if `flip`."""
    return tf.concat([images, tf.reverse(images, (2,))], 0) if flip else images


def mean_over_flips(rows: tf.Tensor, flip: bool) -> tf.Tensor:
    """Mean of rows `(2 * B, N)` over the images, which come first, and their mirror images."""
    return tf.reduce_mean(tf.stack(tf.split(rows, 1 + flip)), 0)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of float32 arrays of one shape. It replaces the first one, unless that is a cache."""
    first, *others = arrays
    total = np.array(first) if isinstance(first, np.memmap) else first
    for array in others:
        total += array
    total /= np.float32(len(arrays))
    return total
