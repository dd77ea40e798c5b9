"""The VGG paper (Simonyan & Zisserman, 2015) as TensorFlow/Keras software."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgg_keras import weights
    from vgg_keras.evaluation.evaluate import evaluate
    from vgg_keras.evaluation.predict import predict
    from vgg_keras.evaluation.predictions import Predictions, fuse
    from vgg_keras.models import fully_convolutional, vgg
    from vgg_keras.recipes import RECIPES, Recipe
    from vgg_keras.runs import load_run, load_weights_file
    from vgg_keras.serving import export
    from vgg_keras.training import train
    from vgg_keras.verification import verify

from vgg_keras.version import __version__

# Where each public name lives. They are loaded on first use, so that the command line answers
# before TensorFlow is imported.
_PUBLIC = {
    "vgg": "vgg_keras.models",
    "fully_convolutional": "vgg_keras.models",
    "RECIPES": "vgg_keras.recipes",
    "Recipe": "vgg_keras.recipes",
    "load_run": "vgg_keras.runs",
    "load_weights_file": "vgg_keras.runs",
    "predict": "vgg_keras.evaluation.predict",
    "export": "vgg_keras.serving",
    "verify": "vgg_keras.verification",
    "evaluate": "vgg_keras.evaluation.evaluate",
    "fuse": "vgg_keras.evaluation.predictions",
    "Predictions": "vgg_keras.evaluation.predictions",
    "train": "vgg_keras.training",
}
__all__ = [
    "RECIPES",
    "Predictions",
    "Recipe",
    "__version__",
    "evaluate",
    "export",
    "fully_convolutional",
    "fuse",
    "load_run",
    "load_weights_file",
    "predict",
    "train",
    "verify",
    "vgg",
    "weights",
]


def __getattr__(name: str):
    if name == "weights":
        return importlib.import_module("vgg_keras.weights")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vgg_keras' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
