"""Boxes and class posteriors at every position of whole images (§A.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from vgg_keras.evaluation.posteriors import with_mirror_images
from vgg_keras.forward import forward
from vgg_keras.models import fully_convolutional
from vgg_keras.nets import STRIDE
from vgg_keras.pipelines.boxes import from_window
from vgg_keras.pipelines.evaluation import grid_origins
from vgg_keras.pipelines.images import no_autograph, rescaled_size, upright_size
from vgg_keras.pipelines.splits import Split
from vgg_keras.trained import TrainedNet

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32)

# From images and classes to boxes and their scores, see `make_finder`.
Finder = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_finder(net: TrainedNet, classifiers: Sequence[TrainedNet], flip: bool) -> Finder:
    """A function from images of one size to the boxes that a net predicts, for a `tf.function`.

    Args:
        net: localisation net.
        classifiers: classification nets. The mean of their posteriors at a position is the score
            of the box that is predicted from that position.
        flip: whether the mirror images are used too; their boxes are mirrored back.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, and int `(B, A)`, classes, to
        float32 `(B, A, P, 5)`: for each class the boxes predicted from P positions,
        `[x_min, y_min, x_max, y_max]` as fractions of the image, and their scores.
    """
    predict_boxes, rate = make_box_fn(net), make_rating_fn(classifiers)
    crop_size = net.architecture.crop_size

    def find(images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        views = with_mirror_images(images, flip)
        boxes, posteriors = predict_boxes(views), rate(views)
        shape = tf.shape(posteriors)  # (F * B, h, w, C)
        frames = window_frames(shape[1:3], tf.shape(images)[1:3], crop_size)
        boxes = from_window(boxes, frames[:, :, None])
        classes_of_views = tf.tile(classes, (1 + flip, 1))
        of_classes = [
            boxes_of_classes(boxes, classes_of_views),
            tf.gather(posteriors, classes_of_views, axis=3, batch_dims=1)[..., None],
        ]
        found = tf.concat(of_classes, -1)  # (F * B, h, w, A, 5)
        found = tf.reshape(found, (shape[0], shape[1] * shape[2], tf.shape(classes)[1], 5))
        plain, *mirrored = tf.split(tf.transpose(found, (0, 2, 1, 3)), 1 + flip)
        return tf.concat([plain, *map(_mirrored_back, mirrored)], 2)

    return find


def boxes_of_classes(boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The boxes of some classes at every position, `(B, h, w, A, 4)`.

    Args:
        boxes: `(B, h, w, C, 4)`, or `(B, h, w, 1, 4)` if all classes share one box.
        classes: int `(B, A)`.
    """
    indices = tf.zeros_like(classes) if boxes.shape[3] == 1 else classes
    return tf.gather(boxes, indices, axis=3, batch_dims=1)


def _mirrored_back(found: tf.Tensor) -> tf.Tensor:
    """Predictions for mirror images, in the coordinates of the images themselves."""
    x_min, y_min, x_max, y_max, scores = tf.unstack(found, axis=-1)
    return tf.stack([1 - x_max, y_min, 1 - x_min, y_max, scores], -1)


def window_frames(map_size: tf.Tensor, image_size: tf.Tensor, crop_size: int) -> tf.Tensor:
    """Frames of the windows of a dense map; see `vgg_keras.pipelines.boxes.window_frame`.

    Args:
        map_size: rows and columns of the map, h and w.
        image_size: height and width of the rescaled image.
        crop_size: side of a window.

    Returns:
        float32 `(h, w, 4)`: left, top, width and height as fractions of the image.
    """
    rows, columns = tf.meshgrid(
        STRIDE * tf.range(map_size[0]), STRIDE * tf.range(map_size[1]), indexing="ij"
    )
    extent = tf.fill(tf.shape(rows), crop_size)
    height, width = image_size[0], image_size[1]
    frames = tf.stack([columns / width, rows / height, extent / width, extent / height], -1)
    return tf.cast(frames, tf.float32)


def centre_frames(images: Split, scale: int, crop_size: int) -> np.ndarray:
    """Frames of the central crops of all images, float32 `(N, 4)`; see `window_frames`."""

    @no_autograph
    def size_and_origin(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        scaled = rescaled_size(upright_size(images.read(example)), scale)
        return tf.stack([scaled, grid_origins(scaled, crop_size, 1)[:, 0]])

    found = images.in_order().map(size_and_origin, num_parallel_calls=tf.data.AUTOTUNE)
    rows = np.array(list(found.as_numpy_iterator())).reshape(-1, 2, 2)[..., ::-1]  # x before y
    scaled, origins = rows[:, 0], rows[:, 1]
    frames = np.concatenate([origins, np.full_like(origins, crop_size)], 1) / np.tile(scaled, 2)
    return frames.astype(np.float32)


def make_box_fn(net: TrainedNet) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images to the boxes that a net predicts from every window.

    Returns:
        A `tf.function` from float32 `(B, H, W, 3)`, RGB in 0..255, to `(B, h, w, C or 1, 4)`,
        boxes in the coordinates of their windows, see `vgg_keras.pipelines.boxes.to_window`.
    """
    maps, mean = forward(fully_convolutional(net.model)), tf.constant(net.mean, tf.float32)

    @tf.function(input_signature=[_IMAGES], autograph=False)
    def predict_boxes(images: tf.Tensor) -> tf.Tensor:
        found = maps(images - mean)["score_map"]
        shape = tf.shape(found)
        return tf.reshape(found, tf.concat([shape[:3], [found.shape[-1] // 4, 4]], 0))

    return predict_boxes


def make_rating_fn(classifiers: Sequence[TrainedNet]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images to the mean posteriors of classification nets at every position.

    Returns:
        A `tf.function` from float32 `(B, H, W, 3)`, RGB in 0..255, to float32 `(B, h, w, C)`.
    """
    nets = [
        (forward(fully_convolutional(net.model)), tf.constant(net.mean, tf.float32))
        for net in classifiers
    ]

    @tf.function(input_signature=[_IMAGES], autograph=False)
    def rate(images: tf.Tensor) -> tf.Tensor:
        posteriors = [tf.nn.softmax(maps(images - mean)["score_map"]) for maps, mean in nets]
        return tf.add_n(posteriors) / len(posteriors)

    return rate
