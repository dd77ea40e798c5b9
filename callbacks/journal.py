"""One line of JSON for every epoch."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vgg_keras.callbacks.errors import JournalError
from vgg_keras.callbacks.timing import EpochTimer
from vgg_keras.pipelines.contents import naming_file, parse_json
from vgg_keras.pipelines.files import atomic_write

# Accuracies in the logs, and the names of the errors in percent that replace them.
_ERRORS = {
    "accuracy": "top1_error",
    "top5_accuracy": "top5_error",
    "box_accuracy": "localisation_error",
}


def read_journal(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the entries of a journal, without an incomplete last line.

    A missing file has no entries.

        [entry["val_top1_error"] for entry in read_journal("runs/mine/journal.jsonl")]

    Raises:
        JournalError: the file holds something else.
    """
    path = Path(path)
    if not path.exists():
        return []
    with naming_file(path, JournalError):
        *lines, incomplete = path.read_bytes().split(b"\n")
        entries = [_entry(line) for line in lines if line.strip()]
        with contextlib.suppress(ValueError):  # a last line without a line break may be complete
            entries.append(_entry(incomplete))
        return entries


def _entry(line: bytes) -> dict[str, Any]:
    entry = parse_json(line, dict[str, float | None])
    epoch = entry.get("epoch")
    if not isinstance(epoch, int) or epoch < 1:
        raise ValueError(f"an entry must have its epoch, from 1. Received: {epoch!r}")
    return entry


def as_errors(logs: Mapping[str, Any]) -> dict[str, float]:
    """Returns the single numbers in the logs, with accuracies as errors in percent.

    Entries that are not a single number, such as one score for each class, are ignored.
    """
    entry = {}
    for key, value in logs.items():
        if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
            continue
        prefix, name = ("val_", key[4:]) if key.startswith("val_") else ("", key)
        if name in _ERRORS:
            entry[prefix + _ERRORS[name]] = round(100 * (1 - float(value)), 4)
        else:
            entry[key] = float(value)
    return entry


class Journal(EpochTimer):
    """Writes one JSON object for each epoch.

    An entry holds `epoch` (from 1), the losses, errors in percent (`top1_error`, `val_top1_error`,
    ...), `learning_rate`, `trainable_parameters`, `images_per_second` and `seconds`. A value that
    is not finite is null. An epoch that is trained again replaces its entry.

        model.fit(..., callbacks=[Journal("journal.jsonl", images_per_epoch=50000)])

    Args:
        path: file to write.
        images_per_epoch: number of training images in an epoch, for `images_per_second`.
        exclude: entries of the logs that are not written.

    Raises, during training:
        WriteError: the file cannot be written.
        JournalError: the file holds something else.
    """

    def __init__(
        self, path: str | os.PathLike, images_per_epoch: int, exclude: Collection[str] = ()
    ):
        super().__init__(images_per_epoch)
        self.exclude = exclude
        self.path = Path(path)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        read_journal(self.path)  # a damaged file is reported before the first epoch, not after it

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        numbers = {
            "epoch": epoch + 1,
            **as_errors({k: v for k, v in (logs or {}).items() if k not in self.exclude}),
            "learning_rate": float(rate),
            "trainable_parameters": sum(
                math.prod(variable.shape) for variable in self.model.trainable_variables
            ),
            "images_per_second": round(self.images_per_second, 1),
            "seconds": round(self.epoch_seconds, 2),
        }
        entry = {k: v if math.isfinite(v) else None for k, v in numbers.items()}  # JSON has no NaN
        earlier = [e for e in read_journal(self.path) if e["epoch"] <= epoch]
        atomic_write(self.path, "".join(json.dumps(e) + "\n" for e in [*earlier, entry]))
