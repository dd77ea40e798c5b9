"""The embedded data set: drawn shapes, as a TFDS builder that makes its own images.

There are ten classes of shapes, of any size and position, on a cluttered, paler background. Each
image has one labelled box. A class has a usual colour, as objects in photos do, but the colours of
neighbouring classes overlap: colour alone is not enough. The set is drawn in seconds, and a small
net learns it in minutes.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFilter

CLASSES = (
    "circle",
    "ring",
    "triangle",
    "square",
    "pentagon",
    "star",
    "cross",
    "crescent",
    "heart",
    "arrow",
)
IMAGES = {"train": 1600, "val": 400}
_OVERSAMPLING = 2  # shapes are drawn at this scale and reduced
_HUE_SPREAD = 0.07  # standard deviation in turns of the colour circle; classes are 0.1 apart

_Drawer = Callable[[ImageDraw.ImageDraw, int], None]


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Drawn shapes of ten classes, one labelled box an image; the same on every machine."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn shapes of ten classes, with boxes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "file_name": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(names=CLASSES),
                        }
                    ),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        return {name: self._generate_examples(name) for name in IMAGES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(IMAGES[split]):
            label = index % len(CLASSES)
            jpeg, (left, top, right, bottom) = draw_example(split, index, CLASSES[label])
            box = tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right)
            yield (
                index,
                {
                    "image": io.BytesIO(jpeg),
                    "file_name": f"{split}_{index:04d}_{CLASSES[label]}.jpg",
                    "label": label,
                    "objects": [{"bbox": box, "label": label}],
                },
            )


def draw_example(
    split: str, index: int, class_name: str
) -> tuple[bytes, tuple[float, float, float, float]]:
    """Draws one image of a class, as JPEG, with the box of the shape.

    Returns:
        The bytes, and (left, top, right, bottom) as shares of width and height.
    """
    rng = np.random.default_rng([list(IMAGES).index(split), index])
    short = int(rng.integers(96, 161))
    long = int(short * rng.uniform(1.0, 1.6))
    width, height = (long, short) if rng.random() < 0.5 else (short, long)
    canvas = _background(rng, width * _OVERSAMPLING, height * _OVERSAMPLING)
    mask, box = _shape_mask(rng, class_name, canvas.size)
    hue = CLASSES.index(class_name) / len(CLASSES) + rng.normal(0, _HUE_SPREAD)
    canvas.paste(_colour(hue, rng.uniform(0.7, 1.0), rng.uniform(0.5, 1.0)), (0, 0), mask)
    image = canvas.resize((width, height), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(0, 12), (height, width, 1))
    image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
    sides = np.array([canvas.width, canvas.height] * 2)
    left, top, right, bottom = (float(v) for v in np.asarray(box) / sides)
    return buffer.getvalue(), (left, top, right, bottom)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A smooth colour gradient with a few faint lines, which belong to no class."""
    coarse = [
        [_colour(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.1, 0.9)) for _ in range(2)]
        for _ in range(2)
    ]
    canvas = Image.fromarray(np.array(coarse, np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 7))):
        ends = [(int(rng.integers(0, width)), int(rng.integers(0, height))) for _ in range(2)]
        colour = _colour(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.1, 0.9))
        pen.line(ends, fill=colour, width=int(rng.integers(1, 6)))
    return canvas.filter(ImageFilter.GaussianBlur(2))


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _shape_mask(
    rng: np.random.Generator, class_name: str, size: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int, int, int] | None]:
    """An 8-bit mask with the shape at a random angle and position, and its box in mask pixels."""
    side = int(min(size) * rng.uniform(0.35, 0.8))
    stamp = Image.new("L", (side, side), 0)
    _DRAWERS[class_name](ImageDraw.Draw(stamp), side)
    stamp = stamp.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
    inner = stamp.getbbox()
    stamp = stamp.crop(inner)
    x = int(rng.integers(0, max(1, size[0] - stamp.width + 1)))
    y = int(rng.integers(0, max(1, size[1] - stamp.height + 1)))
    mask = Image.new("L", size, 0)
    mask.paste(stamp, (x, y))
    return mask, mask.getbbox()


def _points(side: int, polar: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pixels of points that are given as (radius in half sides, clockwise turns from the top)."""
    half = (side - 1) / 2
    return [
        (half + half * r * math.sin(2 * math.pi * t), half - half * r * math.cos(2 * math.pi * t))
        for r, t in polar
    ]


def _regular(corners: int, turn: float = 0.0) -> _Drawer:
    """Draws a regular polygon."""
    polar = [(1.0, turn + k / corners) for k in range(corners)]
    return lambda pen, side: pen.polygon(_points(side, polar), fill=255)


def _polygon(*unit: tuple[float, float]) -> _Drawer:
    """Draws a polygon whose corners are given as shares of the side."""
    return lambda pen, side: pen.polygon(
        [(x * (side - 1), y * (side - 1)) for x, y in unit], fill=255
    )


def _ellipse(
    pen: ImageDraw.ImageDraw,
    side: int,
    left: float,
    top: float,
    right: float,
    bottom: float,
    fill: int,
) -> None:
    pen.ellipse([left * side, top * side, right * side - 1, bottom * side - 1], fill=fill)


def _circle(pen: ImageDraw.ImageDraw, side: int) -> None:
    _ellipse(pen, side, 0, 0, 1, 1, 255)


def _ring(pen: ImageDraw.ImageDraw, side: int) -> None:
    _ellipse(pen, side, 0, 0, 1, 1, 255)
    _ellipse(pen, side, 0.25, 0.25, 0.75, 0.75, 0)


def _crescent(pen: ImageDraw.ImageDraw, side: int) -> None:
    _ellipse(pen, side, 0, 0, 1, 1, 255)
    _ellipse(pen, side, 0.35, 0.05, 1.25, 0.95, 0)


def _heart(pen: ImageDraw.ImageDraw, side: int) -> None:
    _ellipse(pen, side, 0.02, 0.05, 0.54, 0.57, 255)
    _ellipse(pen, side, 0.46, 0.05, 0.98, 0.57, 255)
    _polygon((0.06, 0.44), (0.94, 0.44), (0.5, 0.98))(pen, side)


_STAR = [(1.0 if k % 2 == 0 else 0.42, k / 10) for k in range(10)]
_DRAWERS = {
    "circle": _circle,
    "ring": _ring,
    "triangle": _regular(3),
    "square": _polygon((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)),
    "pentagon": _regular(5),
    "star": lambda pen, side: pen.polygon(_points(side, _STAR), fill=255),
    "cross": _polygon(
        *((0.35, 0.0), (0.65, 0.0), (0.65, 0.35), (1.0, 0.35), (1.0, 0.65), (0.65, 0.65)),
        *((0.65, 1.0), (0.35, 1.0), (0.35, 0.65), (0.0, 0.65), (0.0, 0.35), (0.35, 0.35)),
    ),
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _polygon(
        *((0.0, 0.35), (0.55, 0.35), (0.55, 0.1), (1.0, 0.5)),
        *((0.55, 0.9), (0.55, 0.65), (0.0, 0.65)),
    ),
}
