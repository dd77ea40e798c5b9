"""Functions that all benchmarks use: repetitions in turn, ratios, machine and report."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table


def in_turn(tasks: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Runs all tasks once, then all again, so that a slower machine slows all of them.

    Args:
        tasks: functions that each return a figure, by name.
        repetitions: number of rounds.

    Returns:
        The figures of each task, one for each round.
    """
    figures: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repetitions):
        for name, task in tasks.items():
            figures[name].append(task())
    return figures


def ratios(figures: Mapping[str, list[float]], name: str, other: str) -> dict[str, float]:
    """Median, smallest and greatest ratio of the figures of two tasks, taken round by round."""
    pairs = [a / b for a, b in zip(figures[name], figures[other], strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def machine() -> dict:
    """The devices, the number of cores, and versions; can be written as JSON."""
    import tensorflow as tf

    from vgg_keras.hardware import hardware

    return {
        "devices": [hardware()],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,  # its package has several names
        **{name: metadata.version(name) for name in ("keras", "numpy", "pillow")},
    }


def report(result: dict, rows: list[tuple], columns: tuple[str, ...], out: Path | None) -> None:
    """Prints rows as a table, and writes the result to the file `out` as JSON."""
    table = Table(title=result["benchmark"])
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
