"""Training of localisation nets (§A.1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from vgg_keras.localisation.losses import EuclideanBoxLoss, box_accuracy
from vgg_keras.nets import FC_NAMES
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.recipes import LocalisationRecipe
from vgg_keras.tasks import Task, compile_with
from vgg_keras.training import train


def train_localisation(recipe: LocalisationRecipe, out: str | os.PathLike, **options: Any) -> Path:
    """Trains a localisation net, or continues its training, in the folder `out`.

    The net is that of the recipe with one box, or one box for each class, as output instead of
    class scores. It starts from a classification run of the same scale: all layers except the
    last are copied. The training target for a crop is the box of an object of the image. Crops
    that do not contain the centre of that box have weight 0 in the loss.

    Args:
        recipe: what to train; its `init_from` is the classification run.
        out, options: see `vgg_keras.train`.

    Returns:
        The run folder, which `TrainedNet.load` takes.

    Raises:
        SourceError: a box is missing or unusable, and the recipe's `on_bad_image` is "stop".
        RunError, BadImageError, ArgumentError, MissingPackageError: see `vgg_keras.train`.

    Example:
        recipe = LocalisationRecipe(net="D", data="cls-loc:ilsvrc", init_from="runs/d")
        net = TrainedNet.load(train_localisation(recipe, "runs/d-boxes"))
    """
    return train(recipe, out, task=LOCALISATION, **options)


def _compile(model: keras.Model, recipe: LocalisationRecipe) -> None:
    compile_with(
        model,
        recipe,
        EuclideanBoxLoss(),
        [keras.metrics.MeanMetricWrapper(box_accuracy, name="box_accuracy")],
    )


def _with_boxes(
    source: Source, split: Split, recipe: LocalisationRecipe
) -> tuple[Split, dict[str, Any]]:
    skip = recipe.on_bad_image == "skip"
    boxed = boxed_split(source, split, recipe.boxes or None, skip_bad=skip)
    return boxed.split, {"boxes": boxed.boxes}


def _all_but_the_last(recipe: LocalisationRecipe, model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.weights and layer.name != FC_NAMES[-1]]


LOCALISATION = Task(_compile, _with_boxes, _all_but_the_last, "val_box_accuracy")
