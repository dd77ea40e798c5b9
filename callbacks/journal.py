"""A line of JSON for every epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import keras
from vgg_keras.callbacks.timing import EpochTimer
from vgg_keras.pipelines.files import atomic_write

# Accuracies of the logs that are written as errors in percent, as papers print them.
_ERRORS = {
    "accuracy": "top1_error",
    "top5_accuracy": "top5_error",
    "box_accuracy": "localisation_error",
}


def read_journal(path: str | os.PathLike) -> list[dict]:
    """The entries of a journal; none where there is no file. A torn last line is left out."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def as_errors(logs: Mapping[str, float]) -> dict[str, float]:
    """Logs with accuracies turned into errors in percent; other entries as they are."""
    entry = {}
    for key, value in logs.items():
        prefix, name = ("val_", key[4:]) if key.startswith("val_") else ("", key)
        if name in _ERRORS:
            entry[prefix + _ERRORS[name]] = round(100 * (1 - float(value)), 4)
        else:
            entry[key] = float(value)
    return entry


class Journal(EpochTimer):
    """Writes one JSON object an epoch: losses, errors in percent, rate, images/s, seconds.

    An epoch that is run again, after a kill, replaces its line.

    Args:
        path: file to write.
        images_per_epoch: for the rate of images.
        leave_out: entries of the logs that are not written.
    """

    def __init__(
        self, path: str | os.PathLike, images_per_epoch: int, leave_out: Collection[str] = ()
    ):
        super().__init__(images_per_epoch)
        self.leave_out = leave_out
        self.path = Path(path)

    def on_epoch_end(self, epoch, logs=None):
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        entry = {
            "epoch": epoch + 1,
            **as_errors({k: v for k, v in (logs or {}).items() if k not in self.leave_out}),
            "learning_rate": float(rate),
            "images_per_second": round(self.images_per_second, 1),
            "seconds": round(self.epoch_seconds, 2),
        }
        kept = [e for e in read_journal(self.path) if e["epoch"] <= epoch]
        entry = {k: v if math.isfinite(v) else None for k, v in entry.items()}  # JSON has no NaN
        atomic_write(self.path, "".join(json.dumps(e) + "\n" for e in [*kept, entry]))
