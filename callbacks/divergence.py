"""Training that diverged, and training that learns nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import keras

from vgg_keras.callbacks.errors import DivergenceError

log = logging.getLogger(__name__)

_ADVICE = (
    "Start again with a lower learning rate, clip the gradients (`clipnorm` of the optimizer), or "
    "freeze layers (`trainable = False`)."
)
# Relative distance from ln(classes). Noise in the biases of a net without live units moves its
# cross-entropy by about a thousandth.
_NEAR_CHANCE = 5e-3


def divergence(logs: Mapping[str, Any] | None) -> str:
    """Describes how the logs of an epoch show that training diverged; "" if they do not.

    The loss decides: that of validation, or that of training if the epoch was not validated. An
    accuracy says nothing, because NaN for every class counts as class 0.

        divergence({"loss": 2.0, "val_loss": float("nan")})  # "val_loss is nan"
    """
    for name in ("val_loss", "loss"):
        if logs and name in logs:
            value = float(logs[name])
            return "" if math.isfinite(value) else f"{name} is {value}"
    return ""


class RaiseOnDivergence(keras.callbacks.Callback):
    """Raises an error at the end of an epoch whose loss is not finite.

    Keras's `TerminateOnNaN` ends training as if it had succeeded, and looks at every batch.

    Put this callback before `Checkpoint` and behind the callbacks that should see the epoch.

        model.fit(..., callbacks=[Journal(...), RaiseOnDivergence(), Checkpoint("runs/mine")])

    Args:
        advice: end of the message; by default general advice on how to go on.

    Raises, during training:
        DivergenceError: the loss of an epoch is NaN or infinite, see `divergence`.
    """

    def __init__(self, advice: str = _ADVICE):
        super().__init__()
        self.advice = advice

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if reason := divergence(logs):
            raise DivergenceError(
                f"Training diverged in epoch {epoch + 1}: {reason}. {self.advice}"
            )


class WarnOfChance(keras.callbacks.Callback):
    """Logs a warning when a classifier is as good as one that gives all classes the same posterior.

    Its cross-entropy is then ln(classes), in training and in validation. This is usual before a net
    has begun to learn. If it stays so, the units are dead: their ReLU gives 0 for every image. Of
    several such epochs the first is named, and they are counted if training ends with them.

        model.fit(..., callbacks=[WarnOfChance()])

    Epochs whose logs lack one of the two cross-entropies are ignored, so the model needs such a
    metric: `keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")`. A loss is no
    substitute if it contains weight decay.

    Args:
        monitor: name of the training cross-entropy in the epoch logs; that of validation is
            `val_` and this name. The classes are the last axis of the model's output.
    """

    def __init__(self, monitor: str = "cross_entropy"):
        super().__init__()
        self.monitor = monitor
        self._epochs_at_chance = 0  # without a better one between them

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._epochs_at_chance = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        names = (self.monitor, f"val_{self.monitor}")
        if not logs or not logs.keys() >= set(names):
            return
        found = [logs[name] for name in names]
        classes = self.model.output_shape[-1]
        chance = math.log(classes)
        if not all(abs(value - chance) <= _NEAR_CHANCE * chance for value in found):
            self._epochs_at_chance = 0
            return
        self._epochs_at_chance += 1
        if self._epochs_at_chance == 1:
            log.warning(
                "epoch %d: cross-entropy %.3f is ln(%d): the net gives all classes the same "
                "posterior. If it stays so, its units are dead: start from other weights or with "
                "a lower learning rate",
                epoch + 1,
                found[1],
                classes,
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._epochs_at_chance > 1:
            log.warning(
                "The net has not learned: in the last %d epochs it gave all classes the same "
                "posterior. Start from other weights or with a lower learning rate.",
                self._epochs_at_chance,
            )
