"""Duration of epochs."""

from __future__ import annotations

import time
from typing import Any

import keras


class EpochTimer(keras.callbacks.Callback):
    """Base class of callbacks that report how long an epoch, and the training in it, took.

    Args:
        images_per_epoch: number of training images in an epoch.
    """

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self._epoch_started = 0.0
        self._validating_since: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_started = time.perf_counter()
        self._validating_since = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._validating_since = time.perf_counter()

    @property
    def epoch_seconds(self) -> float:
        """Seconds since the epoch began, validation included."""
        return time.perf_counter() - self._epoch_started

    @property
    def images_per_second(self) -> float:
        """Training images per second in this epoch, without the time of validation."""
        trained = (self._validating_since or time.perf_counter()) - self._epoch_started
        return self.images_per_epoch / max(trained, 1e-9)
