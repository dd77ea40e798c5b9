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

# From images and classes to boxes and their scores, see `make_finder` and `make_map_fn`.
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
    predict_maps = make_map_fn([net], classifiers, flip)
    all_of_them = range(len(classifiers))
    return lambda images, classes: scored_boxes(predict_maps(images, classes), 0, 1, all_of_them)


def make_map_fn(
    nets: Sequence[TrainedNet], classifiers: Sequence[TrainedNet], flip: bool
) -> Finder:
    """A function from images of one size to what each net predicts, for a `tf.function`.

    Args:
        nets: localisation nets; one or more.
        classifiers: classification nets.
        flip: see `make_finder`.

    Returns:
        A function from float32 `(B, H, W, 3)`, RGB in 0..255, and int `(B, A)`, classes, to
        float32 `(B, A, P, 4 * nets + classifiers)`: for each class and each of P positions, the
        boxes of the nets and the posteriors of the classifiers; see `scored_boxes`.
    """
    predict_boxes = [make_box_fn(net) for net in nets]
    rate = [make_rating_fn([classifier]) for classifier in classifiers]
    crop_size = nets[0].architecture.crop_size

    def predict_maps(images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        views, classes_of_views = with_mirror_images(images, flip), tf.tile(classes, (1 + flip, 1))
        maps = []
        for boxes in (predict(views) for predict in predict_boxes):
            frames = window_frames(tf.shape(boxes)[1:3], tf.shape(images)[1:3], crop_size)
            in_images = from_window(boxes, frames[:, :, None])
            maps.append(_mirrored_back(boxes_of_classes(in_images, classes_of_views), flip))
        for posteriors in (rate_one(views) for rate_one in rate):
            maps.append(tf.gather(posteriors, classes_of_views, axis=3, batch_dims=1)[..., None])
        found = tf.concat(maps, -1)  # (F * B, h, w, A, 4 * nets + classifiers)
        f_b, h, w, a, _ = tf.unstack(tf.shape(found))
        found = tf.reshape(found, (f_b, h * w, a, 4 * len(nets) + len(classifiers)))
        return tf.concat(tf.split(tf.transpose(found, (0, 2, 1, 3)), 1 + flip), 2)

    return predict_maps


def scored_boxes(
    maps: tf.Tensor, index: int, num_nets: int, classifiers: Sequence[int]
) -> tf.Tensor:
    """The boxes of one net with the mean posteriors of some classifiers, `(..., P, 5)`.

    Args:
        maps: from `make_map_fn`, `(..., P, 4 * num_nets + classifiers)`.
        index: index of the net.
        num_nets: number of nets.
        classifiers: indices of the classifiers.
    """
    posteriors = [maps[..., 4 * num_nets + i] for i in classifiers]
    scores = tf.add_n(posteriors) / len(posteriors)
    return tf.concat([maps[..., 4 * index : 4 * (index + 1)], scores[..., None]], -1)


def boxes_of_classes(boxes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """The boxes of some classes at every position, `(B, h, w, A, 4)`.

    Args:
        boxes: `(B, h, w, C, 4)`, or `(B, h, w, 1, 4)` if all classes share one box.
        classes: int `(B, A)`.
    """
    indices = tf.zeros_like(classes) if boxes.shape[3] == 1 else classes
    return tf.gather(boxes, indices, axis=3, batch_dims=1)


def _mirrored_back(boxes: tf.Tensor, flip: bool) -> tf.Tensor:
    """Boxes in images, followed by those in mirror images if `flip`, all in the former."""
    plain, *mirrored = tf.split(boxes, 1 + flip)
    for x_min, y_min, x_max, y_max in (tf.unstack(one, axis=-1) for one in mirrored):
        plain = tf.concat([plain, tf.stack([1 - x_max, y_min, 1 - x_min, y_max], -1)], 0)
    return plain


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
