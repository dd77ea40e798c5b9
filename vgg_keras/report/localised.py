"""The report's section on localisation: errors, and photos with true and predicted boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vgg_keras.ilsvrc import short_label
from vgg_keras.localisation.results import IMAGES_KEY
from vgg_keras.metadata import members
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.evaluation import read_pictures
from vgg_keras.pipelines.sources import open_source
from vgg_keras.report import figures
from vgg_keras.report.tables import circumstances, nets_of

ERRORS = ("top5_localisation_error", "gt_class_localisation_error")  # the first one counts
TRUE, FOUND = "#36a13c", "#d8261c"
_PHOTOS = 8  # right ones, and as many wrong ones


def section(results: Sequence[dict], data_dir: str | os.PathLike | None) -> dict[str, Any] | None:
    """What the page shows of localisation, or None where there are no such results.

    Args:
        results: from `read_results`, others among them.
        data_dir: where TFDS keeps its data.
    """
    found = [r for r in results if any(key in r for key in ERRORS)]
    if not found:
        return None
    found.sort(key=lambda r: (*(r.get(key, np.inf) for key in ERRORS), r["file"]))
    kept = next((r for r in found if IMAGES_KEY in r), None)
    shown: dict[str, Any] = {
        "results": [_summary(result) for result in found],
        "photos": None,
        "problem": None,
    }
    if kept is None:
        return shown
    shown["name"] = Path(kept["file"]).stem
    try:
        shown["photos"] = photos_of(kept, data_dir)
    except SourceError as error:
        shown["problem"] = f"The pictures are not at hand: {error}"
    return shown


def _summary(result: dict) -> dict[str, Any]:
    nets = members(result)
    return {
        "nets": nets_of(result),
        "regression": " + ".join(dict.fromkeys(m.get("regression", "?") for m in nets)),
        "tuned": " + ".join(dict.fromkeys(m.get("tuned", "?") for m in nets)),
        "protocol": result["protocol"],
        "errors": [result.get(key) for key in ERRORS],
        "of": circumstances(result),
        "file": Path(result["file"]).stem,
    }


def photos_of(
    kept: dict, data_dir: str | os.PathLike | None = None, most: int = _PHOTOS
) -> list[dict[str, Any]]:
    """Photos with true and predicted boxes: some that are right, then some that are wrong.

    Of each the answer that is right is shown, or else the first one with the true class, or the
    first one.

    Args:
        kept: a result with `IMAGES_KEY`, as `Localised.save` writes it.
        data_dir: where TFDS keeps its data.
        most: photos of either kind; spread evenly over the split.

    Returns:
        For each `image`, a data URI, `name`, `true`, `predicted` and `right`.

    Raises:
        SourceError: the data are not at hand, or not those of the result.
    """
    pictures = kept[IMAGES_KEY]
    is_right = np.array([any(a["right"] for a in p["answers"]) for p in pictures], bool)
    chosen = [
        i for right in (True, False) for i in _spread(np.flatnonzero(is_right == right), most)
    ]
    split = open_source(kept["data"], data_dir, prepare=False)[kept["split"]]
    places = {name: i for i, name in enumerate(split.ids_of(range(len(split))))}
    missing = [pictures[i]["image"] for i in chosen if pictures[i]["image"] not in places]
    if missing:
        raise SourceError(f"{missing[0]} is not among them.")
    images = read_pictures(split, [places[pictures[i]["image"]] for i in chosen])
    shown = []
    for i in chosen:
        picture, answers = pictures[i], pictures[i]["answers"]
        answer = next(
            (a for a in answers if a["right"]),
            next((a for a in answers if a["class"] == picture["class"]), answers[0]),
        )
        pixels = images[places[picture["image"]]]
        shown.append(
            {
                "image": with_boxes(pixels, picture["boxes"], answer["box"]),
                "name": picture["image"],
                "true": short_label(picture["class"]),
                "predicted": short_label(answer["class"]),
                "right": bool(is_right[i]),
            }
        )
    return shown


def with_boxes(
    image: np.ndarray, true: Sequence[Sequence[float]], found: Sequence[float], side: int = 240
) -> str:
    """A picture with its true boxes in green and the predicted one in red, as a data URI.

    Args:
        image: uint8 `(H, W, 3)`.
        true, found: `[x_min, y_min, x_max, y_max]` in shares of the picture.
        side: of the longer side when shown, pixels; small pictures are enlarged.
    """
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shown = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(shown)
    for box, colour in (*((box, TRUE) for box in true), (found, FOUND)):
        corners = [round(share * extent) for share, extent in zip(box, (*size, *size), strict=True)]
        right, bottom = max(corners[2] - 1, corners[0]), max(corners[3] - 1, corners[1])
        draw.rectangle([*corners[:2], right, bottom], outline=colour, width=3)
    return figures.image_uri(shown)


def _spread(places: np.ndarray, most: int) -> list[int]:
    if len(places) <= most:
        return places.tolist()
    return places[np.linspace(0, len(places) - 1, most).astype(int)].tolist()
