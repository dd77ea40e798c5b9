"""Inputs and outputs of a signature as NumPy arrays, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Limits of the clients on the answer of a server.
TIMEOUT = 60.0  # seconds
MAX_BYTES = 2**26

Tensors = Mapping[str, np.ndarray]  # by name; strings are bytes in arrays of objects
"""Inputs or outputs by name, as `{"images": pixels}`. Strings are bytes in arrays of objects."""


def image_inputs(images: Sequence[bytes], name: str = "image_bytes") -> Tensors:
    """Returns image files as the inputs of a signature, as one batch.

        server.predict(image_inputs([Path("photo.jpg").read_bytes()]))

    Args:
        images: JPEG or PNG files.
        name: name of the input.
    """
    batch = np.empty(len(images), object)  # np.array would cut zeros off the end of bytes
    batch[:] = images
    return {name: batch}
