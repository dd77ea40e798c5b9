"""Class score maps (§3.2) of a run, laid over pictures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from vgg_keras.evaluation.predict import Predicted
from vgg_keras.evaluation.procedure import VIEWS
from vgg_keras.ilsvrc import short_label
from vgg_keras.models import fully_convolutional
from vgg_keras.pipelines.evaluation import grid_origins
from vgg_keras.pipelines.images import decode, rescale
from vgg_keras.report import figures
from vgg_keras.runs import Run


def score_map_figure(
    run: Run, image: np.ndarray, scales: Sequence[int], label: int, text: str
) -> Figure:
    """A picture at some test scales with a class's score map laid over, and the grid of crops.

    Args:
        run: from `load_run`.
        image: the picture, uint8 `(H, W, 3)`, upright.
        scales: Q, one or more, each at least the crop size; the crops are those of the last.
        label: whose scores are shown, an index into the run's classes.
        text: what the scores are of.
    """
    maps_of = fully_convolutional(run.model)
    pictures, maps = {}, {}
    for scale in scales:
        pictures[scale] = rescale(image, scale).numpy()
        pixels = pictures[scale][None] - np.array(run.statistics.mean, np.float32)
        score_map = keras.ops.convert_to_numpy(maps_of(pixels, training=False)["score_map"])
        maps[scale] = score_map[0, :, :, label].astype(np.float32)
    crop_size = run.recipe.crop_size
    grid = VIEWS["multi-crop"].grid
    origins = grid_origins(pictures[scales[-1]].shape[:2], crop_size, grid).numpy()
    return figures.score_maps(pictures, maps, crop_size, origins, text)


def draw_predicted(run: Run, predicted: Predicted, folder: str | os.PathLike) -> list[Path]:
    """Draws each picture with the score map of its most probable class, a PNG file each.

    Args:
        run: that `predicted` is of.
        predicted: from `predict`.
        folder: for the files, NAME.png for the picture NAME; of several of one name the others
            are NAME-2.png and so on.

    Returns:
        The files, in the order of the pictures.

    Raises:
        OSError: a file cannot be written.
    """
    files = list(_files(predicted.names, Path(folder)))
    best = predicted.top(1)[0][:, 0]
    for name, label, file in zip(predicted.names, best, files, strict=True):
        image = decode(tf.io.read_file(name)).numpy()
        text = f"score of {short_label(predicted.class_names[label])}"
        figures.save(
            score_map_figure(run, image, predicted.metadata["test_scales"], label, text), file
        )
    return files


def _files(names: Sequence[str], folder: Path) -> Iterator[Path]:
    """A file in the folder for each picture: no two the same, and none a picture itself."""
    taken = {Path(name).resolve() for name in names}
    for name in names:
        numbered = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        files = (folder / f"{Path(name).name}{number}.png" for number in numbered)
        file = next(file for file in files if file.resolve() not in taken)
        taken.add(file.resolve())
        yield file
