"""Layouts of HDF5 files of Keras and Caffe. Links and external values are refused."""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py
import ml_dtypes

from vgg_keras.errors import WeightsError
from vgg_keras.weights.keras_layers import NORMALIZATION, Layer
from vgg_keras.weights.naming import PARTS
from vgg_keras.weights.stored import StoredTensor

_DEEPEST = 8  # levels of nested models
_MOST_GROUPS = 2**11
# Groups of Keras 3 that do not hold weights of the net.
_NO_LAYERS = ("optimizer", "preprocessor", "seed_generator")


def layers_of_keras_3(file: h5py.File) -> list[Layer]:
    """The layers of a file since Keras 2.12: groups with a group `vars` of numbered tensors.

    Since Keras 3.6 they state the names of the layers (`saving/saving_lib.py`, `H5IOStore.make`).
    """
    layers: list[Layer] = []
    groups = [(file, 0)]
    for group, depth in groups:
        if depth > _DEEPEST or len(groups) > _MOST_GROUPS:
            raise WeightsError("it nests more groups than any model")
        for name in group:
            child = inside(group, name)
            if name == "vars":
                layers.append(_layer_of_keras_3(group.name.strip("/"), child))
            elif name not in _NO_LAYERS and isinstance(child, h5py.Group):
                groups.append((child, depth + 1))
    return layers


def _layer_of_keras_3(path: str, variables: h5py.Group) -> Layer:
    name = variables.attrs.get("name")
    layer = Layer(path, None if name is None else text(name))
    if layer.kind.startswith("dropout"):  # its only variable is a seed
        return layer
    parts = NORMALIZATION if layer.kind == "normalization" else PARTS
    for i in variables:
        part = parts[int(i)] if i.isdecimal() and int(i) < len(parts) else i
        _add(layer, part, variables, i)
    return layer


def layers_of_keras_2(group: h5py.Group) -> list[Layer]:
    """The layers of a file since Keras 1: a group for each, with the names of its tensors.

    The group of a nested model has the tensors of all its layers, as "block1_conv1/kernel:0".
    """
    layers: list[Layer] = []
    for name in map(text, group.attrs["layer_names"]):
        weights = inside(group, name)
        names = [text(weight) for weight in weights.attrs["weight_names"]]
        is_model = len({_owner(weight) for weight in names}) > 1
        own: dict[str, Layer] = {}
        for weight in names:
            owner = _owner(weight) if is_model else name
            layer = own.setdefault(owner, Layer(owner, owner))
            _add(layer, _part(weight, len(layer.tensors)), weights, weight)
        layers += own.values() or [Layer(name, name)]
    return layers


def _owner(weight: str) -> str:
    """Name of the layer in the name of a tensor."""
    return weight.rpartition("/")[0].rpartition("/")[2]


def _part(weight: str, index: int) -> str:
    """Name of a tensor in its layer, which has been "W" and "kernel"."""
    last = weight.rpartition("/")[2].partition(":")[0]
    if last in NORMALIZATION:
        return last
    return PARTS[index] if index < len(PARTS) else str(index)


def layers_of_keras_1(file: h5py.File) -> list[Layer]:
    """The layers of a file before Keras 0.3.3, such as `vgg16_weights.h5`: `layer_1/param_0`."""
    layers = []
    for k in range(min(int(file.attrs["nb_layers"]), _MOST_GROUPS)):
        group = inside(file, f"layer_{k}")
        layer = Layer(f"layer_{k}", None)
        for i, part in zip(range(int(group.attrs["nb_params"])), PARTS, strict=False):
            _add(layer, part, group, f"param_{i}")
        layers.append(layer)
    return layers


def tensors_of_caffe(data: h5py.Group) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, path and contents of each tensor of a snapshot of Caffe: `data/conv1_1/0`.

    The layout is that of `Net::ToHDF5` in `src/caffe/net.cpp`.
    """
    for layer in data:
        group = inside(data, layer)
        for i in group:
            yield f"{layer}/{i}", f"{group.name}/{i}", tensor(group, i)


def text(name: bytes | str) -> str:
    """An attribute as text."""
    return name.decode() if isinstance(name, bytes) else str(name)


def inside(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A group or dataset of this file. Links are refused, as they can lead to other files."""
    for part in filter(None, name.split("/")):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise WeightsError(f"{name} is not stored in the file itself")
        group = group[part]
    return group


def tensor(group: h5py.Group, name: str) -> StoredTensor:
    """A tensor of this file, which has not been read."""
    dataset = inside(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise WeightsError(f"{name} is not a tensor in the file itself")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > size + 2**20:
        raise WeightsError(f"{name} has chunks larger than itself")
    if dataset.dtype == "V2":  # HDF5 has no bfloat16
        return StoredTensor(dataset.shape, "bfloat16", lambda: dataset[()].view(ml_dtypes.bfloat16))
    return StoredTensor(dataset.shape, dataset.dtype.name, lambda: dataset[()])


def _add(layer: Layer, part: str, group: h5py.Group, name: str) -> None:
    layer.tensors[part], layer.origins[part] = tensor(group, name), f"{group.name}/{name}"
