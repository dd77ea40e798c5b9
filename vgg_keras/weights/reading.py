"""Reads the weights of these nets from files of several projects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, get_net
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import check_pair
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pretrained import fetch, find_release
from vgg_keras.run_data import load_statistics
from vgg_keras.run_files import BEST_WEIGHTS, NET, STATISTICS
from vgg_keras.weights.arrays import open_npy, open_npz
from vgg_keras.weights.caffe import open_caffemodel
from vgg_keras.weights.hdf5 import open_hdf5, open_keras_archive
from vgg_keras.weights.matconvnet import open_mat
from vgg_keras.weights.naming import Kernel
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing, get_preprocessing, refit
from vgg_keras.weights.selection import LayerReader, declared_bytes
from vgg_keras.weights.stored import Stored, errors_with_path, refuse_expansion
from vgg_keras.weights.torch_files import open_safetensors, open_torch

READERS: dict[str, Callable[[Path], AbstractContextManager[Stored]]] = {
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".keras": open_keras_archive,
    ".caffemodel": open_caffemodel,
    ".mat": open_mat,
    ".npz": open_npz,
    ".npy": open_npy,
    ".safetensors": open_safetensors,
    ".pth": open_torch,
    ".pt": open_torch,
    ".bin": open_torch,
}
_FIRST = "block1_conv1"


@dataclass(frozen=True)
class Contents:
    """Description of the contents of a weights file.

    Attributes:
        family: family of files with the same names and layout, such as "Keras" or "Caffe".
        net: name of the net.
        num_classes, crop_size, width: inferred from the layers. Values that the layers do not
            determine are 1000, 224 and 1.
        taken: names of the layers that were read, in order.
        left: reason by name for each layer or tensor that was not read. It is empty unless
            `partial` is set.
    """

    family: str
    net: str
    num_classes: int
    crop_size: int
    width: float
    taken: tuple[str, ...]
    left: dict[str, str]

    @property
    def has_top(self) -> bool:
        """Whether all FC layers were read."""
        return set(FC_NAMES) <= set(self.taken)


class Weights(NamedTuple):
    """Weights with the contents of their file.

    Attributes:
        layers: kernel and bias by layer, in order, as float32 in the layout of Keras. The first
            layer takes RGB in 0..255 minus a mean.
        contents: description of the file.
    """

    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    contents: Contents


def read(
    source: str | os.PathLike,
    net: str | None = None,
    *,
    partial: bool = False,
    preprocessing: str | Preprocessing | None = None,
    mean: Sequence[float] = ILSVRC.mean,
    source_mean: Sequence[float] | None = None,
    kernels: Mapping[str, Kernel] | None = None,
) -> Weights:
    """Reads a weights file, a released net, or the best weights of a run or saved net.

    All names, shapes and dtypes are checked before any tensor is read.

    Args:
        source: a file of Keras (`.h5`, `.keras`), Caffe (`.caffemodel`), MatConvNet (`.mat`),
            torchvision or timm (`.pth`, `.safetensors`) or NumPy (`.npz`, `.npy`), the name of a
            released net such as "imagenet:D", or the folder of a run or saved net.
        net: net that the file must hold; by default inferred from its layers.
        partial: whether to read only the complete layers that fit and to ignore the rest.
        preprocessing: preprocessing of the images that the weights were trained on, such as "rgb",
            "caffe" or "torch"; by default inferred from the file.
        mean: RGB mean that will be subtracted from the images.
        source_mean: RGB mean that was subtracted from the images the weights were trained on; by
            default that of the preprocessing.
        kernels: shapes of the wanted kernels by layer; by default those of the net in the size of
            the file, without the FC layers if it has none.

    Raises:
        WeightsError: the file is missing or damaged or cannot be downloaded, or tensors are
            missing, surplus, not finite, not floats or of another shape. The message names them.
        MissingPackageError: the file is a `.pth` file and PyTorch is not installed.
        ArgumentError: no net or preprocessing has the given name.
        RunError, SourceError: the statistics of a run were changed or are damaged.

    Example:
        >>> layers, contents = read("VGG_ILSVRC_16_layers.caffemodel")
        >>> contents.net, layers["fc1"][0].shape
        ('D', (25088, 4096))
    """
    name = None if net is None else get_net(net).name
    given = get_preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing
    path, stated = _resolve(Path(source))
    with errors_with_path(path), READERS[path.suffix.lower()](path) as stored:
        refuse_expansion(path, sum(map(declared_bytes, stored.tensors.values())))
        reader = LayerReader(path, stored, name, partial)
        reader.choose(kernels)
        given = reader.preprocessing(given or stated)
        layers = reader.layers()
    if _FIRST in layers:
        given = given if source_mean is None else replace(given, mean=_colour(source_mean))
        layers[_FIRST] = refit(*layers[_FIRST], given, Preprocessing(_colour(mean)))
        if not all(map(is_finite, layers[_FIRST])):
            raise WeightsError(f"{path}: {_FIRST} overflows for input RGB minus the mean.")
    found = (reader.family.name, reader.net.name, *reader.size)
    return Weights(layers, Contents(*found, tuple(layers), reader.left))


def _resolve(source: Path) -> tuple[Path, Preprocessing | None]:
    """The weights file, and the preprocessing if a run, a saved net or a release states it."""
    release = find_release(source)
    if release:
        return fetch(release), PREPROCESSINGS[release.preprocessing]
    if source.is_dir():
        return _weights_of_folder(source)
    if not source.is_file():
        raise WeightsError(f"There is no weights file {source}.")
    if source.suffix.lower() not in READERS:
        raise WeightsError(
            f"{source}: weights are read from {', '.join(READERS)}. Received: {source.suffix!r}"
        )
    return source, None


def _weights_of_folder(folder: Path) -> tuple[Path, Preprocessing]:
    """The best weights of a run or saved net, and its preprocessing."""
    if not (folder / BEST_WEIGHTS).is_file():
        raise WeightsError(f"{folder} is not a run or saved net with weights: no {BEST_WEIGHTS}.")
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
