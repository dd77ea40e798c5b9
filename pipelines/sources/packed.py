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
_BLOCK = 16  # strings that are one string in a tensor


@dataclasses.dataclass(frozen=True, eq=False)
class PackedStrings(Sequence[str]):
    """A sequence of strings that are stored as one.

    A string takes 8 bytes more than its characters. An array of str takes four bytes for each
    character of the longest string, and a list of str about 60 bytes more than the characters.

    ```python
    paths = PackedStrings.of(["cat/a.jpg", "dog/b.jpg"])
    paths[1], paths[::-1].tolist()  # 'dog/b.jpg', ['dog/b.jpg', 'cat/a.jpg']
    ```

    Attributes:
        buffer: the bytes of all strings, as `os.fsencode` makes them, one after the other.
        offsets: int64 `(N + 1,)`; the bytes of string i are `buffer[offsets[i] : offsets[i + 1]]`.
    """

    buffer: bytes
    offsets: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        """Packs strings. Strings that are packed already are returned."""
        if isinstance(strings, PackedStrings):
            return strings
        remaining, parts, sizes = iter(strings), [], [np.zeros(1, np.int64)]
        while encoded := [os.fsencode(text) for text in itertools.islice(remaining, _CHUNK)]:
            parts.append(b"".join(encoded))
            sizes.append(np.array([len(text) for text in encoded], np.int64))
        return cls(b"".join(parts), np.cumsum(np.concatenate(sizes)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...

    @overload
    def __getitem__(self, key: slice | np.ndarray) -> PackedStrings: ...

    def __getitem__(self, key: Any) -> str | PackedStrings:
        """A string, or those that a slice or an array of indices or bools selects, packed."""
        starts, stops = self.offsets[:-1][key], self.offsets[1:][key]
        if isinstance(starts, np.ndarray):
            return PackedStrings.of(self._decoded(starts, stops))
        return os.fsdecode(self.buffer[starts:stops])

    def __iter__(self) -> Iterator[str]:
        return self._decoded(self.offsets[:-1], self.offsets[1:])

    def _decoded(self, starts: np.ndarray, stops: np.ndarray) -> Iterator[str]:
        return (os.fsdecode(self.buffer[i:j]) for i, j in zip(starts, stops, strict=True))

    def tolist(self) -> list[str]:
        """The strings as a list, like `ndarray.tolist`."""
        return list(self)

    def lookup(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Makes a function from indices to strings, int64 `(B,)` to string `(B,)`.

        Its tensors take a seventh of the time and half of the memory of a tensor of all strings.
        """
        bounds = [*self.offsets[:-1:_BLOCK], self.offsets[-1]]
        blocks = tf.constant([self.buffer[i:j] for i, j in itertools.pairwise(bounds)], tf.string)
        offsets = tf.constant(self.offsets)

        def strings_at(i: tf.Tensor) -> tf.Tensor:
            block, start = i // _BLOCK, tf.gather(offsets, i)
            start_of_block = tf.gather(offsets, block * _BLOCK)
            size = tf.gather(offsets, i + 1) - start
            return tf.strings.substr(tf.gather(blocks, block), start - start_of_block, size)

        return strings_at
