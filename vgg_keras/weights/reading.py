"""Reads weights from any of the files there are of these nets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vgg_keras.callbacks.file_names import BEST_WEIGHTS
from vgg_keras.nets import FC_NAMES, get_net
from vgg_keras.pipelines.statistics import ILSVRC, Statistics
from vgg_keras.weights.arrays import open_npy, open_npz
from vgg_keras.weights.caffe import open_caffemodel
from vgg_keras.weights.hdf5 import open_hdf5, open_keras_archive
from vgg_keras.weights.matconvnet import open_mat
from vgg_keras.weights.naming import (
    CONVENTIONS,
    PARTS,
    Kernel,
    Key,
    geometry,
    identify,
    kernels_of,
    sizes_of,
)
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing, get_preprocessing, refit
from vgg_keras.weights.stored import Stored, StoredTensor, WeightsError, named, refuse_expansion
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
_BYTES = {"float16": 2, "float32": 4, "float64": 8, "bfloat16": 2}
_MOST_PROBLEMS = 6
_FIRST = "block1_conv1"
_RUN_STATISTICS = "statistics.json"  # as `vgg_keras.runs` names it, which imports Keras


@dataclass(frozen=True)
class Contents:
    """What a file was found to hold.

    Attributes:
        family: who names and lays out weights as the file does.
        net, num_classes, crop_size, width: of the net, as far as its layers tell; otherwise
            1000, 224 and 1.
        taken: the layers that were read, in order.
        left: what was not, by name, with the reason. Only `partial` leaves any.
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
        """Whether the FC layers are there."""
        return set(FC_NAMES) <= set(self.taken)


