"""Names and layouts of the weights in files of other projects, and the net inferred from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vgg_keras.nets import (
    CHANNELS,
    FC_NAMES,
    HIDDEN_UNITS,
    NETS,
    STRIDE,
    Net,
    scaled,
    weight_layers,
)

PARTS = ("kernel", "bias")
Key = tuple[str, str]  # layer, part
Shape = tuple[int, ...]
# Shape of a kernel as (h, w, channels, outputs). That of `fc1` covers the last feature map.
Kernel = tuple[int, int, int, int]


@dataclass(frozen=True)
class Convention:
    """Names and layout of the weights in one family of files.

    Attributes:
        name: name of the family in messages.
        names: function from a net to the family's names of its tensors, by layer and part.
        channels_first: whether kernels are `(outputs, channels, h, w)` and the input of `fc1` is
            flattened in the order C, H, W. Otherwise the orders are `(h, w, channels, outputs)`
            and H, W, C.
        preprocessing: name of the preprocessing of a net whose file does not state it.
        loose: whether shapes can have more or fewer sides of 1.
    """

    name: str
    names: Callable[[Net], dict[Key, str]]
    channels_first: bool
    preprocessing: str
    loose: bool = False

    def fits(self, shape: Shape, allowed: tuple[Shape, ...]) -> bool:
        """Whether a tensor with this shape can be read as one of the allowed shapes."""
        return shape in allowed or (
            self.loose and _squeezed(shape) in tuple(map(_squeezed, allowed))
        )

    def shapes(self, kernel: Kernel, is_fc: bool) -> tuple[Shape, ...]:
        """The shapes that a kernel can have in a file."""
        h, w, channels, outputs = kernel
        if self.channels_first:
            whole, flat = (outputs, channels, h, w), (outputs, channels * h * w)
        else:
            whole, flat = kernel, (h * w * channels, outputs)
        return (flat, whole) if is_fc else (whole,)

    def to_ours(self, array: np.ndarray, kernel: Kernel, is_fc: bool) -> np.ndarray:
        """Converts a kernel of this family to the layout of Keras, as contiguous float32."""
        h, w, channels, outputs = kernel
        if self.channels_first:
            array = array.reshape(outputs, channels, h, w).transpose(2, 3, 1, 0)
        with np.errstate(over="ignore"):  # values that are not finite are refused later
            ours = np.ascontiguousarray(array.reshape(kernel), np.float32)
        return ours.reshape(-1, outputs) if is_fc else ours

    def to_theirs(self, array: np.ndarray, kernel: Kernel, is_fc: bool) -> np.ndarray:
        """Converts a kernel of Keras to this family, in the first of `shapes`."""
        if self.channels_first:
            array = array.reshape(kernel).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(array).reshape(self.shapes(kernel, is_fc)[0])


def kernels_of(net: Net, num_classes: int, crop_size: int, width: float) -> dict[str, Kernel]:
    """Returns the shapes of a net's kernels by layer, in order."""
    return {
        layer.name: (layer.kernel, layer.kernel, layer.inputs, layer.outputs)
        for layer in weight_layers(net, num_classes, crop_size, width)
    }


