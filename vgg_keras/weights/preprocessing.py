"""Preprocessing of a net's input, and how the first layer is adapted to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.pipelines.statistics import ILSVRC


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image with RGB in 0..255: (x - mean) / sd.

    Attributes:
        mean, sd: mean and standard deviation of red, green and blue, on a scale of 0..255.
        bgr: whether the net takes the channels in the order blue, green, red.

    Raises:
        ArgumentError: mean or sd does not have three values in the allowed range.

    Example:
        >>> Preprocessing(mean=(123.68, 116.779, 103.939), bgr=True) == PREPROCESSINGS["caffe"]
        True
    """

    mean: tuple[float, float, float]
    sd: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "sd"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or not all(abs(value) < 1e4 for value in values):
                raise ArgumentError(
                    f"{name} must be three numbers, of red, green and blue. Received: {values}",
                    name,
                )
            object.__setattr__(self, name, values)
        if min(self.sd) < 1e-4:
            raise ArgumentError(f"sd must be above 0. Received: {self.sd}", "sd")

    def __str__(self) -> str:
        mean, sd = (
            ", ".join(f"{value:.6g}" for value in (reversed(values) if self.bgr else values))
            for values in (self.mean, self.sd)
        )
        text = f"{'BGR' if self.bgr else 'RGB'} in 0..255 minus ({mean})"
        return text if set(self.sd) == {1.0} else f"({text}) / ({sd})"


# "caffe" and "torch" are modes of `keras.applications.imagenet_utils.preprocess_input`. The
# constants of "torch" are those of torchvision, which timm also uses for these nets.
PREPROCESSINGS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "rgb": Preprocessing(ILSVRC.mean),  # all nets of this package
        "caffe": Preprocessing(ILSVRC.mean, bgr=True),
        "torch": Preprocessing(
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), sd=(0.229 * 255, 0.224 * 255, 0.225 * 255)
        ),
        # https://github.com/rcmalli/keras-vggface, version 1, which is that of VGG16
        "vggface": Preprocessing((129.1863, 104.7624, 93.594), bgr=True),
    }
)
"""Preprocessings by name: `PREPROCESSINGS["caffe"].mean` is the mean of ILSVRC, as RGB."""


def as_preprocessing(value: str | Preprocessing) -> Preprocessing:
    """Returns the preprocessing that is given by its name or as it is.

    Raises:
        ArgumentError: no preprocessing has that name. The message lists the names.
    """
    if isinstance(value, Preprocessing):
        return value
    check_choice("preprocessing", value, PREPROCESSINGS)
    return PREPROCESSINGS[value]


def refit(
    kernel: np.ndarray, bias: np.ndarray, given: Preprocessing, wanted: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """Adapts the first layer of a net from one preprocessing to another.

    The kernel takes up the order and scale of the channels, and the bias takes up the mean. The
    result is exact where the kernel covers only the image. On the border, the kernel also covers
    the padding. Its zeros stand for the mean colour, so the result differs if the means differ.

    Args:
        kernel: float32 `(h, w, 3, outputs)`.
        bias: float32 `(outputs,)`.
        given: preprocessing that the layer was trained with.
        wanted: preprocessing that the returned layer takes.

    Returns:
        The new kernel and bias. They are bit-identical if both preprocessings are equal.
    """
    mean, sd, new_mean, new_sd = (
        np.array(values, np.float64) for values in (given.mean, given.sd, wanted.mean, wanted.sd)
    )
    rgb = kernel[:, :, ::-1] if given.bgr else kernel
    if not np.allclose(mean, new_mean, rtol=1e-6, atol=0):  # files round it to float32
        shift = (new_mean - mean) / sd
        bias = (bias + np.einsum("hwco,c->o", rgb, shift)).astype(np.float32)
    if given.sd != wanted.sd:
        rgb = (rgb * (new_sd / sd)[:, None]).astype(np.float32)
    return np.ascontiguousarray(rgb[:, :, ::-1] if wanted.bgr else rgb), bias
