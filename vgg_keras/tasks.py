"""What a net can learn: the loss, the metrics, the targets and the layers to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from vgg_keras.nets import WARM_START_LAYERS
from vgg_keras.pipelines.splits import Source, Split
from vgg_keras.recipes import Recipe
from vgg_keras.weight_decay import CaffeSGD


@dataclass(frozen=True)
class Task:
    """What a net learns.

    Attributes:
        compile: compiles a model for a recipe.
        targets: from a source, one of its splits and a recipe to the images that can be used and
            the arguments of both streams that say what is learnt from them.
        start_layers: from a recipe and a model to the layers to take from `init_from`; None for
            all.
        monitor: entry of the logs that decides on the learning rate and on the best weights.
    """

    compile: Callable[[keras.Model, Any], None]
    targets: Callable[[Source, Split, Any], tuple[Split, dict[str, Any]]]
    start_layers: Callable[[Any, keras.Model], Sequence[str] | None]
    monitor: str


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Compiles a model of logits for the recipe: SGD with momentum (§3.1)."""
    metrics = [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        keras.metrics.SparseTopKCategoricalAccuracy(
            min(5, model.output_shape[-1]), name="top5_accuracy"
        ),
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
    ]
    compile_with(
        model, recipe, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics
    )


def compile_with(
    model: keras.Model,
    recipe: Recipe,
    loss: keras.losses.Loss,
    metrics: Sequence[keras.metrics.Metric],
) -> None:
    """Compiles a model for a loss and metrics: SGD with momentum (§3.1).

    Layers that the recipe does not train are frozen. Their weights do not decay, and no gradient
    is computed for them.

    The metrics are weighted, so that the filling of the last validation batch does not count.
    """
    for layer in model.layers:
        if layer.weights:
            layer.trainable = recipe.trains(layer.name)
    model.compile(
        # Without a name Keras counts, and the files of the same run would differ.
        optimizer=CaffeSGD(recipe.learning_rate, momentum=recipe.momentum, name="sgd"),
        loss=loss,
        weighted_metrics=list(metrics),
        jit_compile="auto" if _uses_xla() else False,
    )


def _uses_xla() -> bool:
    """JAX needs XLA; TensorFlow's is slower than oneDNN on CPU, and hangs with several replicas."""
    return keras.backend.backend() == "jax" or len(tf.config.list_physical_devices("GPU")) == 1


def _classification_layers(recipe: Recipe, model: keras.Model) -> Sequence[str] | None:
    return WARM_START_LAYERS if recipe.init_layers == "warm-start" else None


CLASSIFICATION = Task(
    compile_model,
    lambda source, split, recipe: (split, {}),
    _classification_layers,
    "val_accuracy",
)
