"""Progress with time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from vgg_keras.callbacks.journal import as_errors
from vgg_keras.callbacks.timing import EpochTimer


class Progress(EpochTimer):
    """Shows epochs, errors in percent and the time left of the whole training.

    Use it with `fit(verbose=0)`.

    Args:
        steps_per_epoch: batches an epoch.
        images_per_epoch: for the rate of images.
    """

    def __init__(self, steps_per_epoch: int, images_per_epoch: int, console: Console | None = None):
        super().__init__(images_per_epoch)
        self.steps_per_epoch = steps_per_epoch
        self.console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._first_epoch: int | None = None
        self._started = 0.0

    def on_train_begin(self, logs=None):
        self._started = time.monotonic()
        self._first_epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._first_epoch is not None:
            return
        self._first_epoch = epoch
        if self.console.is_terminal:
            steps_left = (self.params["epochs"] - epoch) * self.steps_per_epoch
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("training", total=steps_left)
            self._bar.start()

    def on_train_batch_end(self, batch, logs=None):
        if self._bar:
            self._bar.advance(self._task)

    def on_epoch_end(self, epoch, logs=None):
        epochs = self.params["epochs"]
        done = epoch + 1 - (self._first_epoch or 0)
        left = (time.monotonic() - self._started) / done * (epochs - epoch - 1)
        errors = as_errors(logs or {})
        self.console.print(
            f"epoch {epoch + 1}/{epochs}  {_brief(errors)}  {self.images_per_second:.0f} images/s  "
            f"left {clock(left)}",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """Takes the bar off the terminal; for training that ends by an exception too."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _brief(entry: Mapping[str, float]) -> str:
    wanted = {
        "loss": "loss {:.3f}",
        "top1_error": "top-1 {:.1f} %",
        "val_top1_error": "val top-1 {:.1f} %",
        "val_top5_error": "val top-5 {:.1f} %",
        "localisation_error": "localisation {:.1f} %",
        "val_localisation_error": "val localisation {:.1f} %",
    }
    return "  ".join(text.format(entry[key]) for key, text in wanted.items() if key in entry)


def clock(seconds: float) -> str:
    """A duration as minutes:seconds, or hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
