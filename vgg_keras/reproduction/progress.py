"""Progress of a plan: one live line on a terminal, one line for each step elsewhere."""

from __future__ import annotations

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vgg_keras.callbacks.journal import as_errors
from vgg_keras.reproduction.cost import as_text


class StepLine(keras.callbacks.Callback):
    """Shows the running step, of how many, and the time left of the whole plan.

    As a callback of a training it also shows the epoch, on a terminal.

    Args:
        total: number of steps.
        verbose: 0 for silence; 1 or "auto" for a line.
        console: where to write; standard error by default.
    """

    def __init__(self, total: int, verbose: int | str = "auto", console: Console | None = None):
        super().__init__()
        self.total = total
        self.verbose = bool(verbose)
        self.console = console or Console(stderr=True)
        self._line = ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            console=self.console,
            transient=True,
            disable=not (self.verbose and self.console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> StepLine:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, number: int, name: str, seconds_left: float) -> None:
        """Starts a step, with the seconds that are left for it and all others; NaN if unknown."""
        self._line = f"step {number}/{self.total}  {name}  left {as_text(seconds_left)}"
        self._bar.update(self._task, description=self._line, completed=number - 1)
        if self.verbose and not self.console.is_terminal:
            self.console.print(self._line, highlight=False, soft_wrap=True, markup=False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        errors = as_errors(logs or {})
        shown = [f"epoch {epoch + 1}/{self.params['epochs']}"]
        shown += [f"val top-1 error {v:.1f} %" for k, v in errors.items() if k == "val_top1_error"]
        self._bar.update(self._task, description="  ".join([self._line, *shown]))
