"""What the configuration in a Keras file says of its net. It is read as data; no model is built."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgg_keras.weights.preprocessing import Preprocessing

# Layers that leave the colours of an image as they are when a net is used.
_NEUTRAL = r"InputLayer|Random\w+|Resizing|CenterCrop|ZeroPadding2D|Dropout|GaussianNoise|Identity"
_CONV = ("Conv2D", "Convolution2D")  # the second is Keras 1's
_Colours = tuple[np.ndarray, np.ndarray]  # two values for each of red, green and blue


@dataclass(frozen=True)
class ConfiguredLayer:
    """A layer in a configuration.

    Attributes:
        path: path of its group in a weights file of Keras 3, such as "layers/conv2d_1".
        kind: name of its class; of one that is not Keras's, after its package: "mine>Rescaling".
        config: its arguments.
        is_model: whether it is a model, whose layers follow.
    """

    path: str
    kind: str
    config: Mapping[str, Any]
    is_model: bool

    @property
    def name(self) -> str:
        return str(self.config.get("name"))


class KerasConfig:
    """The layers of a model and of the models nested in it, in order.

    Args:
        text: configuration of a model as JSON; "{}" if there is none.
    """

    def __init__(self, text: str) -> None:
        model = json.loads(text)
        config = _arguments(model)
        self.name: str | None = config.get("name")
        self.layers = tuple(_layers(config, "layers"))
        self.converter = _converter(model)

    @property
    def model_names(self) -> set[str | None]:
        """Names of the model and of the models nested in it."""
        return {self.name, *(layer.name for layer in self.layers if layer.is_model)}

    def layer_names(self) -> dict[str, str]:
        """Names of the layers by the paths of their groups."""
        return {layer.path: layer.name for layer in self.layers}

    @property
    def channels_first(self) -> bool | None:
        """Whether the conv. layers have their channels first; None if they do not say so."""
        for layer in self.layers:
            if layer.kind in _CONV:
                order = layer.config.get("data_format", layer.config.get("dim_ordering"))
                return None if order is None else order in ("channels_first", "th")
        return None

    @property
    def flattens_channels_first(self) -> bool:
        """Whether the input of the first FC layer is in the order C, H, W.

        Since Keras 2.2 `Flatten` brings the channels to the end.
        """
        flattens = [layer.config for layer in self.layers if layer.kind == "Flatten"]
        return bool(self.channels_first) and not any(
            config.get("data_format") == "channels_first" for config in flattens
        )

    def in_front(self) -> list[ConfiguredLayer]:
        """The layers before the first conv. layer that change the values of an image."""
        before_conv = itertools.takewhile(lambda layer: layer.kind not in _CONV, self.layers)
        layers = [
            layer
            for layer in before_conv
            if not layer.is_model and not re.fullmatch(_NEUTRAL, layer.kind)
        ]
        return layers if self.converter is None else [self.converter, *layers]


def fold(front: Sequence[ConfiguredLayer], adapted: Mapping[str, _Colours]) -> Preprocessing | None:
    """Returns the preprocessing that layers in front of a net are, for RGB in 0..255.

    Args:
        front: layers in order.
        adapted: mean and variance that a `Normalization` layer computed, by its name.

    Returns:
        None if a layer is of another kind than `Rescaling` and `Normalization`, or if the values
        are not for images in 0..255.
    """
    scale, offset = np.ones(3), np.zeros(3)
    for layer in front:
        if layer.kind == "Normalization":
            factor, term = _normalization(layer, adapted)
        elif layer.kind in ("Rescaling", "VGGImageConverter"):
            factor = _colours(layer.config.get("scale"))
            term = _colours(layer.config.get("offset", 0))
        else:
            return None
        scale, offset = scale * factor, offset * factor + term
    # No net takes values above those of the image. If it seems to, the images are in 0..1.
    extremes = np.abs([offset, 255 * scale + offset])
    if not np.isfinite(extremes).all() or scale.min() <= 0 or extremes.max() > 256:
        return None
    red, green, blue = 0 - offset / scale
    return Preprocessing((red, green, blue), tuple(1 / scale))


def _normalization(layer: ConfiguredLayer, adapted: Mapping[str, _Colours]) -> _Colours:
    """Factor and term of (x - mean) / sd; NaN if they are not known."""
    stated = layer.config.get("mean"), layer.config.get("variance")
    if any(value is None for value in stated):
        stated = adapted.get(layer.name, (None, None))
    mean, variance = (None, None) if layer.config.get("invert") else stated
    sd = np.maximum(np.sqrt(np.abs(_colours(variance))), 1e-7)  # as Keras does
    return 1 / sd, -_colours(mean) / sd


def _colours(values: Any) -> np.ndarray:
    """One number, or one for each of red, green and blue, as three numbers; else NaN."""
    try:
        array = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.full(3, np.nan)
    return np.broadcast_to(array if array.size in (1, 3) else np.nan, 3)


def _arguments(layer: Any) -> dict[str, Any]:
    config = layer.get("config") if isinstance(layer, dict) else None
    if isinstance(config, list):  # a Sequential of Keras 1
        config = {"layers": config}
    return config if isinstance(config, dict) else {}


def _kind(layer: Any) -> str:
    """Name of the class, after the package of a class of somebody's own: "mine>Rescaling".

    Keras 3 has the package beside the name, as the module of the class.
    """
    if not isinstance(layer, dict):
        return ""
    name, module = str(layer.get("class_name")), layer.get("module")
    is_of_keras = module is None or re.match(r"(tf_)?keras(\.|$)", str(module))
    return name if is_of_keras else f"{module}>{name}"


def _layers(config: Mapping[str, Any], path: str) -> Iterator[ConfiguredLayer]:
    seen: Counter[str] = Counter()
    for layer in config.get("layers") or ():
        kind, inner = _kind(layer), _arguments(layer)
        group = f"{path}/{numbered(snake_case(kind.rpartition('>')[2]), seen)}"
        is_model = "layers" in inner
        yield ConfiguredLayer(group, kind, inner, is_model)
        if is_model:
            yield from _layers(inner, f"{group}/layers")


def _converter(model: Any) -> ConfiguredLayer | None:
    """Keras Hub's layer that prepares images, which a task has beside its layers."""
    found = _arguments(model)
    for key in ("preprocessor", "image_converter"):
        found = _arguments(found[key]) if key in found else found
    return (
        ConfiguredLayer("", "VGGImageConverter", found, False)
        if {"scale", "offset"} <= set(found)
        else None
    )


def snake_case(name: str) -> str:
    """The name that Keras gives to a class in a file, such as "max_pooling2d"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


def numbered(kind: str, seen: Counter[str]) -> str:
    """The name that Keras gives to a layer in a file: the first "conv2d", the next "conv2d_1"."""
    seen[kind] += 1
    return kind if seen[kind] == 1 else f"{kind}_{seen[kind] - 1}"
