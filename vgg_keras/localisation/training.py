"""Trains a net to say where the object is (§A.1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from vgg_keras.localisation.losses import EuclideanBoxLoss, box_accuracy
from vgg_keras.nets import FC_NAMES
from vgg_keras.pipelines.box_sources import boxed_split
from vgg_keras.pipelines.sources import Source, Split
from vgg_keras.recipes import LocalisationRecipe
from vgg_keras.tasks import Task, compile_with
from vgg_keras.training import train


def train_localisation(recipe: LocalisationRecipe, out: str | os.PathLike, **options: Any) -> Path:
    """Trains a localisation net, or goes on with its training.

    The net is the recipe's with a box, or a box a class, in place of its classes. It starts from
    a classification run of the same scale, all layers but the last; what is wrong with the data
    is told before. A crop that holds no object's centre counts for nothing in the loss.

    Args:
        recipe: what to train; `init_from` names the classification run.
        out, options: see `vgg_keras.train`.

    Raises:
        SourceError: a box is missing or unusable, and the recipe says to stop.
        RunError, BadImageError, ValueError: see `vgg_keras.train`.
    """
    return train(recipe, out, task=LOCALISATION, **options)


def _compile(model: keras.Model, recipe: LocalisationRecipe) -> None:
    for layer in model.layers:
        layer.trainable = recipe.tuned == "all" or layer.name in FC_NAMES
    compile_with(
        model,
        recipe,
        EuclideanBoxLoss(),
        [keras.metrics.MeanMetricWrapper(box_accuracy, name="box_accuracy")],
    )


def _with_boxes(source: Source, split: Split, recipe: LocalisationRecipe):
    skip = recipe.on_bad_image == "skip"
    boxed = boxed_split(source, split, recipe.boxes or None, skip_bad=skip)
    return boxed.split, {"boxes": boxed.boxes}


def _all_but_the_last(recipe: LocalisationRecipe, model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.weights and layer.name != FC_NAMES[-1]]


LOCALISATION = Task(_compile, _with_boxes, _all_but_the_last, "val_box_accuracy")
