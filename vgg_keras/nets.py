"""Table 1 of the paper as data, and what follows from it by arithmetic.

This module does not import TensorFlow, so that `vgg-keras describe` starts fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgg_keras.errors import ArgumentError
from vgg_keras.pipelines.checks import check_at_least, check_choice

CHANNELS = (64, 128, 256, 512, 512)  # channels of the five blocks at full width, §2.2
HIDDEN_UNITS = 4096  # units of each of the two hidden FC layers, §2.1
STRIDE = 32  # total stride of the five 2x2 poolings of stride 2, §2.1


# Standard deviation at full width by name; None stands for Glorot's uniform distribution.
INITIALISATIONS: dict[str, float | None] = {
    "gaussian": 0.01,  # the value that all published code for these nets uses
    "gaussian-0.1": 0.1,  # the paper's literal words: a variance of 1e-2, §3.1
    "glorot": None,  # Glorot & Bengio 2010, which needs no pre-training according to §3.1
}

# Padding of the poolings. On an odd side, "same" adds one row that never holds the maximum.
POOL_ROUNDINGS = {"down": "valid", "up": "same"}


@dataclass(frozen=True)
class LRNConstants:
    """Constants of y = x / (k + alpha * sum of x**2 over `size` neighbouring channels) ** beta."""

    k: float
    size: int
    alpha: float
    beta: float


LRN_PRESETS = {
    # Krizhevsky et al. 2012, §3.3, which §2.1 of the paper cites.
    "krizhevsky": LRNConstants(k=2.0, size=5, alpha=1e-4, beta=0.75),
    # The constants of Caffe when the VGG team branched from it in December 2013: k is 1, and
    # alpha is divided by the size.
    "caffe": LRNConstants(k=1.0, size=5, alpha=1e-4 / 5, beta=0.75),
}


@dataclass(frozen=True)
class Net:
    """One column of Table 1.

    Attributes:
        name: name of the net in the paper.
        kernels: for each of the five blocks, the kernel side of each of its conv. layers.
        lrn: whether local response normalisation follows the first conv. layer.

    Example:
        >>> get_net("vgg16").weight_layers
        16
    """

    name: str
    kernels: tuple[tuple[int, ...], ...]
    lrn: bool = False

    @property
    def weight_layers(self) -> int:
        """Number of conv. and FC layers, for example 11 for A and 19 for E."""
        return sum(map(len, self.kernels)) + 3

    @property
    def conv_names(self) -> tuple[str, ...]:
        """Names of the conv. layers in order. They are those of Keras Applications."""
        return tuple(
            f"block{i}_conv{j}"
            for i, block in enumerate(self.kernels, 1)
            for j in range(1, len(block) + 1)
        )


FC_NAMES = ("fc1", "fc2", "predictions")

_A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
_B = ((3, 3),) * 5

NETS: dict[str, Net] = {
    net.name: net
    for net in (
        Net("A", _A),
        Net("A-LRN", _A, lrn=True),
        Net("B", _B),
        Net("C", ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))),
        Net("D", ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))),
        Net("E", ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))),
        # §4.1: B with each pair of 3x3 layers replaced by one 5x5 layer.
        Net("B-shallow", ((5,),) * 5),
    )
}
"""The nets of Table 1 by name, and the shallow net of §4.1: `NETS["D"].weight_layers` is 16."""
TABLE_1 = ("A", "A-LRN", "B", "C", "D", "E")
# Names that Keras Applications and torchvision give to four of the nets.
ALIASES = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
_NAMES = {name.lower(): name for name in NETS} | ALIASES

# The layers that deeper nets take from net A (§3.1): its first four conv. layers and its three
# FC layers. The deeper nets have layers of the same names and shapes.
WARM_START_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", *FC_NAMES)


def get_net(name: str) -> Net:
    """Returns the net with the given name or alias, in upper or lower case.

    Args:
        name: a name of the paper, such as "D" or "a-lrn", or an alias, such as "vgg16".

    Raises:
        ArgumentError: no net has that name. The message lists the names and aliases.
    """
    key = str(name).lower()
    if key not in _NAMES:
        check_choice("net", name, (*NETS, *ALIASES))
    return NETS[_NAMES[key]]


@dataclass(frozen=True)
class Layer:
    """One weight layer of a net with a given crop size, width and number of classes.

    Attributes:
        name: name of the layer in Keras Applications.
        kernel: side of the kernel, in positions of the layer's input. That of `fc1` is
            crop_size / 32.
        inputs, outputs: number of input and output channels.
        positions: number of output positions per side on a crop.
        receptive_field: side of the image region that one output depends on, in pixels (§2.3).
    """

    name: str
    kernel: int
    inputs: int
    outputs: int
    positions: int
    receptive_field: int

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.kernel**2 * self.inputs * self.outputs + self.outputs

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds on one crop."""
        return self.kernel**2 * self.inputs * self.outputs * self.positions**2


