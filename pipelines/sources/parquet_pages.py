"""Sizes of the pages of a Parquet column, from their headers.

A reader allocates what a page's header declares, so the headers are checked before pages are read.
Headers are Thrift's compact protocol, `PageHeader` in Parquet's parquet.thrift.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_LONGEST_HEADER = 2**16
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 2, 3  # fields of a PageHeader
_DEEPEST = 8  # structures in structures
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_INTEGERS, _LISTS = (4, 5, 6), (9, 10)


class Page(NamedTuple):
    """Bytes of a page in the file and in memory."""

    compressed: int
    uncompressed: int


def page_sizes(descriptor: int, start: int, stop: int) -> Iterator[Page]:
    """The sizes of the pages of a column chunk.

    Args:
        descriptor: of the open file.
        start, stop: first byte of the column chunk, and the byte after its last.

    Raises:
        ValueError: a header is damaged, or a page does not end inside the column chunk.
    """
    while start < stop:
        header = _Header(os.pread(descriptor, min(_LONGEST_HEADER, stop - start), start))
        try:
            sizes = header.integers()
            page = Page(sizes[_COMPRESSED_SIZE], sizes[_UNCOMPRESSED_SIZE])
        except (IndexError, KeyError, RecursionError) as error:
            raise ValueError(f"the page at byte {start} has a damaged header") from error
        start += header.position + page.compressed
        if min(page) < 0 or start > stop:
            raise ValueError(f"a page of {page.compressed} bytes ends after its column")
        yield page


class _Header:
    """A structure in Thrift's compact protocol.

    Attributes:
        position: number of bytes that have been read.
    """

    def __init__(self, content: bytes):
        self.content = content
        self.position = 0

    def integers(self, depth: int = 0) -> dict[int, int]:
        """Reads a structure; returns its integers by the numbers of their fields."""
        if depth > _DEEPEST:
            raise RecursionError
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) != _STOP:
            field = field + (head >> 4) if head >> 4 else self._integer()
            value = self._value(head & 15, depth)
            if value is not None:
                found[field] = value
        return found

    def _value(self, kind: int, depth: int) -> int | None:
        if kind in _INTEGERS:
            return self._integer()
        if kind in _LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(min(count, _LONGEST_HEADER)):
                self._value(_BYTE if head & 15 in (_TRUE, _FALSE) else head & 15, depth + 1)
        elif kind == _STRUCT:
            self.integers(depth + 1)
        elif kind in (_BYTE, _DOUBLE, _BINARY):
            length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint()
            self.position += length
        elif kind not in (_TRUE, _FALSE):  # these two have no bytes
            raise IndexError(kind)
        return None

    def _byte(self) -> int:
        byte = self.content[self.position]
        self.position += 1
        return byte

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise IndexError

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
