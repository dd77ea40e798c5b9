"""Images with the boxes of their most probable class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vgg_keras.ilsvrc import short_label
from vgg_keras.localisation.predict import Located
from vgg_keras.text import figure_text

_COLUMNS = 4
_COLOUR = "#d8261c"  # as in the report


def located_figure(found: Located, images: Sequence[np.ndarray]) -> Figure:
    """Draws each image with the box of its most probable class, which the title names.

    Args:
        found: from `predict_boxes`.
        images: the images in the same order, upright, uint8 `(H, W, 3)`.

    Example:
        save_figure(located_figure(found, images), "boxes.png")
    """
    columns = min(len(images), _COLUMNS)
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(4 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, image, answers in zip(panels, images, found.answers(), strict=False):
        best = answers[0]
        height, width = image.shape[:2]
        left, top, right, bottom = np.array(best["box"]) * [width, height, width, height]
        panel.imshow(image)
        corner = left - 0.5, top - 0.5  # the first pixel of a panel begins there
        panel.add_patch(
            Rectangle(corner, right - left, bottom - top, fill=False, color=_COLOUR, linewidth=2.5)
        )
        title = f"{short_label(best['class'])}  {100 * best['posterior']:.0f} %"
        panel.set_title(figure_text(title), fontsize=12)
    return figure
