"""Short texts for objects that hold arrays and long lists of names."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SHOWN = 3  # elements of a long sequence or mapping


class ShortRepr:
    """Gives a dataclass with `repr=False` a text that is short for any number of images.

    ```python
    @dataclass(repr=False)
    class Table(ShortRepr):
        names: tuple[str, ...]
        values: np.ndarray

    Table(tuple("abcde"), np.zeros((5, 7)))
    # Table(names=('a', 'b', 'c', ... 5 in all), values=<float64 (5, 7)>)
    ```
    """

    def __repr__(self: Any) -> str:
        shown = (field.name for field in dataclasses.fields(self) if field.repr)
        fields = ", ".join(f"{name}={short(getattr(self, name))}" for name in shown)
        return f"{type(self).__name__}({fields})"


class CountRepr:
    """Gives a split its name and its number of images as text."""

    def __repr__(self: Any) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} images)"


def short(value: Any) -> str:
    """An array by its dtype and shape, a long sequence or mapping by its beginning and length."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, Mapping):
        pairs = itertools.islice(value.items(), _SHOWN)
        return _listed("{}", [f"{key!r}: {short(one)}" for key, one in pairs], len(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _listed("()", map(short, itertools.islice(value, _SHOWN)), len(value))
    return repr(value)


def _listed(brackets: str, shown: Iterable[str], number: int) -> str:
    more = f", ... {number} in all" if number > _SHOWN else ""
    return f"{brackets[0]}{', '.join(shown)}{more}{brackets[1]}"
