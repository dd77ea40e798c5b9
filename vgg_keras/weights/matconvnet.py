"""`.mat` files of MatConvNet: SimpleNN and DagNN nets, as variables of a file or as a struct `net`.

All filters have the shape `(H, W, channels, outputs)`, also those of FC layers. The first layer
takes RGB, and `averageImage` is the mean to subtract.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.matlab import open_variables
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing
from vgg_keras.weights.stored import Stored, StoredTensor, WeightsMetadata, by_name

_PARTS = ("filters", "biases")


@contextlib.contextmanager
def open_mat(path: Path) -> Iterator[Stored]:
    """Opens a `.mat` file. The names of the tensors are `LAYER/filters` and `LAYER/biases`."""
    with open_variables(path, ("net", "layers", "params", "normalization", "meta")) as variables:
        net = variables.get("net", variables)
        if not isinstance(net, dict) or not isinstance(net.get("layers"), (list, dict)):
            raise WeightsError(f"{path} is not a net of MatConvNet: it has no `layers`.")
        layers = _structs(net["layers"])
        tensors = _dag_tensors(layers, net["params"]) if "params" in net else _tensors(layers)
        yield Stored(by_name(tensors), WeightsMetadata(Preprocessing(_mean(net))))


def _structs(value: Any) -> list[dict[str, Any]]:
    """The structs of an array, of which an array of one is a dictionary."""
    values = value if isinstance(value, list) else [value]
    return [struct for struct in values if isinstance(struct, dict)]


def _tensors(layers: list[dict[str, Any]]) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, field and contents of each tensor.

    The weights of a layer are one field with all of them, or in older files a field for each.
    """
    for number, layer in enumerate(layers, 1):
        fields = {part: (part, layer.get(part)) for part in _PARTS}
        weights = layer.get("weights")
        for i, tensor in enumerate(weights if isinstance(weights, list) else [weights]):
            fields[f"weights{{{i + 1}}}"] = (_PARTS[i] if i < len(_PARTS) else str(i), tensor)
        for field, (part, tensor) in fields.items():
            if isinstance(tensor, StoredTensor) and 0 not in tensor.shape:
                yield f"{layer.get('name')}/{part}", f"layers{{{number}}}.{field}", tensor


def _dag_tensors(
    layers: list[dict[str, Any]], params: Any
) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, parameter and contents of each tensor of a DagNN.

    Layers list the names of their parameters. Otherwise they are those of `DagNN.fromSimpleNN`.
    """
    names = {
        param: f"{layer.get('name')}/{part}"
        for layer in layers
        for part, param in zip(
            _PARTS,
            layer.get("params") or [f"{layer.get('name')}{letter}" for letter in "fb"],
            strict=False,
        )
    }
    for number, param in enumerate(_structs(params), 1):
        name, tensor = param.get("name"), param.get("value")
        if isinstance(tensor, StoredTensor):
            yield names.get(name, str(name)), f"params({number})", tensor


def _mean(variables: dict[str, Any]) -> tuple[float, float, float]:
    """Mean of red, green and blue, which is a vector, or in older files an image."""
    meta = variables.get("meta", variables)
    average = meta.get("normalization", {}).get("averageImage")
    if not isinstance(average, StoredTensor) or 0 in average.shape:
        return PREPROCESSINGS["rgb"].mean
    size = math.prod(average.shape)
    if size != 3 and (average.shape[-1:] != (3,) or size > 2**22):
        raise WeightsError(f"averageImage must have three channels; its shape is {average.shape}")
    colours = average.read().reshape(-1, 3, order="F").astype(np.float64)
    if np.ptp(colours, axis=0).max() > 1e-3:
        raise WeightsError("averageImage must have the same colour in all pixels")
    red, green, blue = colours.mean(0)
    return float(red), float(green), float(blue)
