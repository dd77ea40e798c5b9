"""Keras, with an error that names the setting if the package of its backend is missing.

A `keras.json` that another project wrote can name a backend that is not installed here.
"""

from __future__ import annotations

from vgg_keras.errors import MissingPackageError

try:
    import keras
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "Keras cannot import its backend. Set the environment variable KERAS_BACKEND, or "
        f'"backend" in keras.json, to "tensorflow" or "jax". Received: {error}'
    ) from error

__all__ = ["keras"]
