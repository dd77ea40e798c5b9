"""Table 1 of the paper as data, and what follows from it by arithmetic alone.

Nothing here imports TensorFlow: `vgg-keras describe` answers from this module.
"""

from __future__ import annotations

from dataclasses import dataclass

CHANNELS = (64, 128, 256, 512, 512)  # of the five blocks at full width, §2.2
HIDDEN_UNITS = 4096  # of the two hidden FC layers, §2.1
STRIDE = 32  # five 2x2 poolings of stride 2, §2.1


@dataclass(frozen=True)
class Net:
    """One column of Table 1.

    Attributes:
        name: the paper's name.
        kernels: for each of the five blocks, the kernel side of each of its conv. layers.
        lrn: whether local response normalisation follows the first conv. layer.
    """

    name: str
    kernels: tuple[tuple[int, ...], ...]
    lrn: bool = False

    @property
    def weight_layers(self) -> int:
        """Number of conv. and FC layers: 11 for A, 19 for E."""
        return sum(map(len, self.kernels)) + 3

    @property
    def conv_names(self) -> tuple[str, ...]:
        """Names of the conv. layers in order, as in Keras Applications."""
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
TABLE_1 = ("A", "A-LRN", "B", "C", "D", "E")

# The layers that deeper nets take from net A (§3.1): its first four conv. layers, which by
# name and by shape are these, and the three FC layers.
WARM_START_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", *FC_NAMES)


def get_net(name: str) -> Net:
    """The net of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in NETS:
        raise ValueError(
            f"There is no net of that name. Nets: {', '.join(NETS)}. Received: {name!r}"
        )
    return NETS[name]


@dataclass(frozen=True)
class Layer:
    """One weight layer of a net built for a crop size, a width and a number of classes.

    Attributes:
        name: as in Keras Applications.
        kernel: kernel side in pixels of the layer's input (for `fc1` crop_size / 32).
        inputs, outputs: channels.
        positions: outputs per side on a crop.
        receptive_field: side in image pixels seen by one output (§2.3).
    """

    name: str
    kernel: int
    inputs: int
    outputs: int
    positions: int
    receptive_field: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.kernel**2 * self.inputs * self.outputs + self.outputs

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds on one crop."""
        return self.kernel**2 * self.inputs * self.outputs * self.positions**2


def scaled(channels: int, width: float) -> int:
    """`channels` at relative width `width`: a whole number, at least 1."""
    return max(1, round(channels * width))


def check_geometry(crop_size: int, width: float, num_classes: int) -> None:
    """Raises ValueError where no net can be built with these."""
    if crop_size < STRIDE or crop_size % STRIDE:
        raise ValueError(
            "crop_size must be a positive multiple of 32 (five poolings of stride 2). "
            f"Received: crop_size={crop_size}"
        )
    if not 0 < width < float("inf"):
        raise ValueError(f"width must be above 0 and finite. Received: width={width}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more. Received: num_classes={num_classes}")


def weight_layers(
    net: Net, num_classes: int = 1000, crop_size: int = 224, width: float = 1.0
) -> list[Layer]:
    """The conv. and FC layers of `net` in order.

    Raises:
        ValueError: crop_size is no multiple of 32, or width or num_classes is not positive.
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
