"""Loads weights into a model, saves them, and converts files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vgg_keras.errors import ArgumentError, WeightsError
from vgg_keras.nets import FC_NAMES, NETS, Net, get_net
from vgg_keras.pipelines.files import atomic_path
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.run_files import BEST_WEIGHTS
from vgg_keras.weights.arrays import write_npz
from vgg_keras.weights.keras_files import (
    write_applications_h5,
    write_keras_archive,
    write_keras_weights,
)
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
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing, as_preprocessing, refit
from vgg_keras.weights.reading import FIRST, Contents, read_as
from vgg_keras.weights.stored import WeightsMetadata
from vgg_keras.weights.torch_files import write_safetensors

if TYPE_CHECKING:
    import keras

Layers = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Target:
    """A kind of file to write.

    Attributes:
        family: names and layout of the weights.
        preprocessing: name of the preprocessing that the written weights take; None for RGB minus
            the mean of the net, in a file that holds the subtraction too.
        write: function that writes the file.
        nets: names of the nets that the kind can hold; empty for all nets.
    """

    family: Convention
    preprocessing: str | None
    write: Callable[[Path, Mapping[str, np.ndarray], WeightsMetadata], None]
    nets: tuple[str, ...] = ()

    @property
    def wanted(self) -> Preprocessing | None:
        """The preprocessing of the written weights, if it is one for all nets."""
        return None if self.preprocessing is None else PREPROCESSINGS[self.preprocessing]


# The ending of a file's name decides its kind. The first ending that fits is taken.
TARGETS = {
    ".weights.h5": Target(KERAS, "rgb", write_keras_weights),
    ".h5": Target(KERAS, "caffe", write_applications_h5),
    ".keras": Target(KERAS, None, write_keras_archive),
    ".safetensors": Target(TORCHVISION, "torch", write_safetensors, TORCHVISION_NETS),
    ".npz": Target(KERAS, "rgb", write_npz),
}
"""What `save` and `convert` write, by the ending of the file: `TARGETS[".npz"].preprocessing`."""


def load(
    model: keras.Model,
    source: str | os.PathLike,
    *,
    partial: bool = False,
    head: str | None = None,
    preprocessing: str | Preprocessing | None = None,
    mean: Sequence[float] = ILSVRC.mean,
    model_preprocessing: str | Preprocessing | None = None,
) -> Contents:
    """Loads weights into a model. After an error, the model is unchanged.

    Args:
        model: a model that `vgg` built, or any model with the layer names of Keras Applications.
        source, head, preprocessing: see `read`.
        partial: whether to load only the layers that have the same shape in both. The other layers
            of the model keep their weights.
        mean: RGB mean that is subtracted from the images. With torchvision's mean, (123.675,
            116.28, 103.53), torchvision's weights are exact on the border of an image too.
        model_preprocessing: preprocessing of the images that the model takes, in place of `mean`;
            "caffe" for a model of Keras Applications. Needed if `vgg` did not build the model.

    Returns:
        The layers that were loaded, and those that were not.

    Raises:
        WeightsError, RunError, SourceError, MissingPackageError, ArgumentError: see `read`. Or
            `vgg` did not build the model, and model_preprocessing is not given.

    Example:
        >>> contents = load(vgg("vgg16"), "vgg16.safetensors")
        >>> contents.net
        'D'
    """
    kernels = as_kernels({layer.name: layer.kernel.shape for layer in _layers_of(model)})
    net = model.name if model.name in NETS else None
    layers, contents = read_as(
        _preprocessing_of(model, mean, model_preprocessing),
        source,
        net,
        partial=partial,
        head=head,
        preprocessing=preprocessing,
        kernels=kernels,
    )
    for name in contents.taken:
        model.get_layer(name).set_weights(layers.pop(name))
    return contents


def save(
    model: keras.Model,
    target: str | os.PathLike,
    *,
    mean: Sequence[float] = ILSVRC.mean,
    model_preprocessing: str | Preprocessing | None = None,
) -> None:
    """Saves the weights of a model as a file for other projects.

    Args:
        model: a model that `vgg` built, or any model with the layer names of Keras Applications.
        target: path that ends in `.weights.h5` (for `model.load_weights`), `.h5` (for
            `keras.applications`), `.keras` (for `keras.models.load_model`, as a model that takes
            RGB in 0..255), `.safetensors` (with the names of torchvision) or `.npz`.
        mean, model_preprocessing: see `load`.

    Raises:
        ArgumentError: `vgg` did not build the model, and model_preprocessing is not given.
        WeightsError: the path has another ending, or the kind of file has no names for the layers.
        WriteError: the file cannot be written. A file that was there before is unchanged.

    Example:
        >>> save(model, "vgg16.safetensors")
    """
    given = _preprocessing_of(model, mean, model_preprocessing)
    layers = {}
    for layer in _layers_of(model):
        kernel, bias = (np.asarray(weights, np.float32) for weights in layer.get_weights())
        layers[layer.name] = kernel, bias
    kernels = as_kernels({name: kernel.shape for name, (kernel, _) in layers.items()})
    target = Path(target)
    wanted = _kind(target).wanted or Preprocessing(given.mean)
    if FIRST in layers:
        layers[FIRST] = refit(*layers[FIRST], given, wanted)
    _write(target, layers, kernels, model.name, wanted)


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    net: str | None = None,
    *,
    partial: bool = False,
    head: str | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> Contents:
    """Converts a weights file, a run or a saved net to another kind of file.

    No model is built. The written weights take the preprocessing of their kind of file. The first
    layer is adapted to the difference from the preprocessing of the source. A `.keras` file keeps
    the mean of the source.

    Args:
        source, net, partial, head, preprocessing: see `read`.
        target: see `save`.

    Returns:
        The layers that were converted, and those that were not.

    Raises:
        WeightsError, RunError, SourceError, MissingPackageError, ArgumentError: see `read`.
        WriteError: the file cannot be written. A file that was there before is unchanged.

    Example:
        >>> contents = convert("runs/D", "d.safetensors")
    """
    target = Path(target)
    wanted = _kind(target).wanted
    if target.resolve() in (Path(source).resolve(), Path(source).resolve() / BEST_WEIGHTS):
        raise WeightsError(f"target must not be the source. Received: {target}")
    layers, contents = read_as(
        wanted, source, net, partial=partial, head=head, preprocessing=preprocessing
    )
    size = contents.num_classes, contents.crop_size, contents.width
    kernels = kernels_of(get_net(contents.net), *size)
    wanted = wanted or Preprocessing(contents.preprocessing.mean)
    _write(target, layers, kernels, contents.net, wanted)
    return contents


def _layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model that have weights. Each must have a kernel and a bias."""
    layers = [layer for layer in model.layers if layer.weights]
    for layer in layers:
        if [variable.name for variable in layer.weights] != list(PARTS):
            raise WeightsError(
                f"Each layer of {model.name} must have a kernel and a bias as its only weights. "
                f"Received: layer {layer.name} with "
                f"{', '.join(variable.name for variable in layer.weights)}"
            )
    return layers


