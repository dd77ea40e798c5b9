"""Writes files for Keras: `.weights.h5`, `.keras`, and the older `.h5` of Keras Applications."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, NETS, STRIDE
from vgg_keras.weights.keras_config import numbered
from vgg_keras.weights.naming import PARTS
from vgg_keras.weights.stored import METADATA, WeightsMetadata

if TYPE_CHECKING:
    import keras


def write_keras_weights(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.weights.h5` file in the format of Keras 3, for `vgg(...).load_weights`."""
    kinds: Counter[str] = Counter()
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = metadata.net or ""
        for layer, arrays in _by_layer(tensors).items():
            kind = "sliding_dense" if layer in FC_NAMES else "conv2d"
            group = file.create_group(f"layers/{numbered(kind, kinds)}/vars")
            group.attrs["name"] = layer
            for i, array in enumerate(arrays):
                group[str(i)] = array
        file.attrs[METADATA] = metadata.to_json()


def write_applications_h5(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.h5` file for `keras.applications.VGG16(weights=...)`."""
    layers = _by_layer(tensors)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"3.0.0"
        file.attrs[METADATA] = metadata.to_json()
        for layer, arrays in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/{part}:0" for part in PARTS]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, array in zip(names, arrays, strict=True):
                group[name] = array


def write_keras_archive(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: WeightsMetadata
) -> None:
    """Writes a `.keras` file for `keras.models.load_model`, with layers of Keras alone.

    Its model takes RGB in 0..255, as its first layer subtracts the mean. With FC layers it takes
    crops. Only the normalisation of net A-LRN is a layer of this package.

    Raises:
        WeightsError: a layer between others is missing.
    """
    import keras

    layers = _by_layer(tensors)
    net = metadata.net or "vgg"
    mean = (0, 0, 0) if metadata.preprocessing is None else metadata.preprocessing.mean
    model = keras.Sequential(list(_layers_of_model(layers, net, mean)), name=net)
    for name, arrays in layers.items():
        model.get_layer(name).set_weights(arrays)
    model.save(path)


def _layers_of_model(
    layers: Mapping[str, Sequence[np.ndarray]], net: str, mean: Sequence[float]
) -> Iterator[keras.KerasTensor | keras.layers.Layer]:
    """The layers of a model that applies the weights, from its input to its last layer."""
    from keras import Input
    from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, Normalization

    convs = [name for name in layers if name not in FC_NAMES]
    _check_chain(layers, convs)
    channels = layers[convs[-1]][1].size
    window = math.isqrt(len(layers["fc1"][0]) // channels) if "fc1" in layers else 0
    side = STRIDE * window or None
    options = {"dtype": "float32", "data_format": "channels_last"}
    yield Input((side, side, 3), name="image")
    yield Normalization(mean=list(mean), variance=[1.0] * 3, name="minus_mean", dtype="float32")
    for name, following in zip(convs, [*convs[1:], ""], strict=True):
        kernel, _ = layers[name]
        yield Conv2D(
            kernel.shape[-1],
            kernel.shape[:2],
            padding="same",
            activation="relu",
            name=name,
            **options,
        )
        if name == "block1_conv1" and net in NETS and NETS[net].lrn:
            from vgg_keras.layers import LocalResponseNormalisation

            yield LocalResponseNormalisation(name="block1_lrn", dtype="float32")
        block = name.partition("_")[0]
        if following.partition("_")[0] != block:
            yield MaxPooling2D(2, name=f"{block}_pool", **options)
    if window:
        yield Flatten(name="flatten", **options)
    for name in (name for name in FC_NAMES if name in layers):
        is_last = name == FC_NAMES[-1]
        activation = "softmax" if is_last else "relu"
        yield Dense(layers[name][1].size, activation=activation, name=name, dtype="float32")
        if not is_last:
            yield Dropout(0.5, name=f"dropout_{name}", dtype="float32")


def _check_chain(layers: Mapping[str, Sequence[np.ndarray]], convs: Sequence[str]) -> None:
    """Raises WeightsError if the layers do not follow each other as they do in a net."""
    inputs = 3
    for name in convs:
        if layers[name][0].shape[2] != inputs:
            raise WeightsError(
                f"A .keras file must have all layers before the last one. {name} takes "
                f"{layers[name][0].shape[2]} channels. Received: {inputs}"
            )
        inputs = layers[name][1].size
    fc = [name for name in FC_NAMES if name in layers]
    if not convs or fc != list(FC_NAMES[: len(fc)]):
        raise WeightsError(
            f"A .keras file must have all layers before the last one. Received: {', '.join(layers)}"
        )


def _by_layer(tensors: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Arrays named `LAYER/kernel` and `LAYER/bias` as a list by layer, in order."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in tensors.items():
        layers.setdefault(name.split("/")[0], []).append(array)
    return layers
