"""Starting a model from layers of another."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

log = logging.getLogger(__name__)

BEST_WEIGHTS = "best.weights.h5"


Layers = Mapping[str, Sequence[np.ndarray]]  # weights by layer name


def read_layers(source: keras.Model | str | os.PathLike) -> Layers:
    """Weights by layer name, of a model, a Keras `.weights.h5` file, or a run's best weights.

    Args:
        source: a model, the file, or a folder that holds `best.weights.h5`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no Keras weights file.
    """
    if isinstance(source, keras.Model):
        return {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    path = Path(source)
    if path.is_dir():
        path = path / BEST_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights to start from: {path} does not exist.")
    try:
        with h5py.File(path) as file:
            groups = [group["vars"] for group in file["layers"].values()]
            return {
                str(group.attrs["name"]): [group[str(i)][()] for i in range(len(group))]
                for group in groups
                if len(group)
            }
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} is no Keras .weights.h5 file: {error}") from error


class WarmStart(keras.callbacks.Callback):
    """Copies named layers into the model before its first step (§3.1).

    All or nothing: where a layer is missing or of another shape, nothing is copied. A model
    that has already been trained (by its optimizer's iterations) is left alone, so a run that
    goes on is not set back.

    Args:
        source: a model, a `.weights.h5` file, a run folder, whose best weights are taken, or the
            weights themselves by layer.
        layers: names; None for all layers that have weights.
        matching: leave out, and name, layers that are missing or of another shape.
        name: of the source, for messages.

    Raises, when training begins:
        ValueError: a layer is missing on either side, or its shapes differ.
        FileNotFoundError: `source` is not there.
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
        self.name = name or ("given weights" if isinstance(source, Mapping) else str(source))

    def on_train_begin(self, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == 0:
            self.apply(self.model)

    def apply(self, model: keras.Model) -> list[str]:
        """Copies now; returns the names of the layers copied."""
        given = self.check(model)
        mine = [layer.name for layer in model.layers if layer.weights]
        for name in self.layers or mine:
            if name not in given:
                log.info("not taken from %s, or not there: %s", self.name, name)
        for name, weights in given.items():
            model.get_layer(name).set_weights(weights)
        log.info("started from %s: %s", self.name, ", ".join(given))
        return list(given)

    def check(self, model: keras.Model) -> Layers:
        """What would be copied, by layer; raises as training would."""
        given = self.source if isinstance(self.source, Mapping) else read_layers(self.source)
        mine = {layer.name: layer for layer in model.layers if layer.weights}
        names = list(mine) if self.layers is None else list(self.layers)
        problems = {name: p for name in names if (p := _problem(name, given, mine))}
        if problems and (not self.matching or len(problems) == len(names)):
            raise ValueError(
                f"Cannot start {model.name} from {self.name}: {'; '.join(problems.values())}."
            )
        return {name: given[name] for name in names if name not in problems}


def _problem(name: str, given: Layers, mine: dict) -> str | None:
    if name not in given:
        return f"{name} is not there (its layers: {', '.join(given)})"
    if name not in mine:
        return f"the model has no {name}"
    theirs = [tuple(w.shape) for w in given[name]]
    ours = [tuple(w.shape) for w in mine[name].weights]
    return None if theirs == ours else f"{name} has shapes {theirs}, the model's are {ours}"
