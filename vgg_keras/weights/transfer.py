"""Weights into a model, out of it, and from file to file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vgg_keras.callbacks.file_names import BEST_WEIGHTS
from vgg_keras.nets import FC_NAMES, NETS, Net, get_net
from vgg_keras.pipelines.files import atomic_path
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.weights.arrays import write_npz
from vgg_keras.weights.hdf5 import write_applications_h5, write_keras_weights
from vgg_keras.weights.naming import (
    KERAS,
    PARTS,
    TORCHVISION,
    TORCHVISION_NETS,
    Convention,
    Kernel,
    as_kernels,
    kernels_of,
)
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing, refit
from vgg_keras.weights.reading import Contents, read
from vgg_keras.weights.stored import WeightsError, WeightsMetadata
from vgg_keras.weights.torch_files import write_safetensors

if TYPE_CHECKING:
    import keras

Layers = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Target:
    """A kind of file to write: whose naming and layout, for which input, and the writer."""

    family: Convention
    preprocessing: str
    write: Callable[[Path, Mapping[str, np.ndarray], WeightsMetadata], None]
    nets: tuple[str, ...] = ()  # all, where none is named


# By how a file's name ends; the first that fits.
TARGETS = {
    ".weights.h5": Target(KERAS, "rgb", write_keras_weights),
    ".h5": Target(KERAS, "caffe", write_applications_h5),
    ".safetensors": Target(TORCHVISION, "torch", write_safetensors, TORCHVISION_NETS),
    ".npz": Target(KERAS, "rgb", write_npz),
}


def load(
    model: keras.Model,
    source: str | os.PathLike,
    *,
    partial: bool = False,
    preprocessing: str | Preprocessing | None = None,
    mean: Sequence[float] = ILSVRC.mean,
) -> Contents:
    """Loads weights into a model, all or nothing: after an error it is as it was.

    Args:
        model: from `vgg`, or any whose layers have the names of Keras Applications.
        source, preprocessing: see `read`.
        partial: load those layers that both have in one shape; the others stay as they are.
        mean: RGB, what is subtracted from the model's input. With torchvision's own,
            (123.675, 116.28, 103.53), its weights are exact on the border of a picture too.

    Returns:
        What was taken, and what was left.

    Raises:
        WeightsError, ImportError, ValueError: see `read`.
    """
    kernels = as_kernels({layer.name: layer.kernel.shape for layer in _layers_of(model)})
    net = model.name if model.name in NETS else None
    layers, contents = read(
        source, net, partial=partial, preprocessing=preprocessing, mean=mean, kernels=kernels
    )
    for name in contents.taken:
        model.get_layer(name).set_weights(layers.pop(name))
    return contents


def save(
    model: keras.Model, target: str | os.PathLike, *, mean: Sequence[float] = ILSVRC.mean
) -> None:
    """Writes a model's weights for use elsewhere.

    Args:
        model: from `vgg`.
        target: a name that ends in `.weights.h5` (for `model.load_weights`), `.h5` (for
            `keras.applications`), `.safetensors` (torchvision's names) or `.npz`.
        mean: RGB, what is subtracted from the model's input.

    Raises:
        WeightsError: another ending, or layers that cannot be named so.
        OSError: the file cannot be written; what was there before stays.
    """
    red, green, blue = mean
    layers = {}
    for layer in _layers_of(model):
        kernel, bias = (np.asarray(weights, np.float32) for weights in layer.get_weights())
        layers[layer.name] = kernel, bias
    kernels = as_kernels({name: kernel.shape for name, (kernel, _) in layers.items()})
    _write(Path(target), layers, kernels, model.name, Preprocessing((red, green, blue)))


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    net: str | None = None,
    *,
    partial: bool = False,
    preprocessing: str | Preprocessing | None = None,
) -> Contents:
    """Writes the weights of a file or a run as another kind of file; see `read` and `save`.

    No model is built. What is written takes the means of its kind: a run's own mean is moved into
    its first layer.

    Returns:
        What was taken, and what was left.

    Raises:
        WeightsError, ImportError, ValueError: see `read`.
        OSError: the file cannot be written; what was there before stays.
    """
    target = Path(target)
    _kind(target)
    if target.resolve() in (Path(source).resolve(), Path(source).resolve() / BEST_WEIGHTS):
        raise WeightsError(f"The target is the source. Received: {target}")
    layers, contents = read(source, net, partial=partial, preprocessing=preprocessing)
    size = contents.num_classes, contents.crop_size, contents.width
    kernels = kernels_of(get_net(contents.net), *size)
    _write(target, layers, kernels, contents.net, PREPROCESSINGS["rgb"])
    return contents


def _layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers with weights, which must be a kernel and a bias."""
    layers = [layer for layer in model.layers if layer.weights]
    for layer in layers:
        if [variable.name for variable in layer.weights] != list(PARTS):
            raise WeightsError(
                f"Layer {layer.name} of {model.name} has other weights than a kernel and a bias, "
                f"which is all that layers of these nets have."
            )
    return layers


def _kind(target: Path) -> Target:
    for ending, kind in TARGETS.items():
        if target.name.endswith(ending):
            return kind
    raise WeightsError(
        f"Weights are written to files that end in {', '.join(TARGETS)}. Received: {target.name}"
    )


def _write(
    target: Path, layers: Layers, kernels: Mapping[str, Kernel], name: str, given: Preprocessing
) -> None:
    """Writes layers, which are taken out of the dictionary on the way."""
    kind = _kind(target)
    wanted = PREPROCESSINGS[kind.preprocessing]
    net = _table_of(name, layers, kind)
    names = kind.family.names(net)
    tensors = {}
    for layer in list(layers):
        kernel, bias = layers.pop(layer)
        if layer == "block1_conv1":
            kernel, bias = refit(kernel, bias, given, wanted)
        is_fc = layer in FC_NAMES
        tensors[names[layer, "kernel"]] = kind.family.to_theirs(kernel, kernels[layer], is_fc)
        tensors[names[layer, "bias"]] = bias
    size = sum(array.nbytes for array in tensors.values())
    with atomic_path(target, size=size + 2**20) as temporary:
        kind.write(temporary, tensors, WeightsMetadata(wanted, name if name in NETS else None))


def _table_of(name: str, layers: Iterable[str], kind: Target) -> Net:
    """The net of that name, or else one that has all the layers."""
    tables = [NETS[net] for net in kind.nets or NETS]
    fitting = [net for net in tables if set(layers) <= {*net.conv_names, *FC_NAMES}]
    named = [net for net in fitting if net.name == name]
    if not fitting or (name in NETS and not named):
        raise WeightsError(
            f"{kind.family.name} has names for the layers of nets {', '.join(kind.nets or NETS)}. "
            f"Received: {name}, with layers {', '.join(layers)}"
        )
    return (named or fitting)[0]
