"""Strings by the million, such as the paths of a data set."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import tensorflow as tf

_CHUNK = 65_536  # strings that are encoded at once


@dataclasses.dataclass(frozen=True, eq=False)
class PackedStrings(Sequence[str]):
    """A sequence of strings that shares one buffer of bytes.

    A string costs 16 bytes beside its own, in Python and in TensorFlow. An array of str takes four
    bytes for each character of the longest string, and a tensor of strings takes minutes to become
    a constant of a graph.

    ```python
    paths = PackedStrings.of(["cat/a.jpg", "dog/b.jpg"])
    paths[1], paths[::-1].tolist()  # 'dog/b.jpg', ['dog/b.jpg', 'cat/a.jpg']
    ```

    Attributes:
        buffer: the bytes of all strings, as `os.fsencode` makes them.
        starts, stops: int64 `(N,)`; the bytes of string i are `buffer[starts[i] : stops[i]]`.
    """

    buffer: bytes
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        """Packs strings. Strings that are packed already are returned."""
        if isinstance(strings, PackedStrings):
            return strings
        remaining, parts, sizes = iter(strings), [], [np.zeros(0, np.int64)]
        while encoded := [os.fsencode(text) for text in itertools.islice(remaining, _CHUNK)]:
            parts.append(b"".join(encoded))
            sizes.append(np.array([len(text) for text in encoded], np.int64))
        stops = np.cumsum(np.concatenate(sizes))
        return cls(b"".join(parts), np.concatenate([[0], stops])[: len(stops)], stops)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, key: int) -> str: ...

    @overload
    def __getitem__(self, key: slice | np.ndarray) -> PackedStrings: ...

    def __getitem__(self, key: Any) -> str | PackedStrings:
        """A string, or the strings that a slice or an array of indices or bools selects."""
        starts, stops = self.starts[key], self.stops[key]
        if isinstance(starts, np.ndarray):
            return PackedStrings(self.buffer, starts, stops)
        return os.fsdecode(self.buffer[starts:stops])

    def __iter__(self) -> Iterator[str]:
        for start, stop in zip(self.starts, self.stops, strict=True):
            yield os.fsdecode(self.buffer[start:stop])

    def tolist(self) -> list[str]:
        """The strings as a list, as arrays have it."""
        return list(self)

    def lookup(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Makes a function from an index to its string, for `Dataset.map`. It copies the buffer."""
        buffer, starts = tf.constant(self.buffer), tf.constant(self.starts)
        sizes = tf.constant(self.stops - self.starts)
        return lambda i: tf.strings.substr(buffer, starts[i], sizes[i])
