"""The localisation section of the report: errors, and images with true and predicted boxes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from vgg_keras.errors import UserError
from vgg_keras.ilsvrc import short_label
from vgg_keras.localisation.results import OVERLAP
from vgg_keras.metadata import ANSWERS_KEY, members
from vgg_keras.pipelines.boxes import iou
from vgg_keras.report import figures
from vgg_keras.report.images import read_images_of
from vgg_keras.report.results import Result, by_data, circumstances, nets_of, seeds_of
from vgg_keras.report.sheets import RIGHT, WRONG, DrawnBox, Section, Tile, image_sheet

# Results are sorted by these errors.
ERROR_KEYS = ("top5_localisation_error", "gt_class_localisation_error")
TRUE_COLOUR, PREDICTED_COLOUR = "#0065a3", "#b84a00"
_CASING = (255, 255, 255, 110)  # beside the lines, which shows them on any image
_DASH, _GAP = 9, 6  # pixels
_EXAMPLES = 8  # right ones, and as many wrong ones


def localisation_section(
    results: Sequence[Result], data_dir: str | os.PathLike | None = None
) -> dict[str, Any] | None:
    """The contents of the localisation section; None if there are no localisation results.

    Args:
        results: from `read_results`; other results are ignored.
        data_dir: where TFDS stores its data.
    """
    found = [r for r in results if any(key in r for key in ERROR_KEYS)]
    if not found:
        return None
    found.sort(key=lambda r: (*(r.get(key, np.inf) for key in ERROR_KEYS), r["file"]))
    section: dict[str, Any] = {
        "sets": {name: list(map(_summary, of_data)) for name, of_data in by_data(found).items()},
        "examples": None,
        "problem": None,
    }
    best = next((r for r in found if ANSWERS_KEY in r), None)
    if best is None:
        return section
    section["name"] = Path(best["file"]).stem
    try:
        section["examples"] = _groups(examples_of(best, data_dir))
    except UserError as error:
        section["problem"] = f"The images are not available: {error}"
    return section


def _groups(examples: Sequence[Example]) -> dict[str, list[dict[str, Any]]]:
    """Right and wrong examples as the page shows them, by heading."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in examples:
        image = with_boxes(one.image, one.true_boxes, one.box)
        heading = "Right answers" if one.right else "Wrong answers"
        groups.setdefault(heading, []).append({"example": one, "uri": image})
    return groups


def _summary(result: Result) -> dict[str, Any]:
    nets = members(result)
    return {
        "nets": nets_of(result),
        "regression": " + ".join(dict.fromkeys(m.get("regression") or "?" for m in nets)),
        "tuned": " + ".join(dict.fromkeys(m.get("tuned") or "?" for m in nets)),
        "protocol": result["protocol"],
        "errors": [result.get(key) for key in ERROR_KEYS],
        "seeds": seeds_of(result),
        "measured_on": circumstances(result),
        "file": Path(result["file"]).stem,
    }


@dataclass(frozen=True)
class Example:
    """An image with one answer: a class and a box.

    Attributes:
        name: name of the image.
        image: uint8 `(H, W, 3)`.
        true_class, true_boxes: the true class, and the true boxes as fractions of the image.
        answer_class, box: the answer.
        iou: intersection over union of the box with the nearest true box.
        right: whether the answer is right.
    """

    name: str
    image: np.ndarray
    true_class: str
    true_boxes: Sequence[Sequence[float]]
    answer_class: str
    box: Sequence[float]
    iou: float
    right: bool

    @property
    def problems(self) -> list[str]:
        """Why the answer is wrong; nothing if it is right."""
        problems = {
            "wrong class": self.answer_class != self.true_class,
            "overlap too small": self.iou <= OVERLAP,
        }
        return [] if self.right else [name for name, holds in problems.items() if holds]


