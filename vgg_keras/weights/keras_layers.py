"""Layers in Keras files: their names, where a file has none, and the layout of their kernels."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, NETS
from vgg_keras.weights.naming import Shape
from vgg_keras.weights.stored import StoredTensor

NORMALIZATION = ("mean", "variance", "count")  # tensors of a layer `Normalization`


@dataclass(frozen=True)
class Layer:
    """A layer in a file.

    Attributes:
        path: path of its group.
        name: its name; None if the file does not state it.
        tensors: tensors by their names in the layer, such as "kernel".
        origins: where the tensors are stored, by the same names.
    """

    path: str
    name: str | None
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Class of the layer in files that name groups by it, such as "conv2d"."""
        return re.sub(r"_\d+$", "", self.path.rsplit("/", 1)[-1])

    @property
    def container(self) -> str:
        """Path of the model that has the layer."""
        return self.path.rpartition("/")[0]

    @property
    def kernel_sides(self) -> int:
        """Number of sides of the kernel: 4 for a conv. layer, 2 for an FC layer, 0 for others."""
        kernel = self.tensors.get("kernel")
        return 0 if kernel is None else len(kernel.shape)

    def named_tensors(self) -> Iterator[tuple[str, str, StoredTensor]]:
        """Name, path and contents of each tensor."""
        for part, tensor in self.tensors.items():
            yield f"{self.name}/{part}", self.origins[part], tensor


def name_by_order(layers: Sequence[Layer]) -> list[Layer]:
    """Names the layers of a file that names none.

    The conv. layers of one model in the file get the names of the net that has as many layers with
    the same sides. If three FC layers follow, these get their names too. Other layers are named by
    their paths.
    """
    names: dict[str, str] = {}
    containers = defaultdict(list)
    for layer in sorted(layers, key=_number):
        containers[layer.container].append(layer)
        names[layer.path] = layer.name or layer.path.replace("layers/", "")
    for own in containers.values():
        convs = [layer for layer in own if layer.kernel_sides == 4]
        fcs = [layer for layer in own if layer.kernel_sides == 2]
        sides = [layer.tensors["kernel"].shape[0] for layer in convs]
        for net in NETS.values():
            if sides == [side for block in net.kernels for side in block]:
                found = convs + fcs if len(fcs) == len(FC_NAMES) else convs
                paths = [layer.path for layer in found]
                names |= dict(zip(paths, (*net.conv_names, *FC_NAMES), strict=False))
                break
    return [replace(layer, name=names[layer.path]) for layer in layers]


def _number(layer: Layer) -> int:
    """Number of a layer among those of its kind: 0 for "conv2d" and 12 for "conv2d_12"."""
    number = re.search(r"_(\d+)$", layer.path)
    return int(number[1]) if number else 0


def has_channels_first(layers: Sequence[Layer]) -> bool:
    """Whether kernels are `(outputs, channels, h, w)`, as in Keras 1 with Theano's ordering."""
    for layer in layers:
        if layer.kernel_sides == 4 and "bias" in layer.tensors:
            kernel, bias = layer.tensors["kernel"].shape, layer.tensors["bias"].shape
            return kernel[:1] == bias != kernel[-1:]
    return False


def reorder_kernels(layers: Sequence[Layer], *, is_flipped: bool) -> list[Layer]:
    """Brings conv. kernels to `(h, w, channels, outputs)`.

    Args:
        layers: layers of a file.
        is_flipped: whether both sides of a kernel are reversed, as Theano convolves. TensorFlow
            correlates.
    """
    axes = (2, 3, 1, 0) if has_channels_first(layers) else (0, 1, 2, 3)
    step = -1 if is_flipped else 1

    def reorder(kernel: np.ndarray) -> np.ndarray:
        return kernel.transpose(axes)[::step, ::step]

    def shape(of: Shape) -> Shape:
        return tuple(of[axis] for axis in axes)

    return [
        _with_kernel(layer, reorder, shape(layer.tensors["kernel"].shape))
        if layer.kernel_sides == 4
        else layer
        for layer in layers
    ]


def reorder_first_fc(layers: Sequence[Layer], is_channels_first: bool | None) -> list[Layer]:
    """Brings the input of the first FC layer from the order C, H, W to H, W, C.

    Args:
        layers: layers of a file, with kernels as `reorder_kernels` returns them.
        is_channels_first: whether it has the order C, H, W; None if that is not known.

    Raises:
        WeightsError: the order is not known and matters.
    """
    channels = [layer.tensors["kernel"].shape[-1] for layer in layers if layer.kernel_sides == 4]
    first = next((i for i, layer in enumerate(layers) if layer.kernel_sides == 2), None)
    if is_channels_first is False or first is None or not channels or not channels[-1]:
        return list(layers)
    inputs, outputs = layers[first].tensors["kernel"].shape
    side = math.isqrt(inputs // channels[-1])
    if side <= 1 or side**2 * channels[-1] != inputs:
        return list(layers)
    if is_channels_first is None:
        raise WeightsError(
            "Keras with Theano wrote it, and it does not state its image_data_format, so the order "
            f"of the inputs of {layers[first].name} is not known. Load it with that version of "
            "Keras and save the whole model"
        )
    window = (channels[-1], side, side, outputs)

    def reorder(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(window).transpose(1, 2, 0, 3).reshape(inputs, outputs)

    changed = _with_kernel(layers[first], reorder, (inputs, outputs))
    return [*layers[:first], changed, *layers[first + 1 :]]


def _with_kernel(layer: Layer, change: Callable[[np.ndarray], np.ndarray], shape: Shape) -> Layer:
    stored = layer.tensors["kernel"]
    kernel = replace(stored, shape=shape, read=lambda: change(stored.read()))
    return replace(layer, tensors=layer.tensors | {"kernel": kernel})
