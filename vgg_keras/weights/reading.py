"""Reads the weights of these nets from files of several projects."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from vgg_keras.errors import ArgumentError, WeightsError
from vgg_keras.nets import FC_NAMES, get_net
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import check_pair
from vgg_keras.pipelines.reprs import short
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pretrained import fetch, find_release
from vgg_keras.run_data import load_statistics
from vgg_keras.run_files import BEST_WEIGHTS, NET, STATISTICS
from vgg_keras.weights.kinds import open_weights
from vgg_keras.weights.naming import Kernel
from vgg_keras.weights.preprocessing import (
    PREPROCESSINGS,
    Preprocessing,
    as_preprocessing,
    refit,
)
from vgg_keras.weights.selection import LayerReader, declared_bytes
from vgg_keras.weights.stored import errors_with_path, refuse_expansion

log = logging.getLogger(__name__)

FIRST = "block1_conv1"


@dataclass(frozen=True)
class Contents:
    """Description of the contents of a weights file.

    ```python
    contents = read("vgg16.weights.h5").contents
    print(contents.net, contents.num_classes, contents.input)
    ```

    Attributes:
        family: family of files with the same names and layout, such as "Keras" or "Caffe".
        net: name of the net.
        num_classes, crop_size, width: inferred from the layers that were read. Values that these
            do not determine are 1000, 224 and 1.
        taken: names of the layers that were read, in order.
        left: reason by name for each layer or tensor that was not read. It is empty unless
            `partial` is set.
        preprocessing: preprocessing of the images that the net in the file takes. A mean that is
            ILSVRC's but for rounding to float32 is ILSVRC's.
        assumed_for: files for which `preprocessing` is assumed, such as "files with the names of
            Caffe". Empty if the file states it, or if it was given.
    """

    family: str
    net: str
    num_classes: int
    crop_size: int
    width: float
    taken: tuple[str, ...]
    left: dict[str, str]
    preprocessing: Preprocessing
    assumed_for: str

    @property
    def is_assumed(self) -> bool:
        """Whether `preprocessing` is assumed."""
        return bool(self.assumed_for)

    @property
    def has_top(self) -> bool:
        """Whether all FC layers were read."""
        return set(FC_NAMES) <= set(self.taken)

    @property
    def input(self) -> str:
        """What images the net in the file takes, and whether that is assumed."""
        assumed = f", assumed for {self.assumed_for}" if self.is_assumed else ""
        return f"{self.preprocessing}{assumed}"


class Weights(NamedTuple):
    """Weights with the contents of their file.

    Attributes:
        layers: kernel and bias by layer, in order, as float32 in the layout of Keras. The first
            layer takes RGB in 0..255 minus a mean.
        contents: description of the file.

    Example:
        layers, contents = read("vgg16.weights.h5")
        kernel, bias = layers["block1_conv1"]
    """

    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    contents: Contents

    def __repr__(self) -> str:
        return f"Weights(layers={short(self.layers)}, contents={self.contents!r})"


def read(
    source: str | os.PathLike,
    net: str | None = None,
    *,
    partial: bool = False,
    head: str | None = None,
    preprocessing: str | Preprocessing | None = None,
    mean: Sequence[float] | None = ILSVRC.mean,
    source_mean: Sequence[float] | None = None,
    kernels: Mapping[str, Kernel] | None = None,
) -> Weights:
    """Reads a weights file, a released net, or the best weights of a run or saved net.

    All names, shapes and dtypes are checked before any tensor is read.

    Args:
        source: a file of Keras (`.h5`, `.keras`), Caffe (`.caffemodel`), TensorFlow (a checkpoint,
            by its name without `.index`), MatConvNet (`.mat`), torchvision or timm (`.pth`,
            `.safetensors`), ONNX (`.onnx`) or NumPy (`.npz`, `.npy`), whose contents tell its kind,
            whatever its name; or the name of a released net such as "imagenet:D"; or the folder of
            a run or saved net.
        net: net that the file must hold; by default inferred from its conv. layers.
        partial: whether to read only the complete layers that fit and to ignore the rest.
        head: name of the last FC layer in the file, such as "fc8_voc"; by default that of its
            family, such as "fc8".
        preprocessing: preprocessing of the images that the weights were trained on, such as "rgb",
            "caffe" or "torch"; by default inferred from the file.
        mean: RGB mean that will be subtracted from the images; None for that of the file, which is
            `contents.preprocessing.mean`. With this mean the net is exact on the border too.
        source_mean: RGB mean that was subtracted from the images the weights were trained on; by
            default that of the preprocessing.
        kernels: shapes of the wanted kernels by layer; by default those of the net in the size of
            the file, without the FC layers if it has none.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or cannot be downloaded, or
            tensors are missing, surplus, not finite, not floats or of another shape. The message
            names them. Or the file does not tell the preprocessing.
        MissingPackageError: the file is a `.pth` file and PyTorch is not installed.
        ArgumentError: no net or preprocessing has the given name, or a run, saved net or release
            takes another preprocessing.
        RunError, SourceError: the statistics of a run were changed or are damaged.

    Example:
        >>> layers, contents = read("VGG_ILSVRC_16_layers.caffemodel")
        >>> contents.net, layers["fc1"][0].shape
        ('D', (25088, 4096))
    """
    return read_as(
        None if mean is None else Preprocessing(_colour(mean)),
        source,
        net,
        partial=partial,
        head=head,
        preprocessing=preprocessing,
        source_mean=source_mean,
        kernels=kernels,
    )


def read_as(
    wanted: Preprocessing | None,
    source: str | os.PathLike,
    net: str | None = None,
    *,
    partial: bool = False,
    head: str | None = None,
    preprocessing: str | Preprocessing | None = None,
    source_mean: Sequence[float] | None = None,
    kernels: Mapping[str, Kernel] | None = None,
) -> Weights:
    """Reads weights for a given preprocessing of the images; for the other arguments see `read`.

    Args:
        wanted: the preprocessing; None for RGB in 0..255 minus the mean of the file.
    """
    name = None if net is None else get_net(net).name
    given = None if preprocessing is None else as_preprocessing(preprocessing)
    path, stated = _resolve(Path(source))
    if given and stated and given != stated:
        raise ArgumentError(
            f"preprocessing goes with a weights file; {source} takes {stated}. Received: {given}",
            "preprocessing",
        )
    with errors_with_path(path), open_weights(path) as stored:
        declared = sum(map(declared_bytes, stored.tensors.values()))
        refuse_expansion(path, declared, stored.files)
        reader = LayerReader(path, stored, name, partial, head)
        reader.choose(kernels)
        mean = None if source_mean is None else _colour(source_mean)
        # Asks before kernels are read.
        taken, assumed_for = reader.preprocessing(given or stated, mean)
        layers = reader.layers()
    if source_mean is None and np.allclose(
        taken.mean, ILSVRC.mean, rtol=1e-6, atol=0
    ):  # files round it to float32
        taken = replace(taken, mean=ILSVRC.mean)
    wanted = wanted or Preprocessing(taken.mean)
    if FIRST in layers:
        layers[FIRST] = refit(*layers[FIRST], taken, wanted)
        if not all(map(is_finite, layers[FIRST])):
            raise WeightsError(f"{path}: {FIRST} overflows for input {wanted}.")
    size = reader.size_of(layers)
    found = (reader.family.name, reader.net.name, *size, tuple(layers), reader.left)
    contents = Contents(*found, taken, assumed_for)
    if not Path(source).is_dir():  # a run and a saved net have their own input
        log.info("%s: net %s takes %s.", source, contents.net, contents.input)
    return Weights(layers, contents)


def _resolve(source: Path) -> tuple[Path, Preprocessing | None]:
    """The weights file, and the preprocessing if a run, a saved net or a release states it."""
    if release := find_release(source):
        return fetch(release, str(source)), PREPROCESSINGS[release.preprocessing]
    return _weights_of_folder(source) if source.is_dir() else (source, None)


def _weights_of_folder(folder: Path) -> tuple[Path, Preprocessing]:
    """The best weights of a run or saved net, and its preprocessing."""
    if not (folder / BEST_WEIGHTS).is_file():
        open_weights(folder)  # says what the folder is
    if (folder / STATISTICS).is_file():
        return folder / BEST_WEIGHTS, Preprocessing(load_statistics(folder).mean)
    if not (folder / NET).is_file():
        raise WeightsError(
            f"{folder} is not a run or saved net: it has neither {STATISTICS} nor {NET}."
        )
    description = read_json(folder / NET, _Description, WeightsError)
    check_pair(folder / BEST_WEIGHTS, folder / NET, description, WeightsError)
    return folder / BEST_WEIGHTS, Preprocessing(_colour(description["mean"]))


class _Description(TypedDict):
    mean: tuple[float, float, float]


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
