"""Learning rate decay on a plateau."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import keras
import msgspec

from vgg_keras.callbacks.monitor import MonitorCallback
from vgg_keras.pipelines.checks import check_at_least, check_choice
from vgg_keras.pipelines.errors import ArgumentError

log = logging.getLogger(__name__)


class _State(TypedDict):
    best: float | None
    wait: Annotated[int, msgspec.Meta(ge=0)]
    drops_done: Annotated[int, msgspec.Meta(ge=0)]


class PlateauDecay(MonitorCallback):
    """Divides the learning rate when a metric stops improving, then ends training (§3.1).

    Keras's `ReduceLROnPlateau` does not count its drops, does not end training, and loses its
    state at every `fit` (keras#9462).

    An epoch whose logs lack the metric is ignored: it is not counted as an epoch without
    improvement. If no epoch has the metric, a warning at the end of training says so. An epoch
    that diverged, or whose metric is not finite, never counts as an improvement.

        model.fit(x, y, validation_split=0.1, epochs=74, callbacks=[PlateauDecay(patience=3)])

    Args:
        monitor: name of the metric in the epoch logs.
        factor: number that the learning rate is divided by; above 1.
        patience: number of epochs without improvement before a drop, 1 or more. After the last
            drop, training ends after the same number of epochs without improvement.
        drops: maximum number of drops, 0 or more.
        min_delta: smallest change that counts as an improvement.
        mode: "max" if greater values are better, "min" if smaller values are better.
        start_from_epoch: number of first epochs to ignore, as in Keras's `EarlyStopping`.

    Attributes:
        best: best value of the metric so far; None before the first value.
        wait: number of epochs without improvement since the last improvement or drop.
        drops_done: number of drops so far.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    def __init__(
        self,
        monitor: str = "val_accuracy",
        factor: float = 10.0,
        patience: int = 3,
        drops: int = 3,
        min_delta: float = 0.0,
        mode: str = "max",
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor)
        if not factor > 1:
            raise ArgumentError(f"factor must be above 1. Received: factor={factor}", "factor")
        check_at_least("patience", patience, 1)
        check_at_least("drops", drops, 0)
        check_choice("mode", mode, ("max", "min"))
        check_at_least("start_from_epoch", start_from_epoch, 0)
        self.factor = factor
        self.patience = patience
        self.drops = drops
        self.min_delta = min_delta
        self.mode = mode
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.drops_done = 0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, by name."""
        names = "monitor", "factor", "patience", "drops", "min_delta", "mode", "start_from_epoch"
        return {name: getattr(self, name) for name in names}

    def get_state(self) -> dict[str, Any]:
        """Returns the state as plain numbers. `set_state` takes it, in another process too."""
        return {"best": self.best, "wait": self.wait, "drops_done": self.drops_done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned.

        Raises:
            ValueError: it is something else.
        """
        msgspec.convert(state, _State)
        self.best, self.wait = state["best"], state["wait"]
        self.drops_done = state["drops_done"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = self.monitored_value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        decision = self._decide(value, self.may_be_best(value, logs))
        if decision == "end":
            log.info("epoch %d: plateau after %d drops, training ends", epoch + 1, self.drops)
            self.model.stop_training = True
        elif decision == "drop":
            optimizer = self.model.optimizer
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) / self.factor
            optimizer.learning_rate = rate
            log.info("epoch %d: plateau, learning rate %.2g", epoch + 1, rate)

    def replay(self, values: Sequence[float]) -> list[str | None]:
        """Decides from recorded values, without a model; the state is then that after them.

            PlateauDecay(patience=1, drops=1).replay([0.1, 0.1, 0.1])  # [None, "drop", "end"]

        Args:
            values: the metric after each epoch, from the first epoch on.

        Returns:
            What follows after each epoch: "drop" of the learning rate, "end" of the training, or
            None.
        """
        return [
            None if epoch < self.start_from_epoch else self._decide(value)
            for epoch, value in enumerate(values)
        ]

    def _decide(self, value: float, may_improve: bool = True) -> str | None:
        """Counts an epoch; returns what follows after it, see `replay`."""
        if may_improve and self._improves(value):
            self.best, self.wait = value, 0
            return None
        self.wait += 1
        if self.wait < self.patience:
            return None
        self.wait = 0
        if self.drops_done >= self.drops:  # a state may be of a run with more drops
            return "end"
        self.drops_done += 1
        return "drop"

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = value - self.best if self.mode == "max" else self.best - value
        return gain > self.min_delta
