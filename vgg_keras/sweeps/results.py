"""What a sweep has come to: its trials as rows, a table, and a picture of depth and scale."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from vgg_keras.callbacks.journal import read_journal
from vgg_keras.callbacks.progress import clock
from vgg_keras.errors import SweepError
from vgg_keras.nets import get_net, weight_layers
from vgg_keras.sweeps.space import Sweep, scale_text
from vgg_keras.sweeps.trials import JOURNAL, TUNER, run_path, score

Row = dict[str, Any]
_COMPLETED = "COMPLETED"


def read_trials(folder: Path) -> list[Row]:
    """The trials of a sweep, the best first, those that are not done last.

    Returns:
        A row each: `net`, `train_scale`, `width`, `run` (its folder), `status`, `epochs`;
        `parameters` and `multiply_adds` of a crop; and of those that are done `error` (the
        objective, percent), `top1_error`, `top5_error` and `seconds`.

    Raises:
        SweepError: there is no sweep, or it has no trials yet.
    """
    sweep = Sweep.load(folder)
    rows = [
        _row(sweep, folder, json.loads(file.read_text()))
        for file in sorted((folder / TUNER).glob("trial_*/trial.json"))
    ]
    if not rows:
        raise SweepError(f"{folder} holds no trials yet.")
    return sorted(rows, key=lambda row: row.get("error", math.inf))


def best_run(folder: Path) -> Path:
    """Run folder of the best trial.

    Raises:
        SweepError: no trial is done.
    """
    best = read_trials(folder)[0]
    if "error" not in best:
        raise SweepError(f"No trial of {folder} is done yet.")
    return Path(best["run"])


def _row(sweep: Sweep, folder: Path, trial: dict) -> Row:
    point = sweep.point_of(trial["hyperparameters"]["values"])
    path = run_path(folder, point, trial["trial_id"] if sweep.tuner == "hyperband" else None)
    crop = sweep.recipe.crop_size
    layers = weight_layers(get_net(point.net), _num_classes(path), crop, point.width)
    row = {
        "net": point.net,
        "weight_layers": get_net(point.net).weight_layers,
        "train_scale": list(point.train_scale),
        "width": point.width,
        "run": str(path),
        "status": trial["status"],
        "epochs": len(read_journal(path / JOURNAL)),
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }
    return row | (score(path, sweep.objective) if trial["status"] == _COMPLETED else {})


def _num_classes(path: Path) -> int:
    file = path / "classes.json"
    return len(json.loads(file.read_text())) if file.exists() else 1000


def trials_table(rows: Sequence[Row], title: str) -> Table:
    """The trials for people."""
    table = Table(title=title)
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
        is_done = "error" in row
        table.add_row(
            f"{row['net']} ({row['weight_layers']})",
            scale_text(tuple(row["train_scale"])),
            f"{row['width']:g}",
            f"{row['top1_error']:.1f} %" if is_done else row["status"].lower(),
            f"{row['top5_error']:.1f} %" if is_done else "",
            str(row["epochs"]),
            clock(row["seconds"]) if is_done else "",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.3f} G",
        )
    return table


def sweep_figure(rows: Sequence[Row], objective: str) -> Figure:
    """Error by depth and scale, and against parameters, time and multiply-adds.

    Args:
        rows: from `read_trials`; those that are not done are left out.
        objective: "top5" or "top1".

    Raises:
        SweepError: none is done.
    """
    done = [row for row in rows if "error" in row]
    if not done:
        raise SweepError("No trial is done yet, so there is nothing to draw.")
    label = f"validation {objective[:3]}-{objective[3:]} error (%)"
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    (depth, *others) = figure.subplots(2, 2).ravel()
    _draw_depth_and_scale(depth, done, label)
    axes = {
        "parameters": (1e6, "parameters (millions)"),
        "seconds": (60, "time (minutes)"),
        "multiply_adds": (1e9, "multiply-adds a crop (billions)"),
    }
    for panel, (key, (unit, title)) in zip(others, axes.items(), strict=True):
        _draw_against(panel, done, key, unit)
        values = [row[key] for row in done]
        xscale = "log" if max(values) > 10 * min(values) else "linear"
        panel.set(xlabel=title, ylabel=label, xscale=xscale)
    others[0].legend(title="S, width", fontsize="small")
    return figure


def _setting(row: Row) -> str:
    return f"{scale_text(tuple(row['train_scale']))}, {row['width']:g}"


def _draw_depth_and_scale(panel: Axes, rows: Sequence[Row], label: str) -> None:
    by_size = sorted(rows, key=lambda row: (row["width"], row["train_scale"]))
    columns = list(dict.fromkeys(map(_setting, by_size)))
    nets = list(dict.fromkeys(r["net"] for r in sorted(rows, key=lambda r: r["weight_layers"])))
    errors = [[math.nan] * len(columns) for _ in nets]
    for row in rows:  # of several trials at one place, as Hyperband has, the best
        i, j = nets.index(row["net"]), columns.index(_setting(row))
        errors[i][j] = min(row["error"], errors[i][j]) if errors[i][j] >= 0 else row["error"]
    panel.imshow(errors, cmap="YlGnBu", aspect="auto")
    flat = [e for line in errors for e in line if e >= 0]
    middle = (min(flat) + max(flat)) / 2
    for i, line in enumerate(errors):
        for j, error in enumerate(line):
            if error >= 0:
                colour = "white" if error > middle else "#222222"
                panel.text(j, i, f"{error:.1f}", ha="center", va="center", color=colour)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(nets)), [f"{n} ({get_net(n).weight_layers})" for n in nets])
    panel.set(xlabel="S, width", ylabel="net (weight layers)", title=label)


def _draw_against(panel: Axes, rows: Sequence[Row], key: str, unit: float) -> None:
    for colour, setting in enumerate(sorted(set(map(_setting, rows)))):
        some = sorted((r for r in rows if _setting(r) == setting), key=lambda r: r[key])
        x, y = [r[key] / unit for r in some], [r["error"] for r in some]
        panel.plot(x, y, "o-", lw=0.8, color=f"C{colour}", label=setting)
        for row, place in zip(some, zip(x, y, strict=True), strict=True):
            panel.annotate(row["net"], place, xytext=(4, 4), textcoords="offset points")
    panel.grid(alpha=0.3)