def examples_of(
    result: Result, data_dir: str | os.PathLike | None = None, most: int = _EXAMPLES
) -> list[Example]:
    """Images with answers: first some with a right answer, then some without.

    Of the answers for an image, a right one is chosen. If there is none, it is the first answer
    with the true class, else the first answer.

    Args:
        result: a result with answers, as `Localised.save` writes it.
        data_dir: where TFDS stores its data.
        most: maximum number of images of either kind. They are spread evenly over the split.

    Raises:
        SourceError: the data are not available, or have no image with one of the names.

    Example:
        [example.problems for example in examples_of(found.result_with_answers())]
    """
    answered = result[ANSWERS_KEY]
    is_right = np.array([any(a["right"] for a in one["answers"]) for one in answered], bool)
    chosen = [
        answered[i]
        for right in (True, False)
        for i in _spread(np.flatnonzero(is_right == right), most)
    ]
    images = read_images_of(result, [one["image"] for one in chosen], data_dir)
    return [_example(one, images[one["image"]]) for one in chosen]


def _example(one: dict[str, Any], pixels: np.ndarray) -> Example:
    answers = one["answers"]
    answer = next(
        (a for a in answers if a["right"]),
        next((a for a in answers if a["class"] == one["class"]), answers[0]),
    )
    return Example(
        one["image"],
        pixels,
        short_label(one["class"]),
        one["boxes"],
        short_label(answer["class"]),
        answer["box"],
        float(iou(np.array(one["boxes"]), np.array(answer["box"])).numpy().max(initial=0)),
        answer["right"],
    )


def localisation_sheet(examples: Sequence[Example]) -> Figure:
    """Draws images with true and predicted boxes, those with right answers apart.

    Args:
        examples: from `examples_of`.

    Example:
        examples = examples_of(found.result_with_answers())
        save_figure(localisation_sheet(examples), "boxes.png")
    """
    headings = {
        True: (f"Right: the true class, and IoU above {OVERLAP}", RIGHT),
        False: ("Wrong", WRONG),
    }
    sections = [
        Section([_tile(one) for one in examples if one.right == right], heading, colour)
        for right, (heading, colour) in headings.items()
        if any(one.right == right for one in examples)
    ]
    return image_sheet(sections, "Dashed: true box. Solid: predicted box.")


def _tile(example: Example) -> Tile:
    boxes = [DrawnBox(box, TRUE_COLOUR, is_dashed=True) for box in example.true_boxes]
    lines = [example.answer_class, f"IoU {example.iou:.2f}", *example.problems]
    if example.answer_class != example.true_class:
        lines.append(f"is: {example.true_class}")
    boxes.append(DrawnBox(example.box, PREDICTED_COLOUR))
    return Tile(example.image, lines, RIGHT if example.right else WRONG, boxes=boxes)


def with_boxes(
    image: np.ndarray, true: Sequence[Sequence[float]], predicted: Sequence[float], side: int = 240
) -> str:
    """An image with its true boxes, dashed, and the predicted box, as a data URI.

    Args:
        image: uint8 `(H, W, 3)`.
        true: true boxes, `[x_min, y_min, x_max, y_max]` as fractions of the image size.
        predicted: the predicted box, in the same form.
        side: length of the longer side in pixels; smaller images are enlarged.
    """
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shown = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(shown, "RGBA")
    dashes = [dash for box in true for dash in _dashes(_corners(box, size))]
    for colour, thickness in ((_CASING, 5), (TRUE_COLOUR, 3)):
        for dash in dashes:
            draw.line(dash, colour, thickness)
    left, top, right, bottom = _corners(predicted, size)
    draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline=_CASING, width=5)
    draw.rectangle([left, top, right, bottom], outline=PREDICTED_COLOUR, width=3)
    return figures.image_uri(shown)


def _dashes(corners: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """The dashes of the four sides of a box: their two ends in pixels."""
    left, top, right, bottom = corners
    for x in range(left, right + 1, _DASH + _GAP):
        for y in (top, bottom):
            yield x, y, min(x + _DASH, right), y
    for y in range(top, bottom + 1, _DASH + _GAP):
        for x in (left, right):
            yield x, y, x, min(y + _DASH, bottom)


def _corners(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixels of a box; it has one pixel at least."""
    left, top, right, bottom = (
        round(share * extent) for share, extent in zip(box, (*size, *size), strict=True)
    )
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _spread(indices: np.ndarray, most: int) -> list[int]:
    """At most `most` of the indices, evenly spread."""
    if len(indices) <= most:
        return indices.tolist()
    return indices[np.linspace(0, len(indices) - 1, most).astype(int)].tolist()
