"""Names and layouts of the weights in files of other projects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vgg_keras.nets import FC_NAMES, Net, weight_layers

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
        layers: function from a net to the family's names of its layers, by our names. A family
            can lack FC layers.
        parts: what follows the name of a layer in the names of its kernel and bias.
        channels_first: whether kernels are `(outputs, channels, h, w)` and the input of `fc1` is
            flattened in the order C, H, W. Otherwise the orders are `(h, w, channels, outputs)`
            and H, W, C.
        preprocessing: name of the preprocessing of a net whose file does not state it.
        loose: whether shapes can have more or fewer sides of 1.
        assumed_for: regular expression of the file names for which `preprocessing` is assumed. For
            other files it is asked for.
        assumed_with_head: whether `preprocessing` is also assumed for a net with a head of its own.
    """

    name: str
    layers: Callable[[Net], dict[str, str]]
    parts: tuple[str, str]
    channels_first: bool
    preprocessing: str
    loose: bool = False
    assumed_for: str = ""
    assumed_with_head: bool = True

    def names(self, net: Net, prefix: str = "", head: str | None = None) -> dict[Key, str]:
        """The family's names of a net's tensors, by layer and part.

        Args:
            net: the net.
            prefix: what precedes all names in the file.
            head: name of the last layer in the file, with the prefix; by default the family's.
        """
        layers = {ours: prefix + theirs for ours, theirs in self.layers(net).items()}
        if head is not None:
            layers[FC_NAMES[-1]] = head
        return {
            (ours, part): theirs + ending
            for ours, theirs in layers.items()
            for part, ending in zip(PARTS, self.parts, strict=True)
        }

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


def _keras_layers(net: Net) -> dict[str, str]:
    return {name: name for name in (*net.conv_names, *FC_NAMES)}


def _caffe_layers(net: Net) -> dict[str, str]:
    names = [f"conv{name.removeprefix('block').replace('_conv', '_')}" for name in net.conv_names]
    return dict(zip(_keras_layers(net), (*names, "fc6", "fc7", "fc8"), strict=True))


def _sequence(net: Net, prefix: str = "") -> dict[str, str]:
    """Conv. layers have their index in the sequence of conv. layers, ReLUs and poolings."""
    names, index = [], 0
    for block in net.kernels:
        for _ in block:
            names.append(f"{prefix}{index}")
            index += 2
        index += 1
    return dict(zip(net.conv_names, names, strict=True))


def _torch_layers(*fc_names: str) -> Callable[[Net], dict[str, str]]:
    fc_layers = dict(zip(FC_NAMES, fc_names, strict=True))
    return lambda net: _sequence(net, "features.") | fc_layers


def _gluon_layers(net: Net) -> dict[str, str]:
    names = [f"conv{index}" for index in range(len(net.conv_names))]
    return dict(zip(_keras_layers(net), (*names, "dense0", "dense1", "dense2"), strict=True))


def _with_blocks(net: Net, template: str) -> dict[str, str]:
    """Caffe's names, of conv. layers in a template with their block and their name."""
    return {
        ours: template.format(block=theirs.split("_")[0], name=theirs) if "conv" in ours else theirs
        for ours, theirs in _caffe_layers(net).items()
    }


_TORCH_PARTS = (".weight", ".bias")
# Files of `assumed_for`: Caffe's weights are also handed on with torchvision's names, as
# vgg16_caffe.pth; vgg16-00b39a1b.pth and vgg19-d01eb7cb.pth of jcjohnson/pytorch-vgg;
# vgg16_reducedfc.pth of amdegroot/ssd.pytorch. So are those of `IMAGENET1K_FEATURES`, as
# vgg16_features-amdegroot-88682ab5.pth.
_TORCH_FILES = r"(?i)^(?!.*(caffe|amdegroot|reduced_?fc|00b39a1b|d01eb7cb))"
KERAS = Convention(
    "Keras", _keras_layers, ("/kernel", "/bias"), False, "caffe", assumed_with_head=False
)
TORCHVISION = Convention(
    "torchvision",
    _torch_layers("classifier.0", "classifier.3", "classifier.6"),
    _TORCH_PARTS,
    True,
    "torch",
    assumed_for=_TORCH_FILES,
)
TORCHVISION_NETS = ("A", "B", "D", "E")  # its vgg11, vgg13, vgg16 and vgg19
# Of families that fit a file equally well the first one is taken.
CONVENTIONS = (
    KERAS,
    Convention("Caffe", _caffe_layers, ("/0", "/1"), True, "caffe", loose=True),
    Convention("MatConvNet", _caffe_layers, ("/filters", "/biases"), False, "rgb", loose=True),
    TORCHVISION,
    Convention(
        "timm",
        _torch_layers("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
        _TORCH_PARTS,
        True,
        "torch",
        assumed_for=_TORCH_FILES,
    ),
    # `vgg16(...).features.state_dict()`
    Convention(
        "torchvision's features", _sequence, _TORCH_PARTS, True, "torch", assumed_for=_TORCH_FILES
    ),
    # vgg16_weights.npz of https://www.cs.toronto.edu/~frossard/post/vgg16, which takes RGB. Arrays
    # of a .npy file with BGR weights are saved with these names too.
    Convention(
        "TensorFlow", _caffe_layers, ("_W", "_b"), False, "rgb", assumed_for=r"^vgg16_weights"
    ),
    # vgg16.npy and vgg19.npy of https://github.com/machrisaa/tensorflow-vgg, and the files of
    # https://github.com/ethereon/caffe-tensorflow: the net of Caffe in the layout of TensorFlow.
    Convention(
        "tensorflow-vgg",
        _caffe_layers,
        ("/weights", "/biases"),
        False,
        "caffe",
        assumed_for=r"\.npy$",
    ),
    # https://github.com/tensorflow/models/tree/master/research/slim, with its vgg_preprocessing.
    Convention(
        "TF-Slim",
        lambda net: _with_blocks(net, "{block}/{name}"),
        ("/weights", "/biases"),
        False,
        "rgb",
    ),
    # VGG16Layers of Chainer is the net of Caffe. ChainerCV reverses the channels.
    Convention("Chainer", _caffe_layers, ("/W", "/b"), True, "caffe"),
    Convention(
        "ChainerCV", lambda net: _with_blocks(net, "{name}/conv"), ("/W", "/b"), True, "rgb"
    ),
    # Of the ONNX model zoo, vgg19-caffe2 is the net of Caffe, and the others are of MXNet's Gluon.
    Convention("Caffe2", _caffe_layers, ("_w_0", "_b_0"), True, "caffe"),
    Convention("Gluon", _gluon_layers, ("_weight", "_bias"), True, "torch"),
    # rcmalli_vggface_tf_vgg16.h5. Other models of Keras have layers with these names as well.
    Convention(
        "keras-vggface",
        _caffe_layers,
        ("/kernel", "/bias"),
        False,
        "vggface",
        assumed_for="vggface",
    ),
)