def _preprocessing_of(
    model: keras.Model, mean: Sequence[float], given: str | Preprocessing | None
) -> Preprocessing:
    """The preprocessing of the images that a model takes."""
    from vgg_keras.layers import SlidingDense

    if given is not None:
        return as_preprocessing(given)
    if model.name not in NETS and not any(isinstance(one, SlidingDense) for one in model.layers):
        raise ArgumentError(
            f"model_preprocessing must be given for a model that vgg() did not build, because "
            f"nothing tells which images it takes: {', '.join(PREPROCESSINGS)}, of which caffe is "
            f"that of Keras Applications. Received: model {model.name!r}",
            "model_preprocessing",
        )
    red, green, blue = mean
    return Preprocessing((red, green, blue))


def _kind(target: Path) -> Target:
    for ending, kind in TARGETS.items():
        if target.name.endswith(ending):
            return kind
    raise WeightsError(
        f"The name of a weights file must end in {', '.join(TARGETS)}. Received: {target.name}"
    )


def _write(
    target: Path, layers: Layers, kernels: Mapping[str, Kernel], name: str, wanted: Preprocessing
) -> None:
    """Writes a file of layers that take `wanted`. To save memory, `layers` is emptied."""
    kind = _kind(target)
    net = _net_of(name, layers, kind)
    names = kind.family.names(net)
    tensors = {}
    for layer in list(layers):
        kernel, bias = layers.pop(layer)
        is_fc = layer in FC_NAMES
        tensors[names[layer, "kernel"]] = kind.family.to_theirs(kernel, kernels[layer], is_fc)
        tensors[names[layer, "bias"]] = bias
    size = sum(array.nbytes for array in tensors.values())
    with atomic_path(target, size=size + 2**20) as temporary:
        kind.write(temporary, tensors, WeightsMetadata(wanted, name if name in NETS else None))


def _net_of(name: str, layers: Iterable[str], kind: Target) -> Net:
    """The net with the given name, else the first one that has all the layers."""
    candidates = [NETS[net] for net in kind.nets or NETS]
    fitting = [net for net in candidates if set(layers) <= {*net.conv_names, *FC_NAMES}]
    named = [net for net in fitting if net.name == name]
    if not fitting or (name in NETS and not named):
        raise WeightsError(
            f"{kind.family.name} has names for the layers of nets {', '.join(kind.nets or NETS)}. "
            f"Received: {name}, with layers {', '.join(layers)}"
        )
    return (named or fitting)[0]
