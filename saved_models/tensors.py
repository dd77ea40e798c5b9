"""Inputs and outputs of a signature as NumPy arrays, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Tensors = Mapping[str, np.ndarray]  # by name; strings are bytes in arrays of objects


def image_inputs(pictures: Sequence[bytes], name: str = "image_bytes") -> Tensors:
    """Encoded pictures as the inputs of a signature that takes a batch of them."""
    batch = np.empty(len(pictures), object)  # np.array would cut off zeros at the end of bytes
    batch[:] = pictures
    return {name: batch}
