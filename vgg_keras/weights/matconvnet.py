"""`.mat` files that `import-caffe.py` and `vl_simplenn_tidy` of MatConvNet write.

All filters have the shape `(H, W, channels, outputs)`, also those of FC layers. The first layer
takes RGB, and `averageImage` is the mean to subtract.
"""

from __future__ import annotations

import contextlib
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
    with open_variables(path, ("layers", "normalization", "meta")) as variables:
        layers = variables.get("layers")
        if not isinstance(layers, list):
            raise WeightsError(f"{path} is not a net of MatConvNet: it has no `layers`.")
        tensors = by_name(_tensors(layers))
        yield Stored(tensors, WeightsMetadata(Preprocessing(_mean(variables))))


def _tensors(layers: list[Any]) -> Iterator[tuple[str, str, StoredTensor]]:
    """Name, field and contents of each tensor.

    The weights of a layer are one field with all of them, or in older files a field for each.
    """
    for number, layer in enumerate(layers, 1):
        if not isinstance(layer, dict):
            continue
        fields = {part: (part, layer.get(part)) for part in _PARTS}
        weights = layer.get("weights")
        for i, tensor in enumerate(weights if isinstance(weights, list) else [weights]):
            fields[f"weights{{{i + 1}}}"] = (_PARTS[i] if i < len(_PARTS) else str(i), tensor)
        for field, (part, tensor) in fields.items():
            if isinstance(tensor, StoredTensor) and 0 not in tensor.shape:
                yield f"{layer.get('name')}/{part}", f"layers{{{number}}}.{field}", tensor


def _mean(variables: dict[str, Any]) -> tuple[float, float, float]:
    """Mean of red, green and blue. Older files store it as an image."""
    meta = variables.get("meta", variables)
    average = meta.get("normalization", {}).get("averageImage")
    if average is None:
        return PREPROCESSINGS["rgb"].mean
    if average.shape[-1:] != (3,) or np.prod(average.shape, dtype=object) > 2**22:
        raise WeightsError(f"averageImage must have three channels; its shape is {average.shape}")
    colours = average.read().reshape(-1, 3, order="F").astype(np.float64)
    if np.ptp(colours, axis=0).max() > 1e-3:
        raise WeightsError("averageImage must have the same colour in all pixels")
    red, green, blue = colours.mean(0)
    return float(red), float(green), float(blue)
