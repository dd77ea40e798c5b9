"""The weights that a training starts from (§3.1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from vgg_keras import runs
from vgg_keras.callbacks import WarmStart
from vgg_keras.callbacks.errors import WarmStartError
from vgg_keras.callbacks.warm_start import read_layers
from vgg_keras.errors import ArgumentError
from vgg_keras.nets import CHANNELS, FC_NAMES, STRIDE, get_net
from vgg_keras.recipes import Recipe
from vgg_keras.run_files import LAST_WEIGHTS
from vgg_keras.tasks import Task
from vgg_keras.weights import read

log = logging.getLogger(__name__)


def make_warm_start(recipe: Recipe, model: keras.Model, out: Path, task: Task) -> list[WarmStart]:
    """Makes the callback that copies the weights of `init_from`; none if there are none to copy.

    A run that has weights already continues from these.

    Raises:
        WarmStartError, WeightsError, SourceError: the layers do not fit, or cannot be read.
        ArgumentError: layers would be frozen with random weights, or `preprocessing` is given
            for a run or without `init_from`.
    """
    if not recipe.init_from:
        _check_scratch(recipe)
    if runs.is_run_of(out, recipe) and (out / LAST_WEIGHTS).exists():
        return []
    if not recipe.init_from:
        _check_frozen(recipe, model, ())
        return []
    source = recipe.init_from
    is_folder = Path(source).is_dir()
    if is_folder and recipe.preprocessing:
        raise ArgumentError(
            f"preprocessing goes with a weights file; a run or saved net has its own. "
            f"Received: preprocessing={recipe.preprocessing!r} for {source}",
            "preprocessing",
        )
    layers = task.start_layers(recipe, model)
    matching = recipe.init_layers == "matching"
    warm_start = WarmStart(
        source
        if is_folder
        else read(source, partial=matching, preprocessing=recipe.preprocessing or None).layers,
        layers,
        matching=matching,
        name=source,
    )
    try:
        taken = warm_start.check(model)
    except WarmStartError as error:
        raise WarmStartError(f"{error} {_fitting(recipe, warm_start)}".rstrip()) from error
    _check_frozen(recipe, model, taken)
    _warn_of_random_head(recipe, (set(FC_NAMES) & set(layers or FC_NAMES)) - set(taken), taken)
    return [warm_start]


def _fitting(recipe: Recipe, warm_start: WarmStart) -> str:
    """With which settings the weights would fit, by the shapes of their layers; "" if unknown."""
    source = warm_start.source
    given: Mapping[str, Sequence[np.ndarray]]
    given = source if isinstance(source, Mapping) else read_layers(source)
    if not {"block1_conv1", "block5_conv1", FC_NAMES[0], FC_NAMES[-1]} <= given.keys():
        return ""
    width = given["block1_conv1"][0].shape[-1] / CHANNELS[0]
    inputs = given[FC_NAMES[0]][0].shape[-2] / given["block5_conv1"][0].shape[-1]
    found = {"width": width, "crop_size": STRIDE * round(math.sqrt(inputs))}
    other = [f"{k}={v:g}" for k, v in found.items() if v != getattr(recipe, k)]
    if not other:
        return (
            f'init_layers="matching" takes the layers of the same shape; the weights are of '
            f"{given[FC_NAMES[-1]][0].shape[-1]} classes."
        )
    return (
        f"The weights are of a net with {' and '.join(other)}: give the same, or "
        f'init_layers="matching", which takes the layers of the same shape.'
    )


def _check_frozen(recipe: Recipe, model: keras.Model, taken: Collection[str]) -> None:
    """Raises ArgumentError if the first stage freezes layers that `init_from` does not give."""
    first = recipe.stages[0].recipe
    own = [layer.name for layer in model.layers if layer.weights]
    if random := [name for name in own if name not in taken and not first.trains(name)]:
        setting = f"trainable={recipe.trainable}"
        if recipe.fc_epochs:
            setting += f" with fc_epochs={recipe.fc_epochs}"
        raise ArgumentError(
            f"init_from must give all layers that are frozen, because random ones are of no use. "
            f"{setting} freezes {', '.join(random)}. Received: init_from={recipe.init_from!r} with "
            f"init_layers={recipe.init_layers}",
            "init_from",
        )


def _warn_of_random_head(recipe: Recipe, random: Collection[str], taken: Collection[str]) -> None:
    """Warns if random FC layers stand on pretrained conv. layers that are not frozen."""
    first = recipe.stages[0].recipe
    trained = [name for name in taken if name not in FC_NAMES and first.trains(name)]
    if random and trained:
        log.warning(
            "%s: random weights, on pretrained layers that are trained from the first step on. The "
            "errors of the random layers can destroy them. fc_epochs=1 trains the FC layers "
            "first; trainable=fc trains nothing else",
            ", ".join(name for name in FC_NAMES if name in random),
        )


def _check_scratch(recipe: Recipe) -> None:
    """Warns where the paper does not begin with random weights (§3.1)."""
    if recipe.init_layers != "warm-start":
        log.warning(
            "init_layers=%s has no effect without init_from: the net starts from scratch",
            recipe.init_layers,
        )
    if recipe.preprocessing:
        raise ArgumentError(
            f"preprocessing goes with init_from, whose net it describes. Received: "
            f"preprocessing={recipe.preprocessing!r} without init_from",
            "preprocessing",
        )
    if len(get_net(recipe.net).conv_names) > 8 and recipe.initialisation == "gaussian":
        log.warning(
            "net %s is not expected to learn from the paper's Gaussian (§3.1): start it from net A "
            "with init_from, or use initialisation=glorot",
            recipe.net,
        )
