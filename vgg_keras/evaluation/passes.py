"""Runs a net over every picture of a split, and keeps what it has done."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from vgg_keras.distribution import on_all_devices
from vgg_keras.evaluation.cache import digest_of, open_row_cache
from vgg_keras.evaluation.meter import Meter
from vgg_keras.evaluation.protocols import VIEWS, Pass
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.evaluation import check_test_scale, grid_crops, whole_images
from vgg_keras.pipelines.screening import naming_bad_images
from vgg_keras.pipelines.splits import Split
from vgg_keras.recipes import BAD_IMAGE_POLICIES

log = logging.getLogger(__name__)


class PassRunner:
    """A net that looks at a split in the ways of §3.2.

    Args:
        model: from `vgg`, with or without soft-max.
        split: pictures.
        crop_size: of the net's training.
        mean: RGB, subtracted from every pixel.
        batch_size: memory of a device, as the number of crops that pass through the net together;
            whole pictures are batched to as many pixels. Has no influence on the result.
        on_bad_image: "stop", or "skip" to leave a row of NaN for a picture that cannot be read.
        cache_dir: folder of the row cache, from which an interrupted evaluation continues. None:
            rows are in memory only.

    Raises:
        ValueError: a batch size under 1, or no such policy.
    """

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        *,
        crop_size: int,
        mean: Sequence[float],
        batch_size: int = 64,
        on_bad_image: str = "stop",
        cache_dir: str | os.PathLike | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")
        if on_bad_image not in BAD_IMAGE_POLICIES:
            raise ValueError(
                f"on_bad_image must be one of {', '.join(BAD_IMAGE_POLICIES)}. "
                f"Received: {on_bad_image!r}"
            )
        self.model = model
        self.split = split
        self.crop_size = crop_size
        self.mean = tuple(mean)
        self.batch_size = batch_size
        self.on_bad_image = on_bad_image
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._scorers: dict[tuple[bool, str], Callable] = {}

    def posteriors(self, passes: Iterable[Pass]) -> np.ndarray:
        """Runs what is not done yet; float32 `(len(split), classes)`, their average.

        Passes of one kind of view are averaged first, then the kinds, so that "multi-crop+dense"
        is the mean of two posteriors (§4.3).

        Raises:
            BadImageError, ValueError, MemoryError, OSError: see `tables`.
        """
        passes = list(passes)
        tables = self.tables(passes)
        kinds = dict.fromkeys(p.views for p in passes)
        return _mean(
            _mean(t for p, t in zip(passes, tables, strict=True) if p.views == kind)
            for kind in kinds
        )

    def tables(self, passes: Sequence[Pass]) -> list[np.ndarray]:
        """Runs what is not done yet; for each pass float32 `(len(split), outputs)`.

        Raises:
            BadImageError: a picture cannot be read, and `on_bad_image` is "stop".
            ValueError: a scale below the crop size, or a net that gives NaN.
            MemoryError: a batch does not fit; the message says what would.
            OSError: the folder to keep results in cannot be written.
        """
        for one in passes:
            check_test_scale(one.test_scale, self.crop_size)
        tables = [self._table(p) for p in passes]
        to_do = [~self._done(table) for table in tables]
        total = sum(self._cost(p) * rows.sum() for p, rows in zip(passes, to_do, strict=True))
        with Meter(total) as meter:
            for one, table, wanted in zip(passes, tables, to_do, strict=True):
                if wanted.any():
                    self._run(one, table, wanted, meter)
        return tables

    @staticmethod
    def _done(table: np.ndarray) -> np.ndarray:
        """Which rows are there whole: one cut off by a kill does not sum to 1, nor does NaN."""
        return np.abs(table.sum(1) - 1) < 1e-2

    def _run(self, one: Pass, table: np.ndarray, wanted: np.ndarray, meter: Meter) -> None:
        score = self._scorer(one.flip, one.map_average)
        meter.start(str(one), int(wanted.sum()), self._cost(one))
        at_once = max(1, self.batch_size // (1 + one.flip))
        for places, views in self._batches(one, wanted):
            parts = range(0, views.shape[1], at_once)
            with self._explaining_memory(places, views.shape):
                sums = [
                    score(part).numpy() * part.shape[1]
                    for part in (views[:, i : i + at_once] for i in parts)
                ]
            rows = sum(sums) / np.float32(views.shape[1])
            self._refuse_nan(places, rows)
            table[places.numpy()] = rows
            meter.advance(len(places))
        meter.finish()

    def _batches(self, one: Pass, wanted: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        # A generator, so that errors of what is done with a batch are not taken for a picture's.
        with naming_bad_images(self.split):
            yield from self.stream(one, wanted)

    def _refuse_nan(self, places: tf.Tensor, rows: np.ndarray) -> None:
        bad = places.numpy()[np.isnan(rows).any(1)]
        if len(bad):
            raise ValueError(
                f"The net gives NaN for {self.split.names_of(bad)[0]}. Its weights hold NaN or "
                f"Inf, or overflow in {self.model.dtype_policy.name}."
            )

    @contextlib.contextmanager
    def _explaining_memory(self, places: tf.Tensor, shape: tf.TensorShape) -> Iterator[None]:
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            b, v, h, w, _ = shape
            names = ", ".join(self.split.names_of(places.numpy()[:3]))
            advice = (
                f"Give a smaller --batch-size than {self.batch_size}"
                if b * v > 1 and self.batch_size > 1
                else "Leave it out, or test at a smaller scale"
            )
            raise MemoryError(
                f"{b} picture{'s' * (b > 1)} of {h} x {w} pixels ({v} to a picture) did not fit "
                f"into memory: {names}{', ...' * (b > 3)}. {advice}."
            ) from error

    def stream(self, one: Pass, wanted: np.ndarray | None = None) -> tf.data.Dataset:
        """(places `(B,)`, pixels `(B, V, H, W, 3)`) of the pictures that are wanted."""
        grid, flips = VIEWS[one.views].grid, 1 + one.flip
        batch_size = self.batch_size * self.model.distribute_strategy.num_replicas_in_sync
        skip = self.on_bad_image == "skip"
        if not grid:
            return whole_images(
                self.split,
                test_scale=one.test_scale,
                batch_pixels=batch_size * self.crop_size**2 // flips,
                wanted=wanted,
                skip_unreadable=skip,
            )
        return grid_crops(
            self.split,
            test_scale=one.test_scale,
            crop_size=self.crop_size,
            grid=grid,
            batch_size=max(1, batch_size // (flips * grid**2)),
            wanted=wanted,
            skip_unreadable=skip,
        )

    def _cost(self, one: Pass) -> float:
        """Pixels that the net sees of a picture, by its smaller side: for the time left."""
        pixels = VIEWS[one.views].grid ** 2 * self.crop_size**2 or one.test_scale**2
        return float(pixels * (1 + one.flip))

    def _scorer(self, flip: bool, map_average: str) -> Callable:
        key = flip, map_average
        if key not in self._scorers:
            self._scorers[key] = make_scorer(self.model, self.mean, flip, map_average)
        return self._scorers[key]

    def _table(self, one: Pass) -> np.ndarray:
        """Rows of a pass, in memory or in a file; NaN where they are still to be made."""
        shape = len(self.split), self.model.output_shape[-1]
        metadata = None  # the digest is worth its time only where it names a file
        if self.cache_dir:
            # All that decides the rows, but for the contents of the pictures.
            metadata = [self._digest, self._names, self.mean, self.crop_size, asdict(one)]
        return open_row_cache(self.cache_dir, f"{one.views}-q{one.test_scale}", metadata, shape)

    @functools.cached_property
    def _digest(self) -> str:
        return digest_of(self.model)

    @functools.cached_property
    def _names(self) -> list[str]:
        return self.split.names_of(range(len(self.split)))


def make_scorer(
    model: keras.Model, mean: Sequence[float], flip: bool = True, map_average: str = "scores"
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from views of pictures to posteriors; one trace serves all sizes.

    Args:
        model: from `vgg`, with or without soft-max.
        mean: RGB, subtracted from every pixel.
        flip: average with the mirror images, which pass through the net in the same batch.
        map_average: see `Pass`.

    Returns:
        A `tf.function` from float32 `(B, V, H, W, 3)`, RGB in 0..255, to float32
        `(B, classes)`: the soft-max posteriors averaged over the views and both flips.
    """
    look = make_predict_fn(model, mean, flip, map_average)
    views_of_any_size = tf.TensorSpec((None, None, None, None, 3), tf.float32)

    def score_here(views):
        b, v, h, w, _ = tf.unstack(tf.shape(views))
        posteriors = look(tf.reshape(views, (b * v, h, w, 3)))["posteriors"]
        return tf.reduce_mean(tf.reshape(posteriors, (b, v, posteriors.shape[-1])), 1)

    @tf.function(input_signature=[views_of_any_size], autograph=False)
    def score(views):
        return on_all_devices(model, score_here, views)

    return score


