"""Mean RGB and colour components of a training set."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

import msgspec
import numpy as np

from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.files import atomic_write

if TYPE_CHECKING:
    import tensorflow as tf

    from vgg_keras.pipelines.splits import Split


@dataclass(frozen=True)
class Statistics:
    """Mean and colour components of a training set, RGB on a scale of 0..255.

    ```python
    colours = compute_statistics(data["train"])
    colours.save("colours.json")
    ```

    Attributes:
        mean: RGB mean of all images.
        eigenvalues: eigenvalues of the covariance of RGB on a scale of 0..1, times 255. They
            multiply the draws of the colour shift (§3.1; Krizhevsky et al. 2012, §4.1).
        eigenvectors: one row for each of R, G, B, one column for each component.
        images: number of images from which the statistics were computed.
    """

    mean: tuple[float, float, float]
    eigenvalues: tuple[float, float, float]
    eigenvectors: tuple[tuple[float, float, float], ...]
    images: int

    def shift_matrix(self) -> np.ndarray:
        """`(3, 3)`; its product with three draws a ~ N(0, sd) is the colour shift in RGB."""
        return np.asarray(self.eigenvectors) * np.asarray(self.eigenvalues)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file atomically.

        Raises:
            WriteError: the file cannot be written.
        """
        atomic_write(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Statistics:
        """Reads a file that `save` wrote.

        Raises:
            SourceError: the file is missing, has other contents, or has numbers out of range.
        """
        fields = read_json(path, _InFile, SourceError, "holds no statistics of a training set")
        red, green, blue = map(_triple, fields["eigenvectors"])
        return cls(
            mean=_triple(fields["mean"]),
            eigenvalues=_triple(fields["eigenvalues"]),
            eigenvectors=(red, green, blue),
            images=fields["images"],
        )


_Colour = Annotated[float, msgspec.Meta(ge=0, le=255)]
_Component = Annotated[float, msgspec.Meta(ge=-1.001, le=1.001)]  # of a unit vector
_Row = tuple[_Component, _Component, _Component]


class _InFile(TypedDict):
    mean: tuple[_Colour, _Colour, _Colour]
    eigenvalues: tuple[_Colour, _Colour, _Colour]
    eigenvectors: tuple[_Row, _Row, _Row]
    images: Annotated[int, msgspec.Meta(ge=0)]


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"all numbers must be finite, not {red}, {green}, {blue}")
    return red, green, blue


# The mean is the VGG team's own. The components are those that Torch and its successors use for
# AlexNet-style colour jitter ('lighting'), on a scale of 0..1: eigenvalues .2175, .0188, .0045.
# Krizhevsky's own numbers are not published.
ILSVRC = Statistics(
    mean=(123.68, 116.779, 103.939),
    eigenvalues=(0.2175 * 255, 0.0188 * 255, 0.0045 * 255),
    eigenvectors=(
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    ),
    images=1_281_167,
)
"""Colours of ILSVRC's training set: `ILSVRC.mean` is the mean that released weights take."""


def compute_statistics(split: Split) -> Statistics:
    """Computes mean and principal components of the colours of all images of a split.

    Every image has the same weight, whatever its size, as in training.

    ```python
    colours = compute_statistics(open_source("folder:photos")["train"])
    colours.mean  # red, green and blue, in 0..255
    ```

    Raises:
        BadImageError: an image cannot be read. The message names it.
    """
    import tensorflow as tf  # only here: code that reads the constants needs no TensorFlow

    from vgg_keras.pipelines.images import decode, no_autograph
    from vgg_keras.pipelines.screening import naming_bad_images

    @no_autograph
    def moments(example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.reshape(tf.cast(decode(split.read(example)), tf.float32), (-1, 3))
        centred = pixels - 128.0  # keeps float32 sums of squares accurate
        count = tf.cast(tf.shape(pixels)[0], tf.float32)
        second = tf.linalg.matmul(centred, centred, transpose_a=True) / count
        return tf.cast(tf.reduce_mean(centred, 0), tf.float64), tf.cast(second, tf.float64)

    total = (tf.zeros(3, tf.float64), tf.zeros((3, 3), tf.float64))
    dataset = split.in_order().map(moments, num_parallel_calls=tf.data.AUTOTUNE)
    with naming_bad_images(split):
        first, second = dataset.reduce(total, lambda a, b: (a[0] + b[0], a[1] + b[1]))
    mean = first.numpy() / len(split)
    covariance = second.numpy() / len(split) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]  # largest first
    return Statistics(
        mean=_triple(mean + 128.0),
        # Covariance on a scale of 0..1, converted to 0..255 like ILSVRC's constants.
        eigenvalues=_triple(np.maximum(values, 0.0) / 255.0),
        eigenvectors=tuple(_triple(row) for row in vectors),
        images=len(split),
    )
