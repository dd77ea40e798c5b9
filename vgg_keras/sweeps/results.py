"""Results of a sweep: its trials as rows, as a table and as a figure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from rich.table import Table

from vgg_keras.callbacks.journal import read_journal
from vgg_keras.callbacks.progress import clock
from vgg_keras.errors import SweepError
from vgg_keras.net_files import read_class_names
from vgg_keras.nets import get_net, weight_layers
from vgg_keras.pipelines.contents import naming_file, parse_json
from vgg_keras.run_files import CLASSES, JOURNAL
from vgg_keras.sweeps.space import TUNER_FOLDER, Sweep, scale_text
from vgg_keras.sweeps.trials import has_diverged, run_path, score
from vgg_keras.text import printable

TrialRow = dict[str, Any]
_COMPLETED = "COMPLETED"  # as Keras Tuner writes it


def read_trials(folder: str | os.PathLike) -> list[TrialRow]:
    """The trials of a sweep: the lowest error first, unfinished trials last.

    Returns:
        One row for each trial: `net`, `weight_layers`, `train_scale`, `width`, `run` (its folder),
        `status` (Keras Tuner's, or "DIVERGED"), `epochs`, `parameters`, and `multiply_adds` for one
        crop. Finished trials also have `error` (the objective in percent), `top1_error`,
        `top5_error` and `seconds`.

    Raises:
        SweepError: the folder holds no sweep, the sweep has no trials yet, or a file of a trial is
            damaged.
    """
    folder = Path(folder)
    sweep = Sweep.load(folder)
    files = sorted((folder / TUNER_FOLDER).glob("trial_*/trial.json"))
    rows = [_row(sweep, folder, file) for file in files]
    if not rows:
        raise SweepError(f"The sweep in {folder} has no trials yet.")
    return sorted(rows, key=lambda row: row.get("error", math.inf))


def best_run(folder: str | os.PathLike) -> Path:
    """Run folder of the trial with the lowest error.

    Raises:
        SweepError: the folder holds no sweep, or no trial has finished.

    Example:
        net = TrainedNet.load(best_run("sweeps/x"))
    """
    best = read_trials(folder)[0]
    if "error" not in best:
        raise SweepError(f"No trial of the sweep in {folder} has finished yet.")
    return Path(best["run"])


class _Values(TypedDict):
    values: dict[str, Any]


class _Trial(TypedDict):
    """What is used of a file of Keras Tuner."""

    trial_id: str
    status: str
    hyperparameters: _Values


def _row(sweep: Sweep, folder: Path, file: Path) -> TrialRow:
    with naming_file(file, SweepError, "is damaged; continuing the sweep writes it again"):
        trial = parse_json(file.read_bytes(), _Trial)
        point = sweep.point_of(trial["hyperparameters"]["values"])
    path = run_path(folder, point, trial["trial_id"] if sweep.tuner == "hyperband" else None)
    crop = sweep.recipe.crop_size
    layers = weight_layers(get_net(point.net), _num_classes(path), crop, point.width)
    status = "DIVERGED" if has_diverged(path) else trial["status"]
    row = {
        "net": point.net,
        "weight_layers": get_net(point.net).weight_layers,
        "train_scale": list(point.train_scale),
        "width": point.width,
        "run": str(path),
        "status": status,
        "epochs": len(read_journal(path / JOURNAL)),
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }
    return row | (score(path, sweep.objective) if status == _COMPLETED else {})


def _num_classes(path: Path) -> int:
    """Number of classes of a run; ILSVRC's if the run has not started."""
    return len(read_class_names(path)) if (path / CLASSES).exists() else 1000


def trials_table(rows: Sequence[TrialRow], title: str) -> Table:
    """The trials as a table for the terminal.

    Args:
        rows: from `read_trials`.
        title: title of the table.
    """
    table = Table(title=printable(title))
    table.add_column("net (layers)")
    for column in (
        "S",
        "width",
        "top-1 error",
        "top-5 error",
        "epochs",
        "time",
        "parameters",
        "multiply-adds",
    ):
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        has_finished = "error" in row
        table.add_row(
            f"{row['net']} ({row['weight_layers']})",
            scale_text(tuple(row["train_scale"])),
            f"{row['width']:g}",
            f"{row['top1_error']:.1f} %" if has_finished else row["status"].lower(),
            f"{row['top5_error']:.1f} %" if has_finished else "",
            str(row["epochs"]),
            clock(row["seconds"]) if has_finished else "",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.3f} G",
        )
    return table


