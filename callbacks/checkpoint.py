"""Everything a run needs to go on where it was killed, in one file."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import keras
from vgg_keras.callbacks.warm_start import BEST_WEIGHTS
from vgg_keras.pipelines.files import atomic_path

LAST_WEIGHTS = "last.weights.h5"
_ATTRIBUTE = "training_state"


class Stateful(Protocol):
    """A callback whose state goes with the checkpoint."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class Progressed(NamedTuple):
    """How far a run had come: epochs done, and whether it had ended."""

    epochs: int
    finished: bool


class Checkpoint(keras.callbacks.Callback):
    """Saves best and last weights at the end of every epoch; put it last among the callbacks.

    `last.weights.h5` holds weights, optimizer, dropout seeds, the states of other callbacks and
    the epoch, so that no two files can disagree; `best.weights.h5` the weights alone. Each is
    written aside and moved into place.

    Keras's `BackupAndRestore` keeps neither the seeds nor the state of other callbacks.

    Args:
        folder: where to write.
        stateful: other callbacks whose state is kept, by name.
        monitor: entry of the logs that makes an epoch the best; greater is better.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        stateful: Mapping[str, Stateful] | None = None,
        monitor: str = "val_accuracy",
    ):
        super().__init__()
        self.folder = Path(folder)
        self.stateful = dict(stateful or {})
        self.monitor = monitor
        self.best: float | None = None

    def restore(self, model: keras.Model) -> Progressed:
        """Brings a compiled model and the callbacks to where the folder's last epoch left them.

        Returns:
            (0, False) where nothing was saved yet, and the model is as it was.

        Raises:
            ValueError: the file is broken or of another model.
        """
        path = self.folder / LAST_WEIGHTS
        if not path.exists():
            return Progressed(0, False)
        model.optimizer.build(model.trainable_variables)
        try:
            with h5py.File(path) as file:
                state = json.loads(file.attrs[_ATTRIBUTE])
            model.load_weights(path)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path} cannot be restored: {error}") from error
        for variable, value in zip(_seed_states(model), state["seeds"], strict=True):
            variable.assign(value)
        for name, callback in self.stateful.items():
            callback.set_state(state["callbacks"][name])
        self.best = state["best"]
        return Progressed(state["epochs"], state["finished"])

    def on_epoch_end(self, epoch, logs=None):
        value = float((logs or {})[self.monitor])
        if self.best is None or value > self.best:
            self.best = value
            with _writing(self.folder / BEST_WEIGHTS, self.model.variables) as path:
                # The same layers without the optimizer, whose state would double the file.
                keras.Model(self.model.inputs, self.model.outputs).save_weights(path)
        state = {
            "epochs": epoch + 1,
            "finished": bool(self.model.stop_training),
            "best": self.best,
            "seeds": [keras.ops.convert_to_numpy(v).tolist() for v in _seed_states(self.model)],
            "callbacks": {name: c.get_state() for name, c in self.stateful.items()},
        }
        everything = self.model.variables + self.model.optimizer.variables
        with _writing(self.folder / LAST_WEIGHTS, everything) as path:
            self.model.save_weights(path)
            with h5py.File(path, "a") as file:
                file.attrs[_ATTRIBUTE] = json.dumps(state)


def read_progress(folder: str | os.PathLike) -> Progressed:
    """How far the run in a folder has come; (0, False) where nothing was saved yet."""
    path = Path(folder) / LAST_WEIGHTS
    if not path.exists():
        return Progressed(0, False)
    with h5py.File(path) as file:
        state = json.loads(file.attrs[_ATTRIBUTE])
    return Progressed(state["epochs"], state["finished"])


@contextlib.contextmanager
def _writing(path: Path, variables: Sequence) -> Iterator[Path]:
    bytes_needed = sum(4 * math.prod(v.shape) for v in variables) + 2**18
    try:
        with atomic_path(path, bytes_needed) as temporary, _undistributed():
            yield temporary
    except (OSError, RuntimeError) as error:  # HDF5 raises the latter on a full disk
        raise OSError(
            f"{path} could not be written, what was saved before is whole: {error}"
        ) from error


@contextlib.contextmanager
def _undistributed() -> Iterator[None]:
    """Keras makes a variable or two while it saves. Made for several processes, they would wait
    for those that do not save."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _seed_states(model: keras.Model) -> list:
    """States of the random layers, which Keras 3.15 leaves out of a weights file."""
    return [
        layer.seed_generator.state for layer in model.layers if hasattr(layer, "seed_generator")
    ]
