"""Figures of runs and predictions.

Each function that draws returns a Matplotlib figure. `save_figure` writes it to a file, and
`figure_uri` turns it into a data URI, which an HTML page can hold.
"""

from __future__ import annotations

import base64
import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # pyplot would need a window system
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.spines import Spine
from matplotlib.text import Text
from PIL import Image

from vgg_keras.nets import STRIDE
from vgg_keras.pipelines.files import atomic_path
from vgg_keras.report.sheets import INK, RIGHT, WRONG, Section, Tile, image_sheet
from vgg_keras.text import figure_text

_SVG = "image/svg+xml"
# Colours of text in an image on a light and on a dark page, as in page.html.j2.
_SCHEMES = (
    f"svg {{ color: {INK} }} @media (prefers-color-scheme: dark) {{ svg {{ color: #e2e7ec }} }}"
)


def prediction_sheet(
    images: Sequence[np.ndarray],
    posteriors: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """Draws images of equal height on a sheet, each with its three most probable classes.

    Args:
        images: N images `(H, W, 3)`, RGB, 0 to 255.
        posteriors: `(N, classes)`.
        labels: indices of the true classes, `(N,)`.
        class_names: names of all classes.
        title: title of the sheet.
    """
    tiles = [
        Tile(image, *_caption(row, label, class_names))
        for image, row, label in zip(images, posteriors, labels, strict=True)
    ]
    return image_sheet([Section(tiles)], title)


def class_error_bars(
    errors: np.ndarray, class_names: Sequence[str], most: int = 40, width: float = 7.5
) -> Figure:
    """Draws the top-1 error of each class as a bar, the greatest first.

    Args:
        errors: percentages `(classes,)`; classes with NaN are ignored.
        class_names: names of all classes.
        most: maximum number of classes to draw.
        width: width in inches.
    """
    order = np.argsort(-errors, kind="stable")  # NaN is sorted last
    order = order[~np.isnan(errors[order])][:most]
    figure = Figure(figsize=(width, 0.9 + 0.27 * len(order)), layout="constrained")
    panel = figure.subplots()
    bars = panel.barh(range(len(order)), errors[order], color="#4472a8")
    panel.set_yticks(range(len(order)), [figure_text(class_names[k]) for k in order])
    panel.bar_label(bars, fmt="%.1f", padding=3, fontsize="small")
    panel.invert_yaxis()
    panel.set_xlabel("top-1 error (%)")
    panel.set_xlim(0, max(1.0, errors[order].max() * 1.12))
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws the percentage of the images of each class (rows) by predicted class (columns).

    Args:
        counts: number of images by true and predicted class, `(classes, classes)`.
        class_names: names of all classes.
    """
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.6 + 0.42 * len(counts)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(counts))
    names = list(map(figure_text, class_names))
    panel.set_xticks(ticks, names, rotation=60, ha="right", rotation_mode="anchor")
    panel.set_yticks(ticks, names)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    for i, j in zip(*np.nonzero(shares >= 0.5), strict=True):
        colour = "white" if shares[i, j] > 55 else "#333333"
        panel.text(
            j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=8.5, color=colour
        )
    figure.colorbar(image, ax=panel, label="share of the true class (%)", shrink=0.75)
    return figure


def score_maps(
    images: Mapping[int, np.ndarray],
    maps: Mapping[int, np.ndarray],
    crop_size: int,
    origins: np.ndarray,
    label: str,
) -> Figure:
    """Draws the score map of a class over an image at each test scale, and the grid of crops.

    Args:
        images: the rescaled image by test scale, `(H, W, 3)`, RGB, 0 to 255.
        maps: scores of the class at each position by test scale, `(h, w)`.
        crop_size: side of the square that each position of the map depends on. Neighbouring
            squares are 32 pixels apart.
        origins: first rows and first columns of the crops in the last image, `(2, grid)`.
        label: label of the colour bar.
    """
    widths = [image.shape[1] / image.shape[0] for image in images.values()]
    ratios = [*widths, widths[-1]]
    height = min(2.6, 9.7 / sum(ratios))
    figure = Figure(figsize=(height * sum(ratios) + 1.4, height + 0.75), layout="constrained")
    panels = figure.subplots(1, len(ratios), gridspec_kw={"width_ratios": ratios}, squeeze=False)[0]
    low = min(m.min() for m in maps.values())
    high = max(m.max() for m in maps.values())
    for panel, (scale, image) in zip(panels, images.items(), strict=False):
        h, w = maps[scale].shape
        first = crop_size / 2 - STRIDE / 2
        extent = (first, first + STRIDE * w, first + STRIDE * h, first)
        panel.imshow(_pixels(image))
        shown = panel.imshow(
            maps[scale], extent=extent, cmap="inferno", alpha=0.55, vmin=low, vmax=high
        )
        panel.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        panel.set_title(f"Q = {scale}: {h} x {w} positions", fontsize=9)
    _draw_crop_grid(panels[-1], images[scale], crop_size, origins)
    for panel in panels:
        panel.axis("off")
    label = textwrap.fill(
        figure_text(label), 24
    )  # a class name can be longer than the figure is high
    figure.colorbar(shown, ax=list(panels[:-1]), label=label, shrink=0.85, location="left")
    return figure


def _draw_crop_grid(panel: Axes, image: np.ndarray, crop_size: int, origins: np.ndarray) -> None:
    rows, columns = origins
    panel.imshow(_pixels(255 - 0.55 * (255.0 - image)))  # pale on a ground of any colour
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            is_end = (i, j) in ((0, 0), (len(rows) - 1, len(columns) - 1))
            width, colour = (2.2, "#d62728") if is_end else (0.6, "#222222")
            side = crop_size - 1
            panel.add_patch(Rectangle((left, top), side, side, fill=False, lw=width, ec=colour))
    panel.set_title(f"{len(rows)} x {len(columns)} crops of {crop_size} pixels", fontsize=9)


def _pixels(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).astype(np.uint8)


def _caption(row: np.ndarray, label: int, class_names: Sequence[str]) -> tuple[list[str], str]:
    """Lines of the caption of an image, and their colour."""
    best = np.argsort(-row, kind="stable")[:3]
    lines = [f"{class_names[k]} {100 * row[k]:.0f}\N{NO-BREAK SPACE}%" for k in best]
    if best[0] == label:
        return lines, RIGHT
    return [*lines, f"is: {class_names[label]}"], WRONG


def save_figure(figure: Figure, out: str | os.PathLike) -> None:
    """Writes a figure with an atomic write, in the format that the name ends with, such as .jpg.

    If it is none of Matplotlib's formats, a PNG file is written.

    Raises:
        OSError: the file cannot be written.
    """
    kind = Path(out).suffix[1:].lower()
    with atomic_path(Path(out)) as path:
        known = kind in figure.canvas.get_supported_filetypes()
        figure.savefig(path, dpi=110, format=kind if known else "png")


def figure_uri(figure: Figure) -> str:
    """A chart with a transparent ground as a data URI, which is the same for the same figure."""
    return as_data_uri(_svg(figure, transparent=True), _SVG)


def _svg(figure: Figure, **ground: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "vgg_keras"}):  # ids that do not change
        figure.savefig(buffer, dpi=150, format="svg", metadata={"Date": None}, **ground)
    return buffer.getvalue()


def themed_uri(figure: Figure) -> str:
    """A figure with photos as a data URI. Its text and axes follow the colour scheme of the page.

    The figure is changed.
    """
    for text in figure.findobj(Text):
        text.set_color(INK)
    for spine in figure.findobj(Spine):  # of the colour bar; panels have no axes
        spine.set_color(INK)
    for tick in figure.findobj(Line2D):
        tick.set(color=INK, markeredgecolor=INK)
    svg = _svg(figure, facecolor="none").decode()
    for paint in ("fill", "stroke"):
        svg = svg.replace(f"{paint}: {INK}", f"{paint}: currentColor")
    return as_data_uri(svg.replace("</style>", f"{_SCHEMES}</style>", 1).encode(), _SVG)


def thumbnail_uri(image: np.ndarray, size: int = 176) -> str:
    """An image as a data URI, reduced so that its longer side has at most `size` pixels."""
    small = Image.fromarray(_pixels(image))
    small.thumbnail((size, size))
    return image_uri(small)


def image_uri(image: Image.Image) -> str:
    """A Pillow image as a data URI with a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return as_data_uri(buffer.getvalue(), "image/jpeg")


def as_data_uri(content: bytes, media_type: str) -> str:
    """The content of a file as a data URI (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
