"""Files of Keras in all layouts since 2015, `.h5` and `.keras`, and HDF5 snapshots of Caffe."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, NETS
from vgg_keras.weights.hdf5_layouts import (
    inside,
    layers_of_keras_1,
    layers_of_keras_2,
    layers_of_keras_3,
    tensors_of_caffe,
    text,
)
from vgg_keras.weights.keras_config import KerasConfig, fold
from vgg_keras.weights.keras_layers import (
    NORMALIZATION,
    Layer,
    has_channels_first,
    name_by_order,
    reorder_first_fc,
    reorder_kernels,
)
from vgg_keras.weights.stored import (
    METADATA,
    UNKNOWN_INPUT,
    Stored,
    StoredTensor,
    WeightsMetadata,
    by_name,
    refuse_expansion,
    refuse_repeated,
)

_APPLICATIONS = {"vgg16", "vgg19"}  # names of the models of Keras Applications
_NO_CONFIG = "{}"
_LARGEST_CONFIG = 2**24  # bytes
# In a preset of Keras Hub, the configuration and the conv. layers are stored beside the FC layers.
_PRESET = {
    "task.weights.h5": {"config": "task.json", "backbone": "model.weights.h5"},
    "model.weights.h5": {"config": "preprocessor.json"},
}
_OWN_INPUT = {"lambda", "normalization", "rescaling"}  # kinds of layers that change the input


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Stored]:
    """Opens a `.weights.h5` or `.h5` file of weights or of a whole model, or one of Caffe.

    The names of the tensors are `LAYER/kernel` and `LAYER/bias`; those of Caffe `LAYER/0` and
    `LAYER/1`.
    """
    with contextlib.ExitStack() as files:
        file = files.enter_context(h5py.File(path))
        beside = _PRESET.get(path.name, {})
        config = path.parent / beside.get("config", "")
        is_there = config.is_file() and config.stat().st_size <= _LARGEST_CONFIG
        backbone = path.parent / beside.get("backbone", "")
        more = files.enter_context(h5py.File(backbone)) if backbone.is_file() else None
        stored = _stored(file, path.name, config.read_text() if is_there else _NO_CONFIG, more)
        yield stored if more is None else replace(stored, files=frozenset({backbone}))


@contextlib.contextmanager
def open_keras_archive(path: Path) -> Iterator[Stored]:
    """Opens the weights in a `.keras` file. No model is built, as a configuration can hold code."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as unpacked:
        refuse_repeated(archive.namelist())
        config = _NO_CONFIG
        if "config.json" in archive.namelist():
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise WeightsError("its config.json is longer than that of any net")
            config = archive.read("config.json").decode()
        member = archive.getinfo("model.weights.h5")
        refuse_expansion(path, member.file_size)
        with archive.open(member) as source:
            shutil.copyfileobj(source, unpacked, 2**20)
        with h5py.File(unpacked) as file:
            yield _stored(file, path.name, config)


def _stored(
    file: h5py.File, file_name: str, config: str, backbone: h5py.File | None = None
) -> Stored:
    if "data" in file:  # https://github.com/BVLC/caffe/blob/1.0/src/caffe/net.cpp, Net::ToHDF5
        return Stored(by_name(tensors_of_caffe(inside(file, "data"))))
    if "nb_layers" in file.attrs:
        layers = name_by_order(reorder_kernels(layers_of_keras_1(file), is_flipped=True))
        return _of_keras(file, reorder_first_fc(layers, True), KerasConfig(config))
    if "layers" in file or "vars" in file:
        return _of_keras_3(file, KerasConfig(config), backbone)
    return _of_keras_2(file, file_name)


def _of_keras_3(file: h5py.File, config: KerasConfig, backbone: h5py.File | None) -> Stored:
    names = config.layer_names()
    layers = layers_of_keras_3(file)
    if backbone is not None:
        layers = layers_of_keras_3(backbone) + layers
    layers = [replace(layer, name=layer.name or names.get(layer.path)) for layer in layers]
    if any(layer.name is None for layer in layers):
        layers = name_by_order(layers)
    layers = reorder_first_fc(layers, config.flattens_channels_first)
    return _of_keras(file, layers, config)


def _of_keras_2(file: h5py.File, file_name: str) -> Stored:
    group = inside(file, "model_weights") if "model_weights" in file else file
    config = KerasConfig(text(file.attrs.get("model_config", _NO_CONFIG)))
    layers = layers_of_keras_2(group)
    is_first = has_channels_first(layers)
    is_flipped = _is_flipped(group, file_name, is_first)
    layers = reorder_kernels(layers, is_flipped=is_flipped)
    # Kernels of Keras 1 have the ordering of its images. Those of Keras 2 always have one.
    is_unknown = is_flipped and not is_first and "backend" in group.attrs
    flattens_first = None if is_unknown else is_first
    if config.channels_first is not None:
        flattens_first = config.flattens_channels_first
    return _of_keras(group, reorder_first_fc(layers, flattens_first), config)


