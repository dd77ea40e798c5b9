"""Several calls of `fit` as one training."""

from __future__ import annotations

import keras
import pytest

from tests.callbacks.small import data, small_model
from vgg_keras.callbacks import OneTraining


class Calls(keras.callbacks.Callback):
    """Records the calls of a callback."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(epoch)

    def on_train_end(self, logs=None):
        self.calls.append("end")


def fit_in_two(*callbacks, epochs=3):
    """Trains the last layer for one epoch, then all layers; returns the model."""
    (x, y), model = data(), small_model()
    together = OneTraining(list(callbacks), model=model, epochs=epochs)
    hidden = model.get_layer("hidden")
    for first, end, trainable in ((0, 1, False), (1, epochs, True)):
        hidden.trainable = trainable
        model.compile(
            "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
        )
        model.fit(x, y, initial_epoch=first, epochs=end, verbose=0, callbacks=together)
        if model.stop_training:
            break
    return model


def test_callbacks_begin_and_end_once(tmp_path):
    calls, file = Calls(), tmp_path / "log.csv"
    model = fit_in_two(calls, keras.callbacks.CSVLogger(file))
    assert calls.calls == ["begin", 0, 1, 2, "end"]
    assert [line.split(",")[0] for line in file.read_text().split()] == ["epoch", "0", "1", "2"]
    assert model.history.epoch == [0, 1, 2]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_callback_that_stops_training_ends_it(epoch):
    def stop(now, logs):
        calls.model.stop_training = now == epoch

    calls = Calls()
    fit_in_two(calls, keras.callbacks.LambdaCallback(on_epoch_end=stop))
    assert calls.calls == ["begin", *range(epoch + 1), "end"]
