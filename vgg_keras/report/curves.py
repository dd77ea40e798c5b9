"""Learning curves of runs."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vgg_keras.callbacks.journal import read_journal
from vgg_keras.errors import RunError
from vgg_keras.net_files import read_recipe
from vgg_keras.report.paper import Tested
from vgg_keras.run_files import JOURNAL, RECIPE
from vgg_keras.text import figure_text

_STYLES = "solid: validation, dashed: training, dotted: the learning rate drops"
_DISTINCT = 10  # number of colours of Matplotlib's cycle


def journals_of(runs: Sequence[str | os.PathLike]) -> dict[str, Path]:
    """Journal files of runs by label: net, training scale and folder, as in "D, S = 256 (d)".

    The label has the path of the folder if other runs have the same name, and the folder alone if
    it has no recipe.

    Example:
        save_figure(learning_curves(journals_of(["runs/a", "runs/d"])), "curves.png")
    """
    paths = list(map(Path, runs))
    names = [path.name for path in paths]
    folders = [p.name if names.count(p.name) == 1 and p.name else str(p) for p in paths]
    return {_label(p, folder): p / JOURNAL for p, folder in zip(paths, folders, strict=True)}


def _label(run: Path, folder: str) -> str:
    try:
        recipe = read_recipe(run / RECIPE)
    except RunError:  # the curves need the journal only
        return folder
    net, scale, _ = Tested(recipe.net, recipe.train_scale, ()).cells
    return f"{net}, S = {scale} ({folder})"


def learning_curves(runs: Mapping[str, str | os.PathLike], *, narrow: bool = False) -> Figure:
    """Draws loss and error against epochs, one colour for each run.

    The panels show cross-entropy and top-1 error. For localisation runs they show the loss with
    its penalty and the localisation error. Training is dashed, validation solid; a dotted line
    marks a drop of the learning rate.

    Args:
        runs: journal files, by the label of the run.
        narrow: whether to draw one panel below the other, for narrow screens.

    Example:
        save_figure(learning_curves({"A": "runs/a/journal.jsonl"}), "curves.png")
    """
    journals = {label: read_journal(path) for label, path in runs.items()}
    keys = {key for entries in journals.values() for entry in entries for key in entry}
    panels = {"cross_entropy": "cross-entropy (loss without L2)", "top1_error": "top-1 error (%)"}
    if "localisation_error" in keys:
        panels = {"loss": "loss", "localisation_error": "localisation error (%)"}
    columns = 1 if narrow else 2
    height = 0.4 + 0.2 * math.ceil(len(runs) / columns)  # of the legend
    figure = Figure(
        figsize=(4.6, 6.4 + height) if narrow else (11, 3.9 + height), layout="constrained"
    )
    axes = figure.subplots(len(panels) // columns, columns)
    for (key, name), panel in zip(panels.items(), axes, strict=True):
        lines = [
            _draw_run(panel, entries, key, colour)
            for entries, colour in zip(journals.values(), _colours(len(journals)), strict=True)
        ]
        panel.set_xlabel("epoch")
        panel.set_ylabel(name)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
    _add_legend(figure, lines, list(journals), columns)
    return figure


def _colours(number: int) -> list:
    """As many different colours."""
    if number <= _DISTINCT:
        return [f"C{i}" for i in range(number)]
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, number)))


def _draw_run(panel: Axes, entries: Sequence[Mapping], key: str, colour: object) -> Line2D:
    """Draws one run; returns the line of validation."""
    epochs = [entry["epoch"] for entry in entries]
    training, validation = (
        [entry.get(name, math.nan) for entry in entries] for name in (key, f"val_{key}")
    )
    panel.plot(epochs, training, "--", alpha=0.6, color=colour)
    (line,) = panel.plot(epochs, validation, color=colour)
    for before, after in itertools.pairwise(entries):
        if _rate(after) < _rate(before):
            panel.axvline(after["epoch"] - 0.5, ls=":", lw=0.8, color=colour)
    return line


def _rate(entry: Mapping[str, float | None]) -> float:
    """The learning rate of an epoch; NaN, which is below no rate, if the journal has none."""
    rate = entry.get("learning_rate")
    return math.nan if rate is None else rate


def _add_legend(
    figure: Figure, lines: Sequence[Line2D], labels: Sequence[str], columns: int
) -> None:
    """Adds a legend. Matplotlib would ignore labels that begin with an underscore."""
    legend = figure.legend(
        lines,
        ["label"] * len(lines),
        title=_STYLES,
        title_fontsize=9,
        fontsize=9,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(figure_text(label))
