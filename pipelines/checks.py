"""Checks of arguments, each with one wording."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from vgg_keras.pipelines.errors import ArgumentError

if TYPE_CHECKING:  # the command line imports this module before NumPy is needed
    import numpy as np


def check_choice(argument: str, value: object, allowed: Collection[object]) -> None:
    """Raises ArgumentError if `value` is not one of the allowed values."""
    if value not in allowed:
        listed = ", ".join(map(str, allowed))
        raise ArgumentError(f"{argument} must be one of {listed}. Received: {value!r}", argument)


def check_at_least(argument: str, value: float, least: float) -> None:
    """Raises ArgumentError if `value` is below `least` or not a number."""
    if not value >= least:
        raise ArgumentError(
            f"{argument} must be {least} or more. Received: {argument}={value}", argument
        )


def indices_of(
    wanted: Iterable[str], names: Sequence[str], missing: Callable[[str], Exception]
) -> np.ndarray:
    """Index of each wanted name in `names`, int64 `(len(wanted),)`.

    Args:
        wanted: names to look up, in any order.
        names: where to look them up; all different.
        missing: makes the exception to raise from the first wanted name that is not there.
    """
    import numpy as np

    index = {name: i for i, name in enumerate(names)}
    wanted = list(wanted)
    for name in wanted:
        if name not in index:
            raise missing(name)
    return np.array([index[name] for name in wanted], np.int64)


def is_finite(array: np.ndarray) -> bool:
    """Whether all values are finite. No array of the results is made, to save memory.

    ```python
    is_finite(np.array([1.0, np.nan]))  # False
    ```
    """
    import numpy as np

    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def normal_form(name: str) -> str:
    """NFC of a name. Systems and editors write one name in different Unicode forms."""
    return unicodedata.normalize("NFC", name)


def are_same_names(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether names are the same in the same order, in any Unicode forms."""
    return [*map(normal_form, some)] == [*map(normal_form, others)]


def first_few(names: Sequence[str], count: int = 3) -> str:
    """The first names between commas, and `...` if there are more."""
    return ", ".join(names[:count]) + ", ..." * (len(names) > count)


def check_test_scale(test_scale: int, crop_size: int) -> None:
    """Raises ArgumentError if images of a test scale are smaller than the crop."""
    if test_scale < crop_size:
        raise ArgumentError(
            f"A test scale must be at least the crop size, {crop_size}. Received: {test_scale}",
            "test_scales",
        )