class Weights(NamedTuple):
    """Kernel and bias by layer, in order, and what they were found in.

    They are float32, laid out as Keras does, for input RGB in 0..255 minus a mean.
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
    """Reads a file of weights, or the best weights of a run folder.

    Nothing is read before every name, shape and dtype is found right.

    Args:
        source: `.h5` and `.keras` of Keras, `.caffemodel`, `.mat` of MatConvNet, `.pth` and
            `.safetensors` of torchvision or timm, `.npz`, `.npy`, or a run folder.
        net: the net that it must hold; by default the one whose layers it has.
        partial: take the complete layers there are that fit, and leave the rest.
        preprocessing: what the net takes, "rgb", "caffe", "torch" or another; needed where neither
            the file nor its kind say so rightly.
        mean: RGB, which will be subtracted from what the net is given.
        source_mean: RGB, in place of the mean that the net takes by `preprocessing`, the file or
            its kind.
        kernels: those wanted, by layer; by default all of the net in the file's own size.
            Where all FC layers are missing they are not.

    Raises:
        WeightsError: no such file, a damaged one, or one whose tensors are missing, surplus, of
            another shape, no floats or not finite; they are named.
        ImportError: a `.pth` file without PyTorch.
        ValueError: an unknown name of a net or preprocessing; or a folder that is no run.
    """
    path = Path(source)
    if net is not None:
        get_net(net)
    given = get_preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing
    if path.is_dir():
        path, run_takes = _of_run(path)
        given = given or run_takes
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    if path.suffix.lower() not in READERS:
        raise WeightsError(
            f"{path}: weights are read from {', '.join(READERS)}. Received: {path.suffix!r}"
        )
    with named(path), READERS[path.suffix.lower()](path) as stored:
        refuse_expansion(path, sum(map(_size, stored.tensors.values())))
        reader = _Reader(path, stored, net, partial)
        reader.choose(kernels)
        given = reader.takes(given)
        layers = reader.layers()
    if _FIRST in layers:
        given = given if source_mean is None else replace(given, mean=_colour(source_mean))
        layers[_FIRST] = refit(*layers[_FIRST], given, Preprocessing(_colour(mean)))
        if not all(map(_is_finite, layers[_FIRST])):
            raise WeightsError(f"{path}: {_FIRST} overflows for input RGB less the mean.")
    found = (reader.family.name, reader.net.name, *reader.size)
    return Weights(layers, Contents(*found, tuple(layers), reader.left))


def _is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are; without an array of answers."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.max() - array.min()))


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


class _Reader:
    """What a file holds of a net: looked over, then read."""

    def __init__(self, path: Path, stored: Stored, net: str | None, partial: bool):
        self.path, self.stored, self.partial = path, stored, partial
        shapes = {name: tensor.shape for name, tensor in stored.tensors.items()}
        found = identify(shapes)
        if found is None:
            families = ", ".join(family.name for family in CONVENTIONS)
            first = ", ".join(list(shapes)[:3]) or "none"
            raise WeightsError(
                f"{path} names no tensor as {families} name the layers of these nets. Its first "
                f"names: {first}."
            )
        self.family, likest = found
        said = stored.metadata.net
        if net and said and net != said and not partial:
            raise WeightsError(f"{path} holds net {said}. Received: {net}")
        self.net = get_net(net or said or likest.name)
        self.names = self.family.names(likest)
        self.size = geometry(self.net, sizes_of(self.names, shapes))
        self.kernels: dict[str, Kernel] = {}
        self.left: dict[str, str] = {}

    def takes(self, given: Preprocessing | None) -> Preprocessing:
        """What the net takes, as given, or as the file or its kind says.

        Raises:
            WeightsError: neither says it.
        """
        if given is None and self.stored.is_unclear:
            raise WeightsError(
                f"{self.path} does not say what its net takes. Give the preprocessing: "
                f"{', '.join(PREPROCESSINGS)}."
            )
        family = PREPROCESSINGS[self.family.preprocessing]
        return given or self.stored.metadata.preprocessing or family

    def choose(self, kernels: Mapping[str, Kernel] | None) -> None:
        """Settles which layers to take.

        Raises:
            WeightsError: with `partial` there is none, without it not just those that are wanted.
        """
        there = {key for key, name in self.names.items() if name in self.stored.tensors}
        layers_there = {layer for layer, _ in there}
        if kernels is None:
            kernels = kernels_of(self.net, *self.size)
            if not layers_there & set(FC_NAMES):
                kernels = {k: v for k, v in kernels.items() if k not in FC_NAMES}
        if self.partial:
            kernels = {k: v for k, v in kernels.items() if k in layers_there}
        known = {self.names[key] for key in there if key[0] in kernels}
        surplus = [name for name in self.stored.tensors if name not in known]
        problems = {
            layer: problem
            for layer, kernel in kernels.items()
            if (problem := "; ".join(self._problems(layer, kernel)))
        }
        self.kernels = {k: v for k, v in kernels.items() if k not in problems}
        if self.partial:
            self.left = dict.fromkeys(surplus, "there is no such layer to load") | problems
        elif problems or surplus:
            self._refuse([*problems.values(), *(f"{name} is surplus" for name in surplus)])
        if not self.kernels:
            reasons = [f"{name}: {reason}" for name, reason in self.left.items()]
            raise WeightsError(f"{self.path} has none of the layers: {_listed(reasons)}.")

    def layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Reads what was chosen."""
        layers = {}
        for layer, kernel in self.kernels.items():
            # The kernel last, and not held on to: `fc1` has three quarters of all weights.
            bias = np.ascontiguousarray(self._take((layer, "bias")).reshape(-1), np.float32)
            layers[layer] = (
                self.family.to_ours(self._take((layer, "kernel")), kernel, layer in FC_NAMES),
                bias,
            )
            for part, array in zip(PARTS, layers[layer], strict=True):
                if not _is_finite(array):
                    self.left[layer] = f"{self._both_names((layer, part))} holds NaN or Inf"
            if layer in self.left:
                del layers[layer]
                if not self.partial:
                    self._refuse([self.left[layer]])
        return layers

    def _take(self, key: Key) -> np.ndarray:
        return self.stored.tensors.pop(self.names[key]).read()

    def _tensor(self, key: Key) -> StoredTensor | None:
        return self.stored.tensors.get(self.names.get(key, ""))

    def _problems(self, layer: str, kernel: Kernel) -> Iterator[str]:
        """What keeps a layer from being taken."""
        allowed = {"kernel": self.family.shapes(kernel, layer in FC_NAMES), "bias": (kernel[-1:],)}
        for part, shapes in allowed.items():
            name, tensor = self._both_names((layer, part)), self._tensor((layer, part))
            if tensor is None:
                yield f"{name} is missing"
            elif not self.family.fits(tensor.shape, shapes):
                yield f"{name} has shape {tensor.shape} where {shapes[0]} is wanted"
            elif tensor.dtype not in _BYTES:
                yield f"{name} is of dtype {tensor.dtype}, no float"

    def _both_names(self, key: Key) -> str:
        """Ours, and theirs where it is another."""
        ours, theirs = "/".join(key), self.names.get(key)
        return ours if theirs in (ours, None) else f"{ours} ({theirs})"

    def _refuse(self, problems: Sequence[str]) -> None:
        advice = "(`partial` takes just the layers that fit.)"
        if any(name.endswith("running_mean") for name in self.stored.tensors):
            advice = "It has batch normalisation, which the paper's nets have not."
        raise WeightsError(
            f"{self.path}, in {self.family.name}'s naming, does not hold just net {self.net.name}: "
            f"{_listed(problems)}. {advice}"
        )


def _listed(problems: Iterable[str]) -> str:
    problems = list(problems)
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _size(tensor: StoredTensor) -> int:
    return math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 1)


def _of_run(path: Path) -> tuple[Path, Preprocessing]:
    """Best weights of a run folder, and what its net takes."""
    for name in (BEST_WEIGHTS, _RUN_STATISTICS):
        if not (path / name).is_file():
            raise WeightsError(f"{path} is no run folder with weights: it holds no {name}.")
    return path / BEST_WEIGHTS, Preprocessing(Statistics.load(path / _RUN_STATISTICS).mean)
