"""How a net takes its input, and moving it into the first layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vgg_keras.pipelines.statistics import ILSVRC


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture, RGB in 0..255, before a net sees it: (x - mean) / sd.

    Attributes:
        mean, sd: of red, green and blue, on a scale of 0..255.
        bgr: whether the channels are then given as blue, green, red.
    """

    mean: tuple[float, float, float]
    sd: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __post_init__(self):
        for name in ("mean", "sd"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or not all(abs(value) < 1e4 for value in values):
                raise ValueError(f"{name} must be three colours. Received: {values}")
            object.__setattr__(self, name, values)
        if min(self.sd) < 1e-4:
            raise ValueError(f"sd must be above 0. Received: {self.sd}")


# "caffe" and "torch" are the modes of `keras.applications.imagenet_utils.preprocess_input`.
# Torch's constants are torchvision's, which timm shares for these nets.
PREPROCESSINGS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "rgb": Preprocessing(ILSVRC.mean),  # every net of this package
        "caffe": Preprocessing(ILSVRC.mean, bgr=True),
        "torch": Preprocessing(
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), sd=(0.229 * 255, 0.224 * 255, 0.225 * 255)
        ),
    }
)


def get_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in PREPROCESSINGS:
        raise ValueError(
            f"preprocessing must be one of {', '.join(PREPROCESSINGS)}. Received: {name!r}"
        )
    return PREPROCESSINGS[name]


def refit(
    kernel: np.ndarray, bias: np.ndarray, given: Preprocessing, wanted: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """A first layer made for one preprocessing, so that it takes another.

    Order and scale move into the kernel and another mean into the bias, exactly where the kernel
    sees the picture alone. On its border it also sees the padding, whose zeros stand for the mean
    colour: where the means differ, so does that colour.

    Args:
        kernel: float32 `(h, w, 3, outputs)`.
        bias: float32 `(outputs,)`.
        given: what the layer takes.
        wanted: what it is to take.

    Returns:
        The new kernel and bias; the same to the bit where nothing differs.
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