def as_kernels(shapes: Mapping[str, Shape]) -> dict[str, Kernel]:
    """Returns the shapes of Keras kernels by layer, in order, with FC layers as windows."""
    kernels: dict[str, Kernel] = {}
    previous = 0
    for layer, shape in shapes.items():
        *_, inputs, outputs = shape
        side = 1
        if len(shape) == 2 and previous:  # a flattened window over the layer before it
            side, inputs = math.isqrt(inputs // previous), previous
        kernels[layer] = (
            (*shape[:2], inputs, outputs) if len(shape) == 4 else (side, side, inputs, outputs)
        )
        previous = outputs
    return kernels


def _squeezed(shape: Shape) -> Shape:
    return tuple(side for side in shape if side != 1)


def _joined(layers: Mapping[str, str], *parts: str) -> dict[Key, str]:
    return {
        (layer, part): theirs + suffix
        for layer, theirs in layers.items()
        for part, suffix in zip(PARTS, parts, strict=True)
    }


def _keras_layers(net: Net) -> dict[str, str]:
    return {name: name for name in (*net.conv_names, *FC_NAMES)}


def _caffe_layers(net: Net) -> dict[str, str]:
    names = [f"conv{name.removeprefix('block').replace('_conv', '_')}" for name in net.conv_names]
    return dict(zip(_keras_layers(net), (*names, "fc6", "fc7", "fc8"), strict=True))


def _torch_layers(net: Net, *fc_names: str) -> dict[str, str]:
    """Conv. layers have their index in the sequence of conv. layers, ReLUs and poolings."""
    names, index = [], 0
    for block in net.kernels:
        for _ in block:
            names.append(f"features.{index}")
            index += 2
        index += 1
    return dict(zip(_keras_layers(net), (*names, *fc_names), strict=True))


_TORCHVISION_FC = ("classifier.0", "classifier.3", "classifier.6")
_TIMM_FC = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
KERAS = Convention(
    "Keras", lambda net: _joined(_keras_layers(net), "/kernel", "/bias"), False, "caffe"
)
TORCHVISION = Convention(
    "torchvision",
    lambda net: _joined(_torch_layers(net, *_TORCHVISION_FC), ".weight", ".bias"),
    True,
    "torch",
)
TORCHVISION_NETS = ("A", "B", "D", "E")  # its vgg11, vgg13, vgg16 and vgg19
CONVENTIONS = (
    KERAS,
    Convention(
        "Caffe", lambda net: _joined(_caffe_layers(net), "/0", "/1"), True, "caffe", loose=True
    ),
    Convention(
        "MatConvNet",
        lambda net: _joined(_caffe_layers(net), "/filters", "/biases"),
        False,
        "rgb",
        loose=True,
    ),
    TORCHVISION,
    Convention(
        "timm",
        lambda net: _joined(_torch_layers(net, *_TIMM_FC), ".weight", ".bias"),
        True,
        "torch",
    ),
    # vgg16_weights.npz of https://www.cs.toronto.edu/~frossard/post/vgg16, which takes RGB.
    Convention("TensorFlow", lambda net: _joined(_caffe_layers(net), "_W", "_b"), False, "rgb"),
)


def identify(shapes: Mapping[str, Shape]) -> tuple[Convention, Net] | None:
    """Returns the family and net that match the tensors best; None if no name is known.

    Args:
        shapes: shapes of the tensors by their names in the file.
    """

    def likeness(family: Convention, net: Net) -> tuple[int, int, int]:
        names = family.names(net)
        known = sum(name in shapes for name in names.values())
        return known, _sides_that_fit(net, sizes_of(names, shapes)), known - len(names)

    pairs = [(family, net) for family in CONVENTIONS for net in NETS.values()]
    family, net = max(pairs, key=lambda pair: likeness(*pair))  # ties keep the order
    return (family, net) if set(family.names(net).values()) & set(shapes) else None


def sizes_of(names: Mapping[Key, str], shapes: Mapping[str, Shape]) -> dict[Key, int]:
    """Returns the number of values in each tensor that the file has."""
    return {key: math.prod(shapes[name]) for key, name in names.items() if name in shapes}


def _sides_that_fit(net: Net, sizes: Mapping[Key, int]) -> int:
    """Number of conv. kernels with the net's side. Nets C and D differ only in these sides."""
    fitting, inputs = 0, 3
    sides = [side for block in net.kernels for side in block]
    for layer, side in zip(net.conv_names, sides, strict=True):
        outputs = sizes.get((layer, "bias"), 0)
        fitting += sizes.get((layer, "kernel")) == side**2 * inputs * outputs
        inputs = outputs
    return fitting


def geometry(net: Net, sizes: Mapping[Key, int]) -> tuple[int, int, float]:
    """Returns the number of classes, crop size and width that are inferred from the tensors.

    Values that the tensors do not determine are 1000, 224 and 1.
    """
    num_classes = sizes.get(("predictions", "bias"), 1000)
    crop_size = 224
    outputs = sizes.get((net.conv_names[-1], "bias"), 0) * sizes.get(("fc1", "bias"), 0)
    if outputs and ("fc1", "kernel") in sizes:
        crop_size = STRIDE * max(1, math.isqrt(sizes["fc1", "kernel"] // outputs))
    return max(1, num_classes), crop_size, _width(net, sizes)


def _width(net: Net, sizes: Mapping[Key, int]) -> float:
    """The width with the fewest decimals that gives every layer its number of channels."""
    full = {name: CHANNELS[int(name[len("block")]) - 1] for name in net.conv_names}
    full |= dict.fromkeys(FC_NAMES[:2], HIDDEN_UNITS)
    pairs = sorted(
        (units, sizes[layer, "bias"]) for layer, units in full.items() if (layer, "bias") in sizes
    )
    if not pairs:
        return 1.0
    widest = pairs[-1][1] / pairs[-1][0] or 1.0
    least = max((given - 0.5) / units for units, given in pairs)
    most = min((given + 0.5) / units for units, given in pairs)
    middle = (least + most) / 2
    candidates = (widest, *(round(middle, decimals) for decimals in range(1, 9)), middle)
    return next(
        (w for w in candidates if all(scaled(units, w) == given for units, given in pairs)), widest
    )
