"""Monitoring one entry of the logs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from vgg_keras.callbacks.divergence import divergence


class MonitorCallback(keras.callbacks.Callback):
    """Base class of callbacks that act on one entry of the epoch logs.

    An epoch whose logs lack the entry, as most do with `fit(validation_freq=2)`, has no value. If
    no epoch has one, a warning at the end of training names the entries that the logs had.

    Args:
        monitor: name of the entry, such as "val_accuracy".

    Attributes:
        best: best value so far; None before the first value.
    """

    def __init__(self, monitor: str):
        super().__init__()
        self.monitor = monitor
        self.best: float | None = None
        self._logged: dict[str, None] = {}  # an ordered set

    def monitored_value(self, logs: Mapping[str, Any] | None) -> float | None:
        """Returns the monitored value of an epoch, or None if its logs lack it."""
        logs = logs or {}
        self._logged |= dict.fromkeys(logs)
        value = logs.get(self.monitor)
        return None if value is None else float(value)

    def may_be_best(self, value: float, logs: Mapping[str, Any] | None) -> bool:
        """Whether the monitored value is finite and the epoch did not diverge.

        Weights that are NaN give the accuracy of class 0, so the value alone is not enough.
        """
        return math.isfinite(value) and not divergence(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._logged and self.monitor not in self._logged and self.best is None:
            warnings.warn(
                f"{type(self).__name__} had no effect: it monitors `{self.monitor}`, which was not "
                f"in the logs of any epoch. Available metrics are: {', '.join(self._logged)}",
                stacklevel=2,
            )