def _is_flipped(group: h5py.Group, file_name: str, is_channels_first: bool) -> bool:
    """Whether the conv. kernels are those of Theano, which reverses both of their sides.

    Keras 1 did not state it in the file but in the name, such as
    "vgg16_weights_th_dim_ordering_tf_kernels.h5".
    """
    if "backend" in group.attrs:
        return text(group.attrs["backend"]) == "theano"
    for kernels, is_flipped in (("th_kernels", True), ("tf_kernels", False)):
        if kernels in file_name:
            return is_flipped
    if is_channels_first:
        raise WeightsError(
            "it does not state the backend of Keras that wrote it. Put th_kernels (Theano) or "
            "tf_kernels (TensorFlow) into the name of the file"
        )
    return False


def _of_keras(group: h5py.Group, layers: Sequence[Layer], config: KerasConfig) -> Stored:
    """The tensors of a file with what is known of its net's input."""
    normalizations = {
        str(layer.name): layer.tensors
        for layer in layers
        if {"mean", "variance"} <= set(layer.tensors)
    }
    tensors = by_name(
        tensor
        for layer in layers
        if layer.name not in normalizations
        for tensor in layer.named_tensors()
    )
    if (stored := _stored_metadata(group)) is not None:
        return Stored(tensors, stored)
    models = config.model_names | _model_names(layers)
    nets = models & set(NETS)
    net = nets.pop() if len(nets) == 1 else None
    if front := config.in_front():
        adapted = {
            layer.name: (
                normalizations[layer.name]["mean"].read(),
                normalizations[layer.name]["variance"].read(),
            )
            for layer in front
            if _has_colours(normalizations.get(layer.name, {}))
        }
        names = ", ".join(f"{layer.name} ({layer.kind})" for layer in front)
        folded = fold(front, adapted)
        ambiguity = "" if folded else f"its layers {names} change what its conv. layers take"
        return Stored(tensors, WeightsMetadata(folded, net), ambiguity)
    if not config.layers and (unknown := _OWN_INPUT & {layer.kind for layer in layers}):
        ambiguity = f"it has layers of kind {', '.join(sorted(unknown))} without their arguments"
        return Stored(tensors, ambiguity=ambiguity)
    dense = {layer.name for layer in layers if layer.kernel_sides == 2}
    if _has_sliding_dense(layers, config) or (net and not _is_of_another(net, layers, config)):
        return Stored(tensors, WeightsMetadata(net=net), is_of_vgg=True)
    # The releases of Keras Applications are files of Keras 1 and 2 with weights alone.
    is_released = not config.layers and "vars" not in group
    is_known = models & _APPLICATIONS or set(FC_NAMES) <= dense or is_released
    return Stored(tensors, ambiguity="" if is_known else UNKNOWN_INPUT)


def _has_sliding_dense(layers: Sequence[Layer], config: KerasConfig) -> bool:
    """Whether the FC layers are of the kind that only this package has."""
    kinds = {layer.kind for layer in config.layers}
    return any(layer.kind == "sliding_dense" for layer in layers) or any(
        kind.endswith("SlidingDense") for kind in kinds
    )


def _is_of_another(net: str, layers: Sequence[Layer], config: KerasConfig) -> bool:
    """Whether a model with the name of a net has FC layers that a net of this package never has.

    A net without FC layers has only its name. A model that has it inside can have other FC layers.
    """
    dense = {layer.name for layer in layers if layer.kernel_sides == 2}
    outermost = {config.name, *(layer.name for layer in layers if not layer.path)}
    return bool(dense) if net in outermost else set(FC_NAMES) <= dense


def _has_colours(normalization: Mapping[str, StoredTensor]) -> bool:
    """Whether a layer has a mean and variance of at most three values each."""
    return bool(normalization) and all(
        math.prod(normalization[part].shape) <= 3 for part in NORMALIZATION[:2]
    )


def _model_names(layers: Sequence[Layer]) -> set[str | None]:
    """Names of the models in a file of Keras 3, which have other layers in their groups."""
    containers = {layer.container for layer in layers}
    return {
        layer.name for layer in layers if f"{layer.path}/layers".removeprefix("/") in containers
    }


def _stored_metadata(group: h5py.Group) -> WeightsMetadata | None:
    stored = group.attrs.get(METADATA)
    return None if stored is None else WeightsMetadata.from_json(text(stored))
