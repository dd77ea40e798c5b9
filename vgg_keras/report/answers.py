"""Images with the answer of a net, and where in the image it comes from."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.forward import check_tensorflow
from vgg_keras.ilsvrc import short_label
from vgg_keras.models import fully_convolutional
from vgg_keras.nets import STRIDE, get_net
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.report.figures import save_figure
from vgg_keras.report.maps import check_files, files_in
from vgg_keras.text import figure_text
from vgg_keras.trained import TrainedNet

_CONV_STRIDE = STRIDE // 2  # of the last conv. layer, before the last pooling


def probability_map(net: TrainedNet, image: np.ndarray, scale: int, label: int) -> np.ndarray:
    """The posterior of a class around every pixel of the rescaled image, float32 `(H, W)`.

    It is that of the dense map (§3.2), interpolated between its positions. Beyond the outermost
    positions it is that of the nearest one.

    Args:
        net: classification net.
        image: upright image, uint8 `(H, W, 3)`.
        scale: test scale Q, at least the crop size.
        label: index of the class in `net.class_names`.

    Example:
        probability_map(net, image, 256, 7).max()
    """
    pixels = _pixels(net, image, scale)
    scores = fully_convolutional(net.model)(pixels, training=False)["score_map"]
    posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(scores))[0, :, :, label]
    first = (net.architecture.crop_size - 1) / 2
    return _interpolated(posteriors, first, STRIDE, pixels.shape[1:3])


def grad_cam(net: TrainedNet, image: np.ndarray, scale: int, label: int) -> np.ndarray:
    """Grad-CAM of a class at every pixel of the rescaled image, 0 to 1, float32 `(H, W)`.

    The activations of the last conv. layer are weighted by the mean gradient of the score
    (Selvaraju et al. 2017), and divided by the largest sum.

    Args:
        net, image, scale, label: see `probability_map`.

    Raises:
        ArgumentError: the backend of Keras is not TensorFlow.

    Example:
        grad_cam(net, image, 256, 7)
    """
    check_tensorflow("Grad-CAM")
    pixels, model = tf.constant(_pixels(net, image, scale)), net.model
    last = get_net(net.architecture.net).conv_names[-1]
    outputs = [model.get_layer(name).output for name in (last, "scores")]
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        activations, scores = keras.Model(model.input, outputs)(pixels, training=False)
        score = scores[0, label]
    gradients = tape.gradient(score, activations)
    weights = tf.reduce_mean(gradients, (1, 2), keepdims=True)
    found = tf.nn.relu(tf.reduce_sum(weights * activations, -1))[0].numpy().astype(np.float32)
    found /= max(found.max(), np.finfo(np.float32).tiny)
    return _interpolated(found, (_CONV_STRIDE - 1) / 2, _CONV_STRIDE, pixels.shape[1:3])


def answer_figure(image: np.ndarray, heat: np.ndarray, title: str) -> Figure:
    """An image, and beside it the same image with a map of values from 0 to 1.

    Args:
        image: `(H, W, 3)`, RGB, 0 to 255.
        heat: the map, `(H, W)`.
        title: text above the images.
    """
    shown = np.clip(image, 0, 255).astype(np.uint8)
    ratio = shown.shape[1] / shown.shape[0]
    figure = Figure(figsize=(3.6 * 2 * ratio + 1, 4.2), layout="constrained")
    plain, mapped = figure.subplots(1, 2)
    for panel in (plain, mapped):
        panel.imshow(shown)
        panel.set_axis_off()
    overlay = mapped.imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    figure.colorbar(overlay, ax=mapped, shrink=0.85)
    figure.suptitle(figure_text(title), fontsize=13)
    return figure


def draw_answers(
    net: TrainedNet, predicted: Predictions, folder: str | os.PathLike, *, with_grad_cam: bool
) -> list[Path]:
    """Draws each image with its most probable class, one PNG file per image.

    Args:
        net: net that made `predicted`.
        predicted: from `predict` with paths of image files.
        folder: folder for the files, named as those of `draw_predicted`.
        with_grad_cam: whether the map is Grad-CAM instead of the probability.

    Raises:
        ArgumentError: `predicted` is not of image files.
        OSError: a file cannot be written.

    Example:
        draw_answers(net, predict(net, ["a.jpg"]), "answers", with_grad_cam=False)
    """
    check_files(predicted.names)
    files = list(files_in(Path(folder), predicted.names))
    scale = predicted.metadata["test_scales"][0]
    explain, what = (grad_cam, ", Grad-CAM") if with_grad_cam else (probability_map, "")
    best, posteriors = (column[:, 0] for column in predicted.top(1))
    for name, label, posterior, file in zip(predicted.names, best, posteriors, files, strict=True):
        image = decode(tf.io.read_file(name)).numpy()
        title = f"{short_label(predicted.class_names[label])}  {100 * posterior:.0f} %{what}"
        heat = explain(net, image, scale, label)
        save_figure(answer_figure(rescale(image, scale).numpy(), heat, title), file)
    return files


def _pixels(net: TrainedNet, image: np.ndarray, scale: int) -> np.ndarray:
    return rescale(image, scale).numpy()[None] - np.array(net.mean, np.float32)


def _interpolated(values: np.ndarray, first: float, step: int, size: tuple[int, int]) -> np.ndarray:
    """Values at every pixel, from those at `first`, `first + step`, ... of both axes."""
    for axis, pixels in enumerate(size):
        centres = first + step * np.arange(values.shape[axis])
        interpolated = functools.partial(np.interp, np.arange(pixels), centres)
        values = np.apply_along_axis(interpolated, axis, values)
    return values.astype(np.float32)
