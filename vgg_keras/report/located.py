"""Images with the boxes of their most probable class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vgg_keras.ilsvrc import short_label
from vgg_keras.localisation.predict import Located
from vgg_keras.report.sheets import DrawnBox, Section, Tile, image_sheet

_COLOUR = "#d8261c"


def located_figure(found: Located, images: Sequence[np.ndarray]) -> Figure:
    """Draws each image with the box of its most probable class, which the caption names.

    Args:
        found: from `predict_boxes`.
        images: the images in the same order, upright, uint8 `(H, W, 3)`.

    Example:
        save_figure(located_figure(found, images), "boxes.png")
    """
    tiles = []
    for image, (best, *_) in zip(images, found.answers(), strict=True):
        title = f"{short_label(best['class'])}  {100 * best['posterior']:.0f} %"
        tiles.append(Tile(image, [title], boxes=[DrawnBox(best["box"], _COLOUR)]))
    return image_sheet([Section(tiles)], height=3.2, width=14)
