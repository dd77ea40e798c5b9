"""Class score maps of a net (§3.2), drawn over images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.evaluation.procedure import VIEWS
from vgg_keras.ilsvrc import short_label
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.evaluation import grid_origins
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.report import figures
from vgg_keras.trained import TrainedNet


def score_map_figure(
    net: TrainedNet, image: np.ndarray, scales: Sequence[int], label: int, text: str
) -> Figure:
    """Draws an image at some test scales with the score map of a class, and the grid of crops.

    Args:
        net: classification net.
        image: upright image, uint8 `(H, W, 3)`.
        scales: one test scale Q or more, each at least the crop size. The crops are those of the
            last one.
        label: index of the class in `net.class_names`.
        text: label of the colour bar.

    Example:
        figure = score_map_figure(net, image, (256, 384), 7, "score of cock")
        save_figure(figure, "maps.png")
    """
    maps_of = fully_convolutional(net.model)
    images, maps = {}, {}
    for scale in scales:
        images[scale] = rescale(image, scale).numpy()
        pixels = images[scale][None] - np.array(net.mean, np.float32)
        score_map = keras.ops.convert_to_numpy(maps_of(pixels, training=False)["score_map"])
        maps[scale] = score_map[0, :, :, label].astype(np.float32)
    crop_size = net.architecture.crop_size
    grid = VIEWS["multi-crop"].grid
    origins = grid_origins(images[scales[-1]].shape[:2], crop_size, grid).numpy()
    return figures.score_maps(images, maps, crop_size, origins, text)


def draw_predicted(
    net: TrainedNet, predicted: Predictions, folder: str | os.PathLike
) -> list[Path]:
    """Draws each image with the score map of its most probable class, one PNG file per image.

    Args:
        net: net that made `predicted`.
        predicted: from `predict` with paths of image files.
        folder: folder for the files. Image NAME gets NAME.png; further images with the same name
            get NAME-2.png and so on. No image is overwritten.

    Returns:
        The files, in the order of the images.

    Raises:
        ArgumentError: `predicted` is not of image files.
        OSError: a file cannot be written.

    Example:
        draw_predicted(net, predict(net, ["a.jpg", "b.jpg"]), "maps")
    """
    check_files(predicted.names)
    files = list(files_in(Path(folder), predicted.names))
    best = predicted.top(1)[0][:, 0]
    for name, label, file in zip(predicted.names, best, files, strict=True):
        image = decode(tf.io.read_file(name)).numpy()
        text = f"score of {short_label(predicted.class_names[label])}"
        scales = predicted.metadata["test_scales"]
        figures.save_figure(score_map_figure(net, image, scales, label, text), file)
    return files


def check_files(names: Sequence[str]) -> None:
    """Raises ArgumentError if predictions are not of image files that exist."""
    for name in names:
        if not Path(name).is_file():
            raise ArgumentError(
                f"predicted must be of image files that exist. Received: {name}", "predicted"
            )


def files_in(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A PNG file in the folder for each image, all different and none an image itself."""
    taken = {Path(name).resolve() for name in names}
    for name in names:
        numbered = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        files = (folder / f"{Path(name).name}{number}.png" for number in numbered)
        file = next(file for file in files if file.resolve() not in taken)
        taken.add(file.resolve())
        yield file
