"""The data of a plan: opened if a step still needs them, and compared with those of earlier calls.

This module does not import TensorFlow.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypedDict

from vgg_keras.errors import SourceError
from vgg_keras.reproduction.plan import Plan
from vgg_keras.reproduction.steps import ExtractFeatures, Step

if TYPE_CHECKING:
    from vgg_keras.pipelines.splits import Source

log = logging.getLogger(__name__)


class ImagesOfSplit(TypedDict):
    """The number of images of a split, and a digest of their names and of those of the classes."""

    images: int
    names: str


Images = dict[str, ImagesOfSplit]  # by the name of the split


def describe(source: Source) -> Images:
    """Describes data by names alone, which stay the same in a copy on another machine."""
    return {
        name: {
            "images": len(split),
            "names": _digest([*source.class_names, "", *split.ids_of(range(len(split)))]),
        }
        for name, split in source.splits.items()
    }


def changes(begun: Images, now: Images) -> str:
    """How data differ, in words; "" if they do not."""
    found = []
    for name in begun.keys() | now.keys():
        then, today = (images.get(name, {"images": 0, "names": ""}) for images in (begun, now))
        if then["images"] != today["images"]:
            found.append(f"{name}: {then['images']} images then, {today['images']} now")
        elif then != today:
            found.append(f"{name}: images or classes of other names")
    return "; ".join(sorted(found))


def open_data(
    plan: Plan, steps: Iterable[Step], open_one: Callable[[str, bool], Source]
) -> dict[str, Source]:
    """Opens the data that some steps need. Data that cannot be opened only stop their own steps.

    Args:
        plan: the plan.
        steps: steps of the plan.
        open_one: opens data; the second argument is whether images may have several labels.

    Raises:
        SourceError: data are needed, and none can be opened.
    """
    needed = {
        data: isinstance(step, ExtractFeatures) for step in steps if (data := plan.data_of(step))
    }
    opened: dict[str, Source] = {}
    errors: list[SourceError] = []
    for data, several_labels in needed.items():
        try:
            opened[data] = open_one(data, several_labels)
        except SourceError as error:
            errors.append(error)
    if errors and not opened:
        raise errors[0]
    for error in errors:
        log.warning("The steps on some data will fail: %s", error)
    return opened


def _digest(names: Iterable[str]) -> str:
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
