"""Sheets of images of equal height, each with a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from vgg_keras.text import figure_text, printable

INK, RIGHT, WRONG = "#1d2733", "#2b6e2f", "#a3241c"
_FONT_SIZE = 10  # points
_LINE = 0.178  # inches: height of a line of a caption
_CHARACTER = 0.082  # inches: width of a character, on average
_NARROWEST = 1.2  # inches: width that a caption has at least
_GAP, _MARGIN, _HEADING = 0.16, 0.14, 0.34  # inches


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw on an image.

    Attributes:
        edges: `[x_min, y_min, x_max, y_max]` as fractions of the image size.
        colour: Matplotlib colour.
        is_dashed: whether the line is dashed.
    """

    edges: Sequence[float]
    colour: str
    is_dashed: bool = False


@dataclass(frozen=True)
class Tile:
    """An image of a sheet.

    Attributes:
        image: `(H, W, 3)`, RGB, 0 to 255.
        lines: lines of the caption below it. Long ones are broken.
        colour: colour of the caption.
        frame: colour of the frame; None for no frame.
        boxes: boxes to draw on the image.
    """

    image: np.ndarray
    lines: Sequence[str]
    colour: str = INK
    frame: str | None = None
    boxes: Sequence[DrawnBox] = ()


@dataclass(frozen=True)
class Section:
    """Images that follow each other, from the left to the right in as many rows as they need.

    Attributes:
        tiles: the images.
        heading: text above them; "" for none.
        colour: colour of the heading.
    """

    tiles: Sequence[Tile]
    heading: str = ""
    colour: str = INK


@dataclass(frozen=True)
class _Placed:
    tile: Tile
    left: float  # inches
    width: float
    lines: Sequence[str]


def image_sheet(
    sections: Sequence[Section], title: str = "", *, height: float = 1.6, width: float = 6.4
) -> Figure:
    """Draws images of equal height in rows, with their captions below them.

    Args:
        sections: the images.
        title: text above all.
        height: height of each image in inches.
        width: largest width of a row in inches; a row has one image at least. The default keeps
            captions readable on a screen of 500 pixels.

    Example:
        save_figure(image_sheet([Section([Tile(image, ["a cat"])])]), "sheet.png")
    """
    rows = [(section, list(_rows(section, height, width))) for section in sections]
    placed = [row for _, of_section in rows for row in of_section]
    headings = [title, *(section.heading for section in sections)]
    total = sum(height + _below(row) for row in placed) + _HEADING * sum(map(bool, headings))
    widest = max((row[-1].left + row[-1].width for row in placed), default=0)
    longest = max(len(line) * _CHARACTER * 1.2 for line in headings)
    figure = Figure(figsize=(max(widest, longest) + 2 * _MARGIN, total + 2 * _MARGIN))
    top = _MARGIN
    if title:
        top = _head(figure, title, INK, top)
    for section, of_section in rows:
        if section.heading:
            top = _head(figure, section.heading, section.colour, top)
        for row in of_section:
            for one in row:
                _draw(figure, one, top, height)
            top += height + _below(row)
    return figure


def _rows(section: Section, height: float, width: float) -> Iterator[list[_Placed]]:
    row: list[_Placed] = []
    left = 0.0
    for tile in section.tiles:
        rows, columns = tile.image.shape[:2]
        of_image = height * columns / rows
        slot = max(of_image, _NARROWEST)
        if row and left + slot > width:
            yield row
            row, left = [], 0.0
        characters = int(slot / _CHARACTER)
        lines = [part for line in tile.lines for part in _wrapped(line, characters)]
        row.append(_Placed(tile, left, of_image, lines))
        left += slot + _GAP
    if row:
        yield row


def _wrapped(line: str, characters: int) -> list[str]:
    return textwrap.wrap(printable(line), characters, break_on_hyphens=False) or [""]


def _below(row: Sequence[_Placed]) -> float:
    """Height of the captions of a row and of the space below them."""
    return _GAP + _LINE * max(len(one.lines) for one in row)


def _head(figure: Figure, text: str, colour: str, top: float) -> float:
    x, y = _share(figure, _MARGIN, top)
    figure.text(x, y, figure_text(text), fontsize=11, fontweight="bold", color=colour, va="top")
    return top + _HEADING


def _draw(figure: Figure, placed: _Placed, top: float, height: float) -> None:
    tile, (rows, columns) = placed.tile, placed.tile.image.shape[:2]
    x, y = _share(figure, _MARGIN + placed.left, top + height)
    share = placed.width / figure.get_figwidth(), height / figure.get_figheight()
    panel = figure.add_axes((x, y, *share))
    panel.imshow(np.clip(tile.image, 0, 255).astype(np.uint8), aspect="auto")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(tile.frame is not None)
    panel.spines[:].set(color=tile.frame or INK, linewidth=3.5)
    for box in tile.boxes:
        left, upper, right, lower = np.array(box.edges) * [columns, rows, columns, rows]
        panel.add_patch(
            Rectangle(
                (left - 0.5, upper - 0.5),  # the first pixel of a panel begins there
                right - left,
                lower - upper,
                fill=False,
                color=box.colour,
                linewidth=2.2,
                linestyle=(0, (3, 2)) if box.is_dashed else "solid",
                path_effects=[withStroke(linewidth=3.4, foreground="white", alpha=0.7)],
            )
        )
    below = top + height + (0.06 if tile.frame else 0.03)
    for i, line in enumerate(placed.lines):
        x, y = _share(figure, _MARGIN + placed.left, below + i * _LINE)
        figure.text(
            x, y, figure_text(line), fontsize=_FONT_SIZE, color=tile.colour, va="top", gid="caption"
        )


def _share(figure: Figure, left: float, top: float) -> tuple[float, float]:
    """A point in inches from the upper left corner, as Matplotlib takes it."""
    return left / figure.get_figwidth(), 1 - top / figure.get_figheight()
