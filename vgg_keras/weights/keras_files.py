"""Writes files for Keras: `.weights.h5`, and the older `.h5` of Keras Applications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from vgg_keras.nets import FC_NAMES
from vgg_keras.weights.keras_config import numbered
from vgg_keras.weights.naming import PARTS
from vgg_keras.weights.stored import METADATA, WeightsMetadata


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


def _by_layer(tensors: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Arrays named `LAYER/kernel` and `LAYER/bias` as a list by layer, in order."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in tensors.items():
        layers.setdefault(name.split("/")[0], []).append(array)
    return layers
