"""Boxes and class scores at every place of whole pictures (§A.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.boxes import from_window
from pipelines.evaluation import whole_images
from pipelines.screening import naming_bad_images
from pipelines.sources import Split
from vgg_keras.distribution import on_all_devices
from vgg_keras.evaluation.meter import Meter
from vgg_keras.models import fully_convolutional
from vgg_keras.nets import STRIDE
from vgg_keras.runs import Run

_PICTURES = tf.TensorSpec((None, None, None, 3), tf.float32)


def see_everywhere(
    pictures: Split,
    places: range,
    passes: Sequence[tuple[Run, int]],
    rate: Callable[[tf.Tensor], tf.Tensor],
    classes: np.ndarray,
    batch_size: int,
    meter: Meter,
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """For some pictures and each of their classes: all boxes, and the scores at their places."""
    wanted = np.zeros(len(pictures), bool)
    wanted[places] = True
    seen: dict[int, list[list]] = {place: [[] for _ in classes[place]] for place in places}
    for run, scale in passes:
        crop_size, see = run.recipe.crop_size, boxes_of(run)
        pixels = batch_size * crop_size**2 * run.model.distribute_strategy.num_replicas_in_sync
        batches = whole_images(pictures, test_scale=scale, batch_pixels=pixels, wanted=wanted)
        meter.start(f"{run.path.name} Q={scale}", len(places), float(scale**2))
        with naming_bad_images(pictures):
            for batch, views in batches:
                images = views[:, 0]
                found, scores = see(images).numpy(), rate(images).numpy()
                frames = window_frames(found.shape[1:3], images.shape[1:3], crop_size)
                found = from_window(found, frames[:, :, None])  # (B, h, w, C or 1, 4)
                for b, place in enumerate(batch.numpy()):
                    for k, c in enumerate(classes[place]):
                        of_class = found[b, :, :, c if found.shape[3] > 1 else 0]
                        seen[place][k].append((of_class.reshape(-1, 4), scores[b, ..., c].ravel()))
                meter.advance(len(batch))
        meter.finish()
    return {
        place: [
            (np.concatenate([boxes for boxes, _ in parts]), np.concatenate([s for _, s in parts]))
            for parts in by_class
        ]
        for place, by_class in seen.items()
    }


def window_frames(places: Sequence[int], size: Sequence[int], crop_size: int) -> np.ndarray:
    """Where the windows of a dense map lie in their picture, as `pipelines.boxes.window_frame`.

    Args:
        places: rows and columns of the map, h and w.
        size: height and width of the rescaled picture.
        crop_size: side of a window.

    Returns:
        float32 `(h, w, 4)`.
    """
    rows, columns = np.meshgrid(*(STRIDE * np.arange(n) for n in places), indexing="ij")
    extent = np.full_like(rows, crop_size)
    height, width = size
    frames = np.stack([columns / width, rows / height, extent / width, extent / height], -1)
    return frames.astype(np.float32)


def boxes_of(run: Run) -> Callable[[tf.Tensor], tf.Tensor]:
    """From pictures `(B, H, W, 3)` to boxes as each window sees them, `(B, h, w, C or 1, 4)`."""
    maps, mean = fully_convolutional(run.model), tf.constant(run.statistics.mean, tf.float32)

    def see_here(images):
        found = maps(images - mean, training=False)["score_map"]
        shape = tf.shape(found)
        return tf.reshape(found, tf.concat([shape[:3], [found.shape[-1] // 4, 4]], 0))

    @tf.function(input_signature=[_PICTURES], autograph=False)
    def see(images):
        return on_all_devices(run.model, see_here, images)

    return see


def rater(classifiers: Sequence[Run]) -> Callable[[tf.Tensor], tf.Tensor]:
    """From pictures to the mean posteriors of the classifiers at every place, `(B, h, w, C)`."""
    nets = [
        (fully_convolutional(c.model), tf.constant(c.statistics.mean, tf.float32))
        for c in classifiers
    ]

    def rate_here(images):
        posteriors = [
            tf.nn.softmax(maps(images - mean, training=False)["score_map"]) for maps, mean in nets
        ]
        return tf.add_n(posteriors) / len(posteriors)

    @tf.function(input_signature=[_PICTURES], autograph=False)
    def rate(images):
        return on_all_devices(classifiers[0].model, rate_here, images)

    return rate
