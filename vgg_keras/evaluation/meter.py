"""Progress of a long evaluation: a bar on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vgg_keras.callbacks.progress import clock

_SECONDS_BETWEEN_LINES = 30.0


class Meter:
    """Shows the running pass, the images done, images/s and the time left of all passes.

    Args:
        total: cost of all that is to be done, in any unit.
        verbose: 0 for silence; 1 or "auto" for a bar on a terminal and lines elsewhere.
        console: where to write; standard error by default.
    """

    def __init__(self, total: float, verbose: int | str = "auto", console: Console | None = None):
        self.verbose = bool(verbose)
        self.console = console or Console(stderr=True)
        self.total = total
        self._done = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=self.console,
            transient=True,
            disable=not (self.verbose and self.console.is_terminal and total),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Meter:
        self._began = self._printed = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, name: str, images: int, cost: float) -> None:
        """Starts a pass over `images` images, each of the given cost."""
        self._name, self._images, self._cost = name, images, cost
        self._seen, self._line = 0, f"{name}  0/{images} images"
        self._pass_began = time.monotonic()

    def advance(self, images: int) -> None:
        """Counts further images as done."""
        self._seen += images
        self._done += images * self._cost
        now = time.monotonic()
        rate = self._seen / max(now - self._pass_began, 1e-9)
        left = (now - self._began) / self._done * max(self.total - self._done, 0)
        line = (
            f"{self._name}  {self._seen}/{self._images} images  {rate:.1f} images/s  "
            f"left {clock(left)}"
        )
        self._line = line
        self._bar.update(self._task, description=line, completed=self._done)
        is_due = now - self._printed > _SECONDS_BETWEEN_LINES and self._seen < self._images
        if is_due and not self.console.is_terminal:
            self._printed = now
            self._print()

    def finish(self) -> None:
        """Ends the pass. Images that could not be read are missing from its count."""
        self._done += (self._images - self._seen) * self._cost
        self._print()

    def _print(self) -> None:
        if self.verbose:
            self.console.print(self._line, highlight=False, soft_wrap=True)
