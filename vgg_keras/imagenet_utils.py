"""`preprocess_input` and `decode_predictions`, as users of `keras.applications` know them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.predictions import TOP, top_classes
from vgg_keras.facts import as_colour
from vgg_keras.ilsvrc import names_of_wnids
from vgg_keras.pipelines.statistics import ILSVRC

log = logging.getLogger(__name__)


def preprocess_input(x: Any, mean: Sequence[float] = ILSVRC.mean) -> Any:
    """Prepares images for a model of `vgg`: subtracts the RGB mean.

    `keras.applications.vgg16.preprocess_input` also swaps red and blue, which these models do not
    need. A warning is logged if the values look as if they were scaled to 0..1.

    Args:
        x: RGB in 0..255, any dtype, `(..., H, W, 3)`: a NumPy array, a list, a tensor of the
            backend, or a `KerasTensor`. It is not changed.
        mean: RGB mean to subtract.

    Returns:
        float32, an array for an array or list, else a tensor.

    Raises:
        ArgumentError: the last axis does not have three channels.

    Example:
        >>> preprocess_input(np.full((1, 1, 3), 255)).round(2).tolist()
        [[[131.32, 138.22, 151.06]]]
    """
    is_tensor = keras.ops.is_tensor(x) or isinstance(x, keras.KerasTensor)
    array = x if is_tensor else np.asarray(x)
    if len(array.shape) < 3 or array.shape[-1] != 3:
        raise ArgumentError(
            f"x must be RGB images (..., H, W, 3). Received: shape {tuple(array.shape)}", "x"
        )
    colour = np.array(as_colour(mean), np.float32)
    if is_tensor:
        return keras.ops.cast(array, "float32") - colour
    warn_of_unit_range([array])
    return array.astype(np.float32) - colour


def decode_predictions(preds: Any, top: int = TOP) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes of ILSVRC-2012, as in `keras.applications`.

    The names come with this package; nothing is downloaded.

    Args:
        preds: posteriors or scores, `(N, 1000)`, in the order of the labels.
        top: number of classes to name.

    Returns:
        For each row the tuples (WordNet id, name, value), best first. A name is the first of its
        synset with underscores, such as "great_white_shark".

    Raises:
        ArgumentError: preds has another shape.

    Example:
        >>> decode_predictions(np.eye(1000, dtype="float32")[:1], top=1)[0][0][:2]
        ('n01440764', 'tench')
    """
    names = names_of_wnids()
    values = keras.ops.convert_to_numpy(preds)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ArgumentError(
            f"preds must have the shape (N, {len(names)}). Received: {values.shape}", "preds"
        )
    first = [(wnid, synset.split(",")[0].replace(" ", "_")) for wnid, synset in names.items()]
    return [
        [(*first[k], value) for k, value in zip(classes, best, strict=True)]
        for classes, best in zip(*top_classes(values, top), strict=True)
    ]


def warn_of_unit_range(images: Sequence[np.ndarray]) -> None:
    """Logs a warning if no value of some images is above 1, and not all are black."""
    brightest = [image.max() if image.size else 0 for image in images]
    if any(brightest) and max(brightest) <= 1:
        log.warning(
            "No value of the images is above 1: they look as if they were scaled to 0..1. The nets "
            "take RGB from 0 to 255."
        )
