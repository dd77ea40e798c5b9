"""Boxes and class scores at every place of whole pictures (§A.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from vgg_keras.evaluation.passes import with_mirror_images
from vgg_keras.models import fully_convolutional
from vgg_keras.nets import STRIDE
from vgg_keras.pipelines.boxes import from_window
from vgg_keras.runs import Run

_PICTURES = tf.TensorSpec((None, None, None, 3), tf.float32)

# From pictures and classes to predictions, see `make_finder`.
Finder = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_finder(run: Run, classifiers: Sequence[Run], flip: bool) -> Finder:
    """What a localisation net says of whole pictures of one size, for use inside a `tf.function`.

    Args:
        run: of a localisation net.
        classifiers: their mean posterior at a place rates the box that is seen from there.
        flip: look at the mirror images too; their boxes are turned back.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, and int `(B, A)`, classes, to
        float32 `(B, A, P, 5)`: for each class the boxes seen from P places,
        `[x_min, y_min, x_max, y_max]` in shares of the picture, and their scores.
    """
    see, rate = boxes_of(run), rater(classifiers)

    def find(images, classes):
        seen = with_mirror_images(images, flip)
        boxes, posteriors = see(seen), rate(seen)  # (F * B, h, w, C or 1, 4), (F * B, h, w, C)
        shape = tf.shape(posteriors)
        frames = window_frames(shape[1:3], tf.shape(images)[1:3], run.recipe.crop_size)
        boxes = from_window(boxes, frames[:, :, None])
        wanted = tf.tile(classes, (1 + flip, 1))
        shared = tf.zeros_like(wanted) if boxes.shape[3] == 1 else wanted
        of_classes = [
            tf.gather(boxes, shared, axis=3, batch_dims=1),
            tf.gather(posteriors, wanted, axis=3, batch_dims=1)[..., None],
        ]
        found = tf.concat(of_classes, -1)  # (F * B, h, w, A, 5)
        found = tf.reshape(found, (shape[0], shape[1] * shape[2], tf.shape(classes)[1], 5))
        plain, *mirrored = tf.split(tf.transpose(found, (0, 2, 1, 3)), 1 + flip)
        return tf.concat([plain, *map(_turned_back, mirrored)], 2)

    return find


def _turned_back(found):
    """Predictions of mirror images, as the pictures themselves have them."""
    x_min, y_min, x_max, y_max, scores = tf.unstack(found, axis=-1)
    return tf.stack([1 - x_max, y_min, 1 - x_min, y_max, scores], -1)


def window_frames(places, size, crop_size: int) -> tf.Tensor:
    """Frames of the windows of a dense map in their image; see `pipelines.boxes.window_frame`.

    Args:
        places: rows and columns of the map, h and w.
        size: height and width of the rescaled picture.
        crop_size: side of a window.

    Returns:
        float32 `(h, w, 4)`.
    """
    rows, columns = tf.meshgrid(
        STRIDE * tf.range(places[0]), STRIDE * tf.range(places[1]), indexing="ij"
    )
    extent = tf.fill(tf.shape(rows), crop_size)
    height, width = size[0], size[1]
    frames = tf.stack([columns / width, rows / height, extent / width, extent / height], -1)
    return tf.cast(frames, tf.float32)


def boxes_of(run: Run) -> Callable[[tf.Tensor], tf.Tensor]:
    """From pictures `(B, H, W, 3)` to boxes as each window sees them, `(B, h, w, C or 1, 4)`."""
    maps, mean = fully_convolutional(run.model), tf.constant(run.statistics.mean, tf.float32)

    @tf.function(input_signature=[_PICTURES], autograph=False)
    def see(images):
        found = maps(images - mean, training=False)["score_map"]
        shape = tf.shape(found)
        return tf.reshape(found, tf.concat([shape[:3], [found.shape[-1] // 4, 4]], 0))

    return see


def rater(classifiers: Sequence[Run]) -> Callable[[tf.Tensor], tf.Tensor]:
    """From pictures to the mean posteriors of the classifiers at every place, `(B, h, w, C)`."""
    nets = [
        (fully_convolutional(c.model), tf.constant(c.statistics.mean, tf.float32))
        for c in classifiers
    ]

    @tf.function(input_signature=[_PICTURES], autograph=False)
    def rate(images):
        posteriors = [
            tf.nn.softmax(maps(images - mean, training=False)["score_map"]) for maps, mean in nets
        ]
        return tf.add_n(posteriors) / len(posteriors)

    return rate
