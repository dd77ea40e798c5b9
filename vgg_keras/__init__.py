"""The VGG paper (Simonyan & Zisserman, 2015) as TensorFlow/Keras software.

    from vgg_keras import TrainedNet, evaluate, vgg

`dir(vgg_keras)` lists the public names. They are loaded on first use, so that `import vgg_keras`
imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from vgg_keras.registration import register_layers
from vgg_keras.version import __version__

if TYPE_CHECKING:
    from vgg_keras import callbacks, errors, features, pipelines, saved_models, weights
    from vgg_keras.architecture import Architecture
    from vgg_keras.evaluation.evaluate import evaluate
    from vgg_keras.evaluation.posteriors import make_scorer
    from vgg_keras.evaluation.predict import Predicted, predict
    from vgg_keras.evaluation.predictions import Predictions, fuse
    from vgg_keras.evaluation.procedure import Procedure
    from vgg_keras.models import fully_convolutional, vgg
    from vgg_keras.nets import NETS
    from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES, LocalisationRecipe, Recipe
    from vgg_keras.trained import TrainedNet
    from vgg_keras.training import train

_PUBLIC = {
    "architecture": ["Architecture"],
    "evaluation.evaluate": ["evaluate"],
    "evaluation.posteriors": ["make_scorer"],
    "evaluation.predict": ["Predicted", "predict"],
    "evaluation.predictions": ["Predictions", "fuse"],
    "evaluation.procedure": ["Procedure"],
    "models": ["fully_convolutional", "vgg"],
    "nets": ["NETS"],
    "recipes": ["LOCALISATION_RECIPES", "RECIPES", "LocalisationRecipe", "Recipe"],
    "trained": ["TrainedNet"],
    "training": ["train"],
}
_SUBPACKAGES = ["callbacks", "errors", "features", "pipelines", "saved_models", "weights"]

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, _SUBPACKAGES, _PUBLIC)
__all__ = [*__all__, "__version__"]


register_layers()
