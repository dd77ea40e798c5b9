"""What a net computes, apart from its weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from vgg_keras.errors import ArgumentError
from vgg_keras.layers import SlidingDense
from vgg_keras.models import vgg
from vgg_keras.nets import (
    FC_NAMES,
    LRN_PRESETS,
    NETS,
    POOL_ROUNDINGS,
    STRIDE,
    LRNConstants,
    check_geometry,
    get_net,
)
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.weights.identification import geometry

SCORES, POSTERIORS = "scores", "posteriors"  # layers after the last one with weights


@dataclass(frozen=True)
class Architecture:
    """The arguments of `vgg` that determine what a net computes, apart from its weights.

    Attributes:
        net: configuration of Table 1, such as "D".
        num_classes: units of the last layer. A localisation net has 4 for each box.
        crop_size: side of a training crop in pixels.
        width: factor on the channels of all hidden layers.
        lrn: constants of net A-LRN.
        pool_rounding: how pooling rounds an odd side, "down" or "up".

    Raises:
        ArgumentError: there is no such net, or it cannot be built with these values.

    Example:
        Architecture("D", num_classes=10, crop_size=64, width=0.25).build().summary()
    """

    net: str
    num_classes: int = 1000
    crop_size: int = 224
    width: float = 1.0
    lrn: str = "krizhevsky"
    pool_rounding: str = "down"

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", get_net(self.net).name)
        check_geometry(self.crop_size, self.width, self.num_classes)
        check_choice("lrn", self.lrn, LRN_PRESETS)
        check_choice("pool_rounding", self.pool_rounding, POOL_ROUNDINGS)

    def build(self, *, precision: str | None = None, **options: Any) -> keras.Model:
        """Builds a new model.

        Args:
            precision: Keras dtype policy; by default the global policy.
            options: further arguments of `vgg`, such as `classifier_activation`.
        """
        with _dtype_policy(precision):
            return vgg(**dataclasses.asdict(self), **options)

    @classmethod
    def of_model(cls, model: keras.Model) -> Architecture:
        """Reads the architecture from the layers of a model that `vgg` made.

        Raises:
            ArgumentError: the model was not made by `vgg`; the message names the layers that are
                missing or unexpected.
        """
        layers = {layer.name: layer for layer in model.layers}
        name = _net_of(model, layers)
        sizes = {
            (layer, part): math.prod(variable.shape)
            for layer in (*NETS[name].conv_names, *FC_NAMES)
            for part, variable in zip(("kernel", "bias"), layers[layer].weights, strict=True)
        }
        num_classes, _, width = geometry(NETS[name], sizes)
        roundings = {padding: rounding for rounding, padding in POOL_ROUNDINGS.items()}
        return cls(
            name,
            num_classes,
            STRIDE * layers["fc1"].window,
            width,
            _lrn_preset(layers["block1_lrn"].constants) if NETS[name].lrn else "krizhevsky",
            roundings[layers["block1_pool"].padding],
        )


def _net_of(model: keras.Model, layers: Mapping[str, Any]) -> str:
    """Name of the net whose layers a model has."""
    convolutions = {
        name: int(layer.kernel_size[0])
        for name, layer in layers.items()
        if isinstance(layer, keras.layers.Conv2D)
    }
    same = [
        net
        for net in NETS.values()
        if convolutions
        == dict(zip(net.conv_names, (k for block in net.kernels for k in block), strict=True))
        and net.lrn == ("block1_lrn" in layers)
    ]
    expected = {*FC_NAMES, "dropout1", "dropout2", SCORES, *(f"block{i}_pool" for i in range(1, 6))}
    missing = sorted(expected - set(layers))
    dense = [layers[name] for name in FC_NAMES if name in layers]
    if not same or missing or not all(isinstance(layer, SlidingDense) for layer in dense):
        what = (
            f"it has no layer {', '.join(missing)}"
            if missing
            else ("its layers are not those of a net of Table 1")
        )
        raise ArgumentError(
            f"A model made by vgg() is needed, also after load_model or clone_model; {what}. "
            f"Received: model {model.name!r} with layers {', '.join(layers)}",
            "model",
        )
    known = expected | set(same[0].conv_names) | {"block1_lrn", POSTERIORS}
    surplus = [
        name
        for name, layer in layers.items()
        if name not in known and not isinstance(layer, keras.layers.InputLayer)
    ]
    if surplus:
        raise ArgumentError(
            f"A model made by vgg() is needed; this one has further layers: {', '.join(surplus)}. "
            f"Received: model {model.name!r}",
            "model",
        )
    return same[0].name


def _lrn_preset(constants: LRNConstants) -> str:
    for name, preset in LRN_PRESETS.items():
        if preset == constants:
            return name
    raise ArgumentError(
        f"The LRN constants must be those of {' or '.join(LRN_PRESETS)}. Received: {constants}",
        "model",
    )


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
