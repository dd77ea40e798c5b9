"""Progress of a long evaluation: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vgg_keras.callbacks.progress import clock

_SECONDS_BETWEEN_LINES = 30.0


class Meter:
    """Shows which pass is running, pictures done, images/s and the time left of all passes.

    Args:
        total: cost of all that is to be done, in any unit.
        console: where to; standard error by default.
    """

    def __init__(self, total: float, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self.total = total
        self._done = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or not total,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Meter:
        self._began = self._said = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def start(self, name: str, pictures: int, cost: float) -> None:
        """A pass begins: so many pictures, each of a cost."""
        self._name, self._pictures, self._cost = name, pictures, cost
        self._seen, self._line = 0, f"{name}  0/{pictures} images"
        self._pass_began = time.monotonic()

    def advance(self, pictures: int) -> None:
        """So many more pictures are done."""
        self._seen += pictures
        self._done += pictures * self._cost
        now = time.monotonic()
        rate = self._seen / max(now - self._pass_began, 1e-9)
        left = (now - self._began) / self._done * max(self.total - self._done, 0)
        line = (
            f"{self._name}  {self._seen}/{self._pictures} images  {rate:.1f} images/s  "
            f"left {clock(left)}"
        )
        self._line = line
        self._bar.update(self._task, description=line, completed=self._done)
        if now - self._said > _SECONDS_BETWEEN_LINES and not self.console.is_terminal:
            self._said = now
            self._say()

    def finish(self) -> None:
        """The pass has ended; pictures that could not be read are missing from its count."""
        self._done += (self._pictures - self._seen) * self._cost
        self._say()

    def _say(self) -> None:
        self.console.print(self._line, highlight=False, soft_wrap=True)
