"""Progress of training with the time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vgg_keras.callbacks.journal import as_errors
from vgg_keras.callbacks.timing import EpochTimer

# Entries of an epoch line, in their order.
_SHOWN = {
    "loss": "loss {:.3f}",
    "top1_error": "top-1 error {:.1f} %",
    "val_top1_error": "val top-1 error {:.1f} %",
    "val_top5_error": "val top-5 error {:.1f} %",
    "localisation_error": "localisation error {:.1f} %",
    "val_localisation_error": "val localisation error {:.1f} %",
}


class Progress(EpochTimer):
    """Prints one line for each epoch: loss, errors in percent, images per second and time left.

    On a terminal it also shows a bar. Elsewhere, in a long epoch, a line every 30 seconds says how
    far it is. Use it with `fit(verbose=0)`.

        model.fit(..., verbose=0, callbacks=[Progress(steps_per_epoch=196, images_per_epoch=50000)])

    Args:
        steps_per_epoch: number of training batches in an epoch.
        images_per_epoch: number of training images in an epoch, for the rate.
        console: where to print; standard error by default.
        heartbeat: seconds without a line after which one is printed where there is no terminal.
    """

    def __init__(
        self,
        steps_per_epoch: int,
        images_per_epoch: int,
        console: Console | None = None,
        heartbeat: float = 30.0,
    ):
        super().__init__(images_per_epoch)
        self.steps_per_epoch = steps_per_epoch
        self.heartbeat = heartbeat
        self.console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._first_epoch: int | None = None
        self._started = 0.0
        self._epoch = 0
        self._last_line = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._started = self._last_line = time.monotonic()
        self._first_epoch = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
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

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._bar:
            self._bar.advance(self._task)
            return
        done = batch + 1
        rate = self.images_per_second * done / self.steps_per_epoch
        left = self.epoch_seconds / done * (self.steps_per_epoch - done)
        loss = f"  loss {logs['loss']:.3f}" if logs and "loss" in logs else ""
        self._beat(
            f"step {done}/{self.steps_per_epoch}{loss}  {rate:.0f} images/s  left in the epoch "
            f"{clock(left)}"
        )

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._beat(f"validation, step {batch + 1}")

    def _beat(self, text: str) -> None:
        """Prints how far the epoch is, unless a line was printed a moment ago."""
        is_due = time.monotonic() - self._last_line >= self.heartbeat
        if is_due and not self.console.is_terminal:
            self._print(f"epoch {self._epoch + 1}/{self.params['epochs']}  {text}")

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(line, highlight=False, soft_wrap=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        epochs = self.params["epochs"]
        done = epoch + 1 - (self._first_epoch or 0)
        left = (time.monotonic() - self._started) / done * (epochs - epoch - 1)
        errors = as_errors(logs or {})
        self._print(
            f"epoch {epoch + 1}/{epochs}  {_brief(errors)}  {self.images_per_second:.0f} images/s  "
            f"left {clock(left)}"
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Removes the bar from the terminal. Call it when training ended with an exception."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _brief(entry: Mapping[str, float]) -> str:
    return "  ".join(text.format(entry[key]) for key, text in _SHOWN.items() if key in entry)


def clock(seconds: float) -> str:
    """Formats a duration as minutes:seconds, or as hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
