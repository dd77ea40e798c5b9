"""Starting a model from layers of another model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from vgg_keras.callbacks.errors import WarmStartError
from vgg_keras.callbacks.file_names import BEST_WEIGHTS
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.pipelines.contents import naming_file

log = logging.getLogger(__name__)

Layers = Mapping[str, Sequence[np.ndarray]]  # weights by layer name


def read_layers(source: keras.Model | str | os.PathLike) -> Layers:
    """Returns the weights of a model or file, by layer name.

        read_layers("runs/a")["fc1"]  # [kernel, bias]

    Args:
        source: a model, a Keras `.weights.h5` file, or a folder that holds `best.weights.h5`.

    Raises:
        WarmStartError: the file does not exist or is not a Keras weights file.
    """
    if isinstance(source, keras.Model):
        return {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    path = Path(source)
    if path.is_dir():
        path = path / BEST_WEIGHTS
    if not path.is_file():
        raise WarmStartError(f"There are no weights to start from: {path} does not exist.")
    not_keras = "is not a Keras .weights.h5 file"
    with naming_file(path, WarmStartError, not_keras), h5py.File(path) as file:
        groups = [group["vars"] for group in file["layers"].values()]
        return {
            str(group.attrs["name"]): [group[str(i)][()] for i in range(len(group))]
            for group in groups
            if len(group)
        }


class WarmStart(keras.callbacks.Callback):
    """Copies named layers into the model before its first training step (§3.1).

    If a layer is missing or has other shapes, no layer is copied. A model that was already trained
    is not changed, so that a run that continues is not reset. The `iterations` of its optimizer
    show that it was trained.

        model.fit(..., callbacks=[WarmStart("runs/a", ["block1_conv1", "fc1"])])

    Args:
        source: a model, a `.weights.h5` file, a run folder (its best weights are taken), or weights
            by layer name.
        layers: names of the layers to copy. By default all layers that have weights.
        matching: whether layers that are missing or have other shapes are skipped. The log names
            them. If no layer matches, an error is raised.
        name: name of the source in messages.

    Raises, when training begins:
        WarmStartError: `source` does not exist, a layer is missing in the source or in the model,
            its shapes differ, or it holds NaN or Inf.
    """

    def __init__(
        self,
        source: keras.Model | str | os.PathLike | Layers,
        layers: Sequence[str] | None = None,
        *,
        matching: bool = False,
        name: str | None = None,
    ):
        super().__init__()
        self.source = source
        self.layers = layers
        self.matching = matching
        if isinstance(source, keras.Model):
            name = name or source.name
        self.name = name or ("the given weights" if isinstance(source, Mapping) else str(source))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == 0:
            self.apply(self.model)

    def apply(self, model: keras.Model) -> list[str]:
        """Copies the layers now. Returns their names."""
        given = self.check(model)
        own = [layer.name for layer in model.layers if layer.weights]
        others = [name for name in self.layers or own if name not in given]
        if others:
            log.info(
                "not in %s, or of other shapes there; they start as they are: %s",
                self.name,
                ", ".join(others),
            )
        for name, weights in given.items():
            model.get_layer(name).set_weights(weights)
        log.info("started from %s: %s", self.name, ", ".join(given))
        return list(given)

    def check(self, model: keras.Model) -> Layers:
        """Returns the weights that would be copied, by layer name.

        Raises:
            WarmStartError: the same errors as in training.
        """
        given = self.source if isinstance(self.source, Mapping) else read_layers(self.source)
        own = {layer.name: layer for layer in model.layers if layer.weights}
        names = list(own) if self.layers is None else list(self.layers)
        problems = {name: p for name in names if (p := _problem(name, given, own))}
        if problems and (not self.matching or len(problems) == len(names)):
            raise WarmStartError(
                f"Cannot start {model.name} from {self.name}: {_listed(list(problems.values()))}."
            )
        fitting = {name: given[name] for name in names if name not in problems}
        damaged = [name for name, weights in fitting.items() if not all(map(is_finite, weights))]
        if damaged:
            raise WarmStartError(
                f"Cannot start {model.name} from {self.name}: {', '.join(damaged)} holds NaN or "
                f"Inf. Start from other weights."
            )
        return fitting


def _listed(problems: Sequence[str]) -> str:
    """The first problems, and the number of the others."""
    first, more = problems[:2], len(problems) - 2
    return "; ".join([*first, *[f"and so for {more} more layers"] * (more > 0)])


def _problem(name: str, given: Layers, own: Mapping[str, keras.Layer]) -> str | None:
    if name not in given:
        return f"{name} is missing in the source (its layers: {', '.join(given)})"
    if name not in own:
        return f"{name} is missing in the model"
    theirs = [tuple(w.shape) for w in given[name]]
    ours = [tuple(w.shape) for w in own[name].weights]
    return None if theirs == ours else f"{name} has shapes {theirs}, the model's are {ours}"
