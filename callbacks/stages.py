"""Callbacks of a training in several calls of `fit`."""

from __future__ import annotations

from typing import Any

import keras


class OneTraining(keras.callbacks.CallbackList):
    """Callbacks of several calls of `fit` that are one training.

    Layers are unfrozen between two calls of `fit`, because a model must be compiled again for that.
    Keras begins and ends its callbacks in every call, which resets `EarlyStopping` and empties the
    file of a `CSVLogger`. With this list they begin in the first call and end in the last.

        callbacks = OneTraining([keras.callbacks.CSVLogger("log.csv")], model=model, epochs=5)
        model.fit(..., epochs=1, callbacks=callbacks)
        base.trainable = True
        model.compile(...)
        model.fit(..., initial_epoch=1, epochs=5, callbacks=callbacks)

    Args:
        callbacks: the callbacks.
        model: the model of all calls.
        epochs: number of epochs after the last call. The last call is the one that reaches it, or
            in which a callback sets `model.stop_training`.
        params: further entries of the `params` of the callbacks, such as `steps`.
    """

    def __init__(
        self,
        callbacks: list[keras.callbacks.Callback],
        *,
        model: keras.Model,
        epochs: int,
        **params: Any,
    ):
        super().__init__(callbacks, add_history=True, model=model, epochs=epochs, **params)
        self._epochs_done: int | None = None  # until training begins

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._epochs_done is None:
            self._epochs_done = 0
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs_done = epoch + 1
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.model.stop_training or (self._epochs_done or 0) >= self.params["epochs"]:
            super().on_train_end(logs)
