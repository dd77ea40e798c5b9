"""The images that a result was measured on."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from vgg_keras.errors import SourceError
from vgg_keras.pipelines.checks import indices_of
from vgg_keras.pipelines.evaluation import read_images
from vgg_keras.pipelines.sources import open_source
from vgg_keras.report.results import Result


def read_images_of(
    result: Result, names: Sequence[str], data_dir: str | os.PathLike | None = None
) -> dict[str, np.ndarray]:
    """Reads images of the split that a result was measured on.

    Args:
        result: from `read_results`.
        names: names of the images, as in the predictions or answers of the result.
        data_dir: where TFDS stores its data. Nothing is downloaded.

    Returns:
        Upright images by name, uint8 `(H, W, 3)`.

    Raises:
        SourceError: the data are not available, or have no image with one of the names.
    """
    if not result.keys() >= {"data", "split"}:
        raise SourceError("The result names no data, as a fusion of nets with different data.")
    split = open_source(result["data"], data_dir, prepare=False)[result["split"]]

    def missing(name: str) -> SourceError:
        return SourceError(f"{result['data']} has no image {name}.")

    indices = indices_of(names, split.ids_of(range(len(split))), missing)
    images = read_images(split, indices.tolist())
    return {name: images[index] for name, index in zip(names, indices, strict=True)}