def make_predict_fn(
    model: keras.Model, mean: Sequence[float], flip: bool = True, map_average: str = "scores"
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """What a net makes of pictures of one size, for use inside a `tf.function`.

    Args:
        model, mean, flip, map_average: see `make_scorer`.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, to float32 `posteriors`
        `(B, classes)`, with `flip` the average with the mirror images', and `score_map`
        `(B, h, w, classes)`, the class scores of the pictures themselves.
    """
    maps = fully_convolutional(model)

    def look(images):
        found = maps(with_mirror_images(images - tf.constant(mean, tf.float32), flip))
        if map_average == "scores":
            posteriors = tf.nn.softmax(found["scores"])
        else:
            posteriors = tf.reduce_mean(tf.nn.softmax(found["score_map"]), (1, 2))
        return {
            "posteriors": mean_of_mirrored(posteriors, flip),
            "score_map": found["score_map"][: tf.shape(images)[0]],
        }

    return look


def make_descriptor_fn(
    layer: keras.Model, mean: Sequence[float], flip: bool = True
) -> Callable[[tf.Tensor], tf.Tensor]:
    """What a net up to a layer makes of pictures of one size, for use inside a `tf.function` (§B).

    Args:
        layer: from pictures to the layer's map `(B, h, w, D)`.
        mean, flip: see `make_scorer`.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, to float32 `(B, D)`: activations
        averaged over places and, with `flip`, with the mirror image's.
    """

    def describe(images):
        centred = images - tf.constant(mean, tf.float32)
        activations = tf.cast(layer(with_mirror_images(centred, flip), training=False), tf.float32)
        return mean_of_mirrored(tf.reduce_mean(activations, (1, 2)), flip)

    return describe


def with_mirror_images(images: tf.Tensor, flip: bool) -> tf.Tensor:
    """`(B, H, W, 3)`, with their mirror images behind them if `flip`."""
    return tf.concat([images, tf.reverse(images, (2,))], 0) if flip else images


def mean_of_mirrored(rows: tf.Tensor, flip: bool) -> tf.Tensor:
    """The averages of rows `(2 * B, N)` that belong to pictures and then their mirror images."""
    return tf.reduce_mean(tf.stack(tf.split(rows, 1 + flip)), 0)


def _mean(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Average of float32 arrays of one shape."""
    first, *others = arrays
    total = np.array(first)
    for array in others:
        total += array
    return total / np.float32(1 + len(others))