def sweep_figure(rows: Sequence[TrialRow], objective: str) -> Figure:
    """Draws the error by depth and scale, and against parameters, time and multiply-adds.

    Args:
        rows: from `read_trials`; unfinished trials are ignored.
        objective: "top5" or "top1".

    Raises:
        SweepError: no trial has finished.
    """
    finished = [row for row in rows if "error" in row]
    if not finished:
        raise SweepError("No trial has finished yet, so there is nothing to draw.")
    label = f"validation {objective[:3]}-{objective[3:]} error (%)"
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    (depth, *others) = figure.subplots(2, 2).ravel()
    _draw_depth_and_scale(depth, finished, label)
    axes = {
        "parameters": (1e6, "parameters (millions)"),
        "seconds": (60, "time (minutes)"),
        "multiply_adds": (1e9, "multiply-adds per crop (billions)"),
    }
    for panel, (key, (unit, title)) in zip(others, axes.items(), strict=True):
        _draw_against(panel, finished, key, unit)
        _set_ticks(panel, [row[key] / unit for row in finished])
        panel.set(xlabel=title, ylabel=label)
    others[0].legend(title="S, width", fontsize="small")
    return figure


def _setting(row: TrialRow) -> str:
    return f"{scale_text(tuple(row['train_scale']))}, {row['width']:g}"


def _draw_depth_and_scale(panel: Axes, rows: Sequence[TrialRow], label: str) -> None:
    """Draws a heat map of the errors: one row per net, one column per scale and width."""
    by_size = sorted(rows, key=_size)
    columns = list(dict.fromkeys(map(_setting, by_size)))
    nets = list(dict.fromkeys(r["net"] for r in sorted(rows, key=lambda r: r["weight_layers"])))
    errors = [[math.nan] * len(columns) for _ in nets]
    for row in rows:  # Hyperband has several trials for a point; the lowest error is drawn
        i, j = nets.index(row["net"]), columns.index(_setting(row))
        errors[i][j] = min(row["error"], errors[i][j]) if errors[i][j] >= 0 else row["error"]
    panel.imshow(errors, cmap="YlGnBu", aspect="auto")
    flat = [e for row_errors in errors for e in row_errors if e >= 0]
    middle = (min(flat) + max(flat)) / 2
    for i, row_errors in enumerate(errors):
        for j, error in enumerate(row_errors):
            if error >= 0:
                colour = "white" if error > middle else "#222222"
                panel.text(j, i, f"{error:.1f}", ha="center", va="center", color=colour)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(nets)), [f"{n} ({get_net(n).weight_layers})" for n in nets])
    panel.set(xlabel="S, width", ylabel="net (weight layers)", title=label)


def _draw_against(panel: Axes, rows: Sequence[TrialRow], key: str, unit: float) -> None:
    """Draws the errors against a measure of cost: a point for each trial, a colour for S and width.

    The points are not joined: neither the cost nor the error of what lies between is known.
    """
    settings = list(dict.fromkeys(map(_setting, sorted(rows, key=_size))))
    for setting in settings:
        points = [(r[key] / unit, r["error"], r["net"]) for r in rows if _setting(r) == setting]
        x, y, nets = zip(*points, strict=True)
        panel.plot(x, y, "o", label=setting)
        for net, of_x, of_y in zip(nets, x, y, strict=True):
            panel.annotate(net, (of_x, of_y), xytext=(5, 4), textcoords="offset points")
    panel.grid(alpha=0.3)
    panel.margins(x=0.08, y=0.08)  # the names of the nets stay inside


def _size(row: TrialRow) -> tuple[float, list[int]]:
    return row["width"], row["train_scale"]


def _set_ticks(panel: Axes, values: Sequence[float]) -> None:
    """Sets few ticks with different labels: 1, 2, 5, 10, ... if the values span a decade."""
    axis = panel.xaxis
    if max(values) > 10 * min(values):
        panel.set_xscale("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axis.set_minor_formatter(NullFormatter())
