"""Validation images that are held out of data without a `val` split: `folder:DIR?val=0.1`."""

from __future__ import annotations

import hashlib
import os
from typing import cast

import numpy as np

from vgg_keras.pipelines.checks import normal_form
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.orders import IndexedSplit, StreamedSplit
from vgg_keras.pipelines.splits import TRAIN, VALIDATION, Source, Split

_OPTION = "val="


def take_fraction(spec: str, location: str) -> tuple[str, float | None]:
    """Takes `val=FRACTION` out of the query of a location.

    A file or folder whose own name ends like that is not changed, and neither is a value that is no
    number, for which `folder:` has a use of its own.

    ```python
    take_fraction("folder:photos?val=0.1", "photos?val=0.1")  # 'photos', 0.1
    ```

    Returns:
        The location without `val=`, and the fraction; None if there is none.

    Raises:
        SourceError: the fraction is not above 0 and below 1.
    """
    name, mark, query = location.rpartition("?")
    options = query.split("&")
    given = [option for option in options if option.startswith(_OPTION)] if mark else []
    if not given or os.path.exists(os.path.expanduser(location)):
        return location, None
    try:
        fractions = [float(option.removeprefix(_OPTION)) for option in given]
    except ValueError:
        return location, None
    if len(fractions) > 1 or not 0 < fractions[0] < 1:
        raise SourceError(
            f"The fraction of the images to hold out must be above 0 and below 1, as in "
            f"folder:DIR?val=0.1. Received: {spec!r}"
        )
    others = "&".join(option for option in options if option not in given)
    return (f"{name}?{others}" if others else name), fractions[0]


def hold_out(source: Source, fraction: float) -> Source:
    """Divides the split `train`, else the split `all`, into `train` and `val`.

    The same fraction of each class is held out, rounded, but at least one image. The images are
    chosen by a hash of their ids. So they depend neither on the machine nor on where the data are,
    and few change sides if images are added.

    Args:
        source: the data.
        fraction: fraction of the images of each class, above 0 and below 1.

    Raises:
        SourceError: there is a split `val`, or a class has a single image.
    """
    if VALIDATION in source.splits:
        raise SourceError(
            f"{source.spec}: images can be held out only of data without the split val. Leave out "
            f"the fraction. Received: the splits {', '.join(source.splits)}"
        )
    name = TRAIN if TRAIN in source.splits else "all"
    whole = cast(IndexedSplit | StreamedSplit, source[name])  # as those of all kinds are
    is_held_out = _stratified(source.spec, whole, fraction)
    splits = {
        TRAIN: whole.selected(~is_held_out, TRAIN),
        VALIDATION: whole.selected(is_held_out, VALIDATION),
    }
    others = {key: split for key, split in source.splits.items() if key != name}
    return Source(source.spec, source.class_names, splits | others, source.advice)


def _stratified(spec: str, split: Split, fraction: float) -> np.ndarray:
    """Which images are held out, bool `(N,)`."""
    _, classes, counts = np.unique(split.all_labels(), return_inverse=True, return_counts=True)
    single = np.flatnonzero(counts[classes] == 1)
    if len(single):
        raise SourceError(
            f"{spec}: each class must have two images or more, for train and for val. Received: "
            f"{split.names_of(single[:1])[0]} as the only image of its class"
        )
    wanted = np.clip(np.floor(fraction * counts + 0.5), 1, counts - 1)
    ids = split.ids_of(range(len(split)))
    order = np.lexsort((np.array([_hash(text) for text in ids], np.uint64), classes))
    rank_in_class = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held_out = np.zeros(len(order), bool)
    is_held_out[order] = rank_in_class < np.repeat(wanted, counts)
    return is_held_out


def _hash(text: str) -> int:
    """A number that is the same on every system."""
    content = normal_form(text).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