def scaled(channels: int, width: float) -> int:
    """Number of channels at relative width `width`, rounded and at least 1."""
    return max(1, round(channels * width))


def check_geometry(crop_size: int, width: float, num_classes: int) -> None:
    """Raises ArgumentError if no net can be built with these values."""
    if crop_size < STRIDE or crop_size % STRIDE:
        raise ArgumentError(
            "crop_size must be a positive multiple of 32 (five poolings of stride 2). "
            f"Received: crop_size={crop_size}",
            "crop_size",
        )
    if not 0 < width < float("inf"):
        raise ArgumentError(f"width must be above 0 and finite. Received: width={width}", "width")
    check_at_least("num_classes", num_classes, 1)


def num_outputs(num_classes: int, regression: str | None = None) -> int:
    """Number of units of the last layer.

    A net that classifies has one unit per class. A localisation net has 4 units per box, and one
    box per class or one box for all classes.

    Args:
        num_classes: number of classes.
        regression: None for a net that classifies, "per-class" or "single-class" (§A.1).
    """
    if regression is None:
        return num_classes
    return 4 * num_classes if regression == "per-class" else 4


def weight_layers(
    net: Net, num_classes: int = 1000, crop_size: int = 224, width: float = 1.0
) -> list[Layer]:
    """Returns the conv. and FC layers of `net` in order.

    Raises:
        ArgumentError: crop_size is not a multiple of 32, or width or num_classes is not positive.
    """
    check_geometry(crop_size, width, num_classes)
    layers = []
    inputs, field, step, side = 3, 1, 1, crop_size
    for i, block in enumerate(net.kernels, 1):
        for j, kernel in enumerate(block, 1):
            outputs = scaled(CHANNELS[i - 1], width)
            field += (kernel - 1) * step
            layers.append(Layer(f"block{i}_conv{j}", kernel, inputs, outputs, side, field))
            inputs = outputs
        field += step  # 2x2 pooling
        step, side = step * 2, side // 2
    kernel = side
    hidden = scaled(HIDDEN_UNITS, width)
    for name, outputs in zip(FC_NAMES, (hidden, hidden, num_classes), strict=True):
        field += (kernel - 1) * step
        layers.append(Layer(name, kernel, inputs, outputs, 1, field))
        inputs, kernel = outputs, 1
    return layers


def configuration_rows(
    nets: Sequence[Net], num_classes: int = 1000, crop_size: int = 224, width: float = 1.0
) -> list[tuple[str, ...]]:
    """Returns the rows of Table 1, from the number of weight layers to the soft-max.

    Returns:
        For each row one cell per net, or a single cell that all nets share. The cell of a block
        has one line per layer, conv<kernel side>-<channels>.
    """
    layers = [weight_layers(net, num_classes, crop_size, width) for net in nets]
    rows: list[tuple[str, ...]] = [
        tuple(f"{net.weight_layers} weight layers" for net in nets),
        (f"input ({crop_size} x {crop_size} RGB image)",),
    ]
    for block in range(1, len(CHANNELS) + 1):
        cells = (_block_cell(net, own, block) for net, own in zip(nets, layers, strict=True))
        rows += [tuple(cells), ("maxpool",)]
    return [*rows, *((f"FC-{fc.outputs}",) for fc in layers[0][-3:]), ("soft-max",)]


def _block_cell(net: Net, layers: Sequence[Layer], block: int) -> str:
    convs = (layer for layer in layers if layer.name.startswith(f"block{block}_"))
    lines = [f"conv{layer.kernel}-{layer.outputs}" for layer in convs]
    if net.lrn and block == 1:
        lines.insert(1, "LRN")
    return "\n".join(lines)
