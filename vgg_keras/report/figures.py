"""Learning curves and sheets of predictions, as PNG."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot: no window system is needed

from callbacks.journal import read_journal
from pipelines.files import aside


def learning_curves(runs: Mapping[str, str | os.PathLike], out: str | os.PathLike) -> None:
    """Cross-entropy and top-1 error against epochs, a colour a run, as a PNG file.

    Training is dashed, validation solid; a dotted line marks a drop of the learning rate.

    Args:
        runs: journal files by the label to show.
        out: PNG file to write.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = {"cross_entropy": "cross-entropy", "top1_error": "top-1 error (%)"}
    axes = dict(zip(panels, figure.subplots(1, 2), strict=True))
    for colour, (label, path) in enumerate(runs.items()):
        entries = read_journal(path)
        epochs = [entry["epoch"] for entry in entries]
        for key, panel in axes.items():
            style = {"color": f"C{colour}"}
            panel.plot(epochs, [e[key] for e in entries], "--", alpha=0.6, **style)
            panel.plot(epochs, [e[f"val_{key}"] for e in entries], label=label, **style)
            for before, after in itertools.pairwise(entries):
                if after["learning_rate"] < before["learning_rate"]:
                    panel.axvline(after["epoch"] - 0.5, ls=":", lw=0.8, **style)
    for key, panel in axes.items():
        panel.set_xlabel("epoch")
        panel.set_ylabel(panels[key])
        panel.grid(alpha=0.3)
        panel.legend(title="solid: validation, dashed: training", title_fontsize="small")
    _save(figure, out)


def prediction_sheet(
    images: np.ndarray,
    posteriors: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    out: str | os.PathLike,
    title: str = "",
) -> None:
    """A sheet of pictures, each with its three most probable classes, as a PNG file.

    Args:
        images: `(N, H, W, 3)`, RGB in 0..255.
        posteriors: `(N, classes)`.
        labels: true classes.
        class_names: all names.
        out: PNG file to write.
        title: of the sheet.
    """
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.65 * rows), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in grid:
        panel.axis("off")
    for panel, image, row, label in zip(grid, images, posteriors, labels, strict=False):
        panel.imshow(np.clip(image, 0, 255).astype(np.uint8))
        _caption(panel, row, label, class_names)
    _save(figure, out)


def _caption(panel: Axes, row: np.ndarray, label: int, class_names: Sequence[str]) -> None:
    best = np.argsort(-row, kind="stable")[:3]
    lines = [f"{class_names[k]} {100 * row[k]:.0f} %" for k in best]
    right = best[0] == label
    if not right:
        lines.append(f"is: {class_names[label]}")
    panel.set_title("\n".join(lines), fontsize=8, color="darkgreen" if right else "firebrick")


def _save(figure: Figure, out: str | os.PathLike) -> None:
    with aside(Path(out)) as path:
        figure.savefig(path, dpi=110, format="png")
