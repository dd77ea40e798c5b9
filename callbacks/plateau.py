"""Learning rate decay on a plateau, a set number of times, then the end."""

from __future__ import annotations

import logging
from typing import Any

import keras

log = logging.getLogger(__name__)


class PlateauDecay(keras.callbacks.Callback):
    """Divides the learning rate when a metric stops improving, then ends training (§3.1).

    Keras's `ReduceLROnPlateau` neither counts its drops nor ends training, and forgets its
    state at every `fit` (keras#9462).

    Args:
        monitor: entry of the epoch's logs.
        factor: what the rate is divided by.
        patience: epochs without improvement before a drop; as many after the last drop end
            training.
        drops: drops at most.
        min_delta: the least change that counts as improvement.
        mode: "max" where greater is better, or "min".

    `get_state` and `set_state` carry it over to another process.
    """

    def __init__(
        self,
        monitor: str = "val_accuracy",
        factor: float = 10.0,
        patience: int = 3,
        drops: int = 3,
        min_delta: float = 0.0,
        mode: str = "max",
    ):
        super().__init__()
        if factor <= 1:
            raise ValueError(f"factor must be above 1. Received: factor={factor}")
        if patience < 1 or drops < 0:
            raise ValueError(
                "patience must be 1 or more and drops 0 or more. "
                f"Received: patience={patience}, drops={drops}"
            )
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min'. Received: mode={mode!r}")
        self.monitor = monitor
        self.factor = factor
        self.patience = patience
        self.drops = drops
        self.min_delta = min_delta
        self.mode = mode
        self.best: float | None = None
        self.wait = 0
        self.drops_done = 0

    def get_config(self) -> dict[str, Any]:
        """Arguments to build it again."""
        names = ("monitor", "factor", "patience", "drops", "min_delta", "mode")
        return {name: getattr(self, name) for name in names}

    def get_state(self) -> dict[str, Any]:
        """What it has seen, for `set_state`; plain numbers."""
        return {"best": self.best, "wait": self.wait, "drops_done": self.drops_done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state that `get_state` gave."""
        self.best, self.wait = state["best"], state["wait"]
        self.drops_done = state["drops_done"]

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None:
            raise ValueError(
                f"PlateauDecay monitors {self.monitor!r}, which is not among the epoch's logs: "
                f"{', '.join(logs or {})}."
            )
        if self._improves(float(value)):
            self.best, self.wait = float(value), 0
            return
        self.wait += 1
        if self.wait < self.patience:
            return
        self.wait = 0
        if self.drops_done == self.drops:
            log.info("epoch %d: plateau after %d drops, training ends", epoch + 1, self.drops)
            self.model.stop_training = True
            return
        self.drops_done += 1
        optimizer = self.model.optimizer
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) / self.factor
        optimizer.learning_rate = rate
        log.info("epoch %d: plateau, learning rate %.2g", epoch + 1, rate)

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = value - self.best if self.mode == "max" else self.best - value
        return gain > self.min_delta
