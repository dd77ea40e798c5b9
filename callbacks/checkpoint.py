"""Checkpoints that training continues from after it was killed, in one file."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, TypedDict

import h5py
import keras
import msgspec

from vgg_keras.callbacks.divergence import divergence
from vgg_keras.callbacks.errors import CheckpointError
from vgg_keras.callbacks.file_names import BEST_WEIGHTS, LAST_WEIGHTS
from vgg_keras.callbacks.monitor import MonitorCallback
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.pipelines.contents import naming_file, parse_json
from vgg_keras.pipelines.errors import WriteError
from vgg_keras.pipelines.files import atomic_path

log = logging.getLogger(__name__)

_ATTRIBUTE = "training_state"  # of the HDF5 file


class Stateful(Protocol):
    """A callback whose state the checkpoint includes."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class Progressed(NamedTuple):
    """Progress of a run: number of finished epochs, and whether training has ended."""

    epochs: int
    finished: bool


class Checkpoint(MonitorCallback):
    """Saves the last and the best weights at the end of every epoch.

    `last.weights.h5` holds everything that training continues from: weights, optimizer state, seeds
    of random layers, states of other callbacks, and the epoch. Since this is one file, its parts
    always belong to the same epoch. It is also saved before the first epoch, if there is none.
    `best.weights.h5` holds only the weights of the best epoch. Each write is atomic.

    Keras's `BackupAndRestore` saves neither the seeds nor the states of other callbacks.

    An epoch whose logs lack the monitored metric is saved as the last one, and is not compared with
    the best one. If no epoch has the metric, a warning at the end of training says so. An epoch
    that diverged is not saved, which is logged: training continues from the last one before it.

    Put this callback last in `callbacks`, so that it saves what the others did in an epoch.

        checkpoint = Checkpoint("runs/mine")
        done = checkpoint.restore(model)  # (0, False) at first
        model.fit(..., initial_epoch=done.epochs, callbacks=[checkpoint])

    Args:
        folder: folder to write to.
        stateful: other callbacks whose states are saved and restored, by name.
        monitor: name of the metric in the epoch logs that decides which epoch is best. Greater is
            better.

    Attributes:
        best: best value of the metric so far; None before the first value.

    Raises, during training:
        WriteError: a file cannot be written. The files that were there before are intact.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        stateful: Mapping[str, Stateful] | None = None,
        monitor: str = "val_accuracy",
    ):
        super().__init__(monitor)
        self.folder = Path(folder)
        self.stateful = dict(stateful or {})

    def restore(self, model: keras.Model) -> Progressed:
        """Restores a compiled model and the callbacks from the last epoch saved in the folder.

        Returns:
            Progress of the saved run. If nothing was saved, returns (0, False) and does not change
            the model.

        Raises:
            CheckpointError: the file is damaged, belongs to another model, or holds NaN or Inf.
        """
        path = self.folder / LAST_WEIGHTS
        if not path.exists():
            return Progressed(0, False)
        model.optimizer.build(model.trainable_variables)
        with naming_file(path, CheckpointError, "cannot be restored"):
            state = _read_state(path)
            model.load_weights(path)
            for variable, value in zip(_seed_states(model), state["seeds"], strict=True):
                variable.assign(value)
            for name, callback in self.stateful.items():
                callback.set_state(state["callbacks"][name])
            for variable in model.variables + model.optimizer.variables:
                if not is_finite(keras.ops.convert_to_numpy(variable)):
                    raise ValueError(
                        f"it holds NaN or Inf in {variable.path}: training had diverged. Start "
                        f"again in another folder, with a lower learning rate"
                    )
        self.best = state["best"]
        return Progressed(state["epochs"], state["finished"])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # From here on, a missing file was removed, and not lost by a kill in the first epoch.
        if not (self.folder / LAST_WEIGHTS).exists():
            self.model.optimizer.build(self.model.trainable_variables)
            self.save(self.model, 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = self.monitored_value(logs)
        if reason := divergence(logs):
            log.warning("epoch %d is not saved, because training diverged: %s", epoch + 1, reason)
            return
        if (
            value is not None
            and self.may_be_best(value, logs)
            and (self.best is None or value > self.best)
        ):
            self.best = value
            with _writing(self.folder / BEST_WEIGHTS, self.model.variables) as path:
                _without_optimizer(self.model).save_weights(path)
        self.save(self.model, epoch + 1, finished=bool(self.model.stop_training))

    def save(self, model: keras.Model, epochs: int, finished: bool = False) -> None:
        """Saves the last weights, and what training continues from, as after an epoch.

        Args:
            model: compiled model, whose optimizer is built.
            epochs: number of finished epochs.
            finished: whether training has ended.

        Raises:
            WriteError: the file cannot be written; what was there before is intact.
        """
        state = {
            "epochs": epochs,
            "finished": finished,
            "best": self.best,
            "seeds": [keras.ops.convert_to_numpy(v).tolist() for v in _seed_states(model)],
            "callbacks": {name: c.get_state() for name, c in self.stateful.items()},
        }
        everything = model.variables + model.optimizer.variables
        with _writing(self.folder / LAST_WEIGHTS, everything) as path:
            model.save_weights(path)
            with h5py.File(path, "a") as file:
                file.attrs[_ATTRIBUTE] = json.dumps(state)


def read_progress(folder: str | os.PathLike) -> Progressed:
    """Returns the progress of the run in a folder; (0, False) if nothing was saved.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(folder) / LAST_WEIGHTS
    if not path.exists():
        return Progressed(0, False)
    with naming_file(path, CheckpointError):
        state = _read_state(path)
    return Progressed(state["epochs"], state["finished"])


def read_callback_states(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Returns the states of the other callbacks of the run in a folder, by name.

    Raises:
        CheckpointError: the file is damaged or missing.
    """
    path = Path(folder) / LAST_WEIGHTS
    with naming_file(path, CheckpointError):
        return _read_state(path)["callbacks"]


class _State(TypedDict):
    """What training continues from, apart from the weights and the state of the optimizer."""

    epochs: Annotated[int, msgspec.Meta(ge=0)]
    finished: bool
    best: float | None
    seeds: list[Any]
    callbacks: dict[str, dict[str, Any]]


def _read_state(path: Path) -> _State:
    with h5py.File(path) as file:
        return parse_json(file.attrs[_ATTRIBUTE], _State)


@contextlib.contextmanager
def _writing(path: Path, variables: Sequence[keras.Variable]) -> Iterator[Path]:
    bytes_needed = sum(4 * math.prod(v.shape) for v in variables) + 2**18
    try:
        with atomic_path(path, bytes_needed) as temporary, _undistributed():
            yield temporary
    except (OSError, RuntimeError) as error:  # HDF5 raises RuntimeError on a full disk
        raise WriteError(
            f"{path} could not be written; what was saved before is intact: {error}"
        ) from error


@contextlib.contextmanager
def _undistributed() -> Iterator[None]:
    """Switches the distribution off while Keras saves.

    Keras makes variables while it saves. If they were distributed over several processes, they
    would wait for the processes that do not save.
    """
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _without_optimizer(model: keras.Model) -> keras.Model:
    """The same layers without the optimizer, whose state would double the size of the file.

    A subclassed model has no graph of layers to make another model from; it is returned as it is.
    The name is that of the model: Keras would count, and the files of the same run would differ.
    """
    inputs = getattr(model, "inputs", None)
    return keras.Model(inputs, model.outputs, name=model.name) if inputs else model


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """States of random layers, nested ones too. Keras 3.15 does not save them with the weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
