"""How long epochs take."""

from __future__ import annotations

import time

import keras


class EpochTimer(keras.callbacks.Callback):
    """Times each epoch, and the part of it that trains.

    Args:
        images_per_epoch: for the rate of images.
    """

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self._epoch_started = 0.0
        self._validating_since: float | None = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_started = time.perf_counter()
        self._validating_since = None

    def on_test_begin(self, logs=None):
        self._validating_since = time.perf_counter()

    @property
    def epoch_seconds(self) -> float:
        """Since the epoch began, validation included."""
        return time.perf_counter() - self._epoch_started

    @property
    def images_per_second(self) -> float:
        """Of training alone."""
        trained = (self._validating_since or time.perf_counter()) - self._epoch_started
        return self.images_per_epoch / max(trained, 1e-9)
