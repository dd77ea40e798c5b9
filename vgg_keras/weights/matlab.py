"""MAT-files of version 5, as far as nets need them: cells, structs, text and numbers.

Written from "MAT-File Format" (MathWorks), whose names the constants have. SciPy reads such files
too, but a damaged one can crash it, and it holds a variable in memory whole.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.weights.stored import StoredTensor, refuse_expansion

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15  # miMATRIX, miCOMPRESSED
_CELL, _STRUCT, _CHAR = 1, 2, 4  # mxCELL_CLASS, mxSTRUCT_CLASS, mxCHAR_CLASS
_CLASSES = {6: "float64", 7: "float32"}  # mxDOUBLE_CLASS, mxSINGLE_CLASS
# miINT8 to miUINT64, and the kinds of text
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_DEEPEST, _MOST = 16, 10_000  # nested arrays, and parts of one, in any sensible net


@contextlib.contextmanager
def open_variables(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Variables of a file: cells as lists, structs as dictionaries, text as strings.

    Numbers are `StoredTensor`s, read when they are wanted. A compressed variable is unpacked to a
    temporary file.

    Raises:
        WeightsError: the file is damaged, or no MAT-file of version 5.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        header = file.read(_HEADER)
        if len(header) < _HEADER or header[-2:] not in (b"IM", b"MI"):
            raise WeightsError(f"{path} is no MAT-file of version 5 (save it with -v7).")
        order: Literal["little", "big"] = "little" if header[-2:] == b"IM" else "big"
        variables = {}
        place, end, unpacked_bytes = _HEADER, os.path.getsize(path), 0
        while place < end:
            part = _Part(file, order, end)
            kind, start, length, place = part.tag(place)
            if kind == _COMPRESSED:
                unpacked = stack.enter_context(tempfile.TemporaryFile())
                place = start + length  # these are not padded
                size = _unpack(path, file, start, length, unpacked, unpacked_bytes)
                unpacked_bytes += size
                part = _Part(unpacked, order, size)
                kind, start, length, _ = part.tag(0)
            if kind == _MATRIX:
                name, value = part.matrix(start, start + length, names)
                if name in names:
                    variables[name] = value
        yield variables


def _unpack(
    path: Path, file: IO[bytes], start: int, length: int, target: IO[bytes], so_far: int
) -> int:
    """Decompresses into `target`; returns the size. All variables may not grow too far."""
    inflate, size = zlib.decompressobj(), 0
    file.seek(start)
    while length > 0 and not inflate.eof:
        data = file.read(min(length, 2**20))
        length -= len(data)
        if not data:
            raise WeightsError("it is cut off")
        out = b""
        while data or len(out) == 2**20:
            out = inflate.decompress(data, 2**20)
            size += target.write(out)
            refuse_expansion(path, so_far + size)
            data = inflate.unconsumed_tail
    return size


class _Part:
    """A run of data elements in a file."""

    def __init__(self, file: IO[bytes], order: Literal["little", "big"], end: int):
        self.file, self.order, self.end = file, order, end

    def tag(self, place: int, end: int | None = None) -> tuple[int, int, int, int]:
        """Type, first byte, length and successor of the element at a place."""
        end = self.end if end is None else end
        first = self._numbers(place, 4, "u4", end)[0]
        if first >> 16:  # a small element: both in four bytes, and the data in the next four
            kind, length, start = first & 0xFFFF, first >> 16, place + 4
            after = place + 8
        else:
            kind, length, start = first, int(self._numbers(place + 4, 4, "u4", end)[0]), place + 8
            after = start + length + (-length % 8)
        if start + length > end:
            raise WeightsError(
                f"it is cut off or damaged: at byte {place} an element claims {length} bytes of "
                f"{end - start}"
            )
        return int(kind), start, int(length), int(after)

    def _numbers(self, start: int, length: int, kind: str, end: int | None = None) -> np.ndarray:
        if start + length > (self.end if end is None else end):
            raise WeightsError("it is cut off")
        self.file.seek(start)
        data = self.file.read(length)
        return np.frombuffer(data, np.dtype(kind).newbyteorder(self.order))

    def _plain(self, place: int, end: int) -> tuple[np.ndarray, int]:
        """Numbers of a small part of an array, such as its dimensions, and what comes after."""
        kind, start, length, after = self.tag(place, end)
        if kind not in _TYPES or length > 2**16:
            raise WeightsError(f"it is damaged at byte {place}")
        return self._numbers(start, length, _TYPES[kind]), after

    def matrix(
        self, place: int, end: int, names: tuple[str, ...] = (), depth: int = 0
    ) -> tuple[str, Any]:
        """Name and value of an array; the value only if it is one of `names`, where there are any.

        Its parts: flags, dimensions, name, and then what its class has.
        """
        if place == end:
            return "", []
        if depth > _DEEPEST:
            raise WeightsError("its arrays are nested too deeply")
        flags, place = self._plain(place, end)
        shape, place = self._plain(place, end)
        name, place = self._plain(place, end)
        text = name.tobytes().decode("latin-1")
        if names and text not in names:
            return text, None
        kind, sides = int(flags[0]) & 0xFF, tuple(map(int, shape))
        if min(sides, default=-1) < 0:
            raise WeightsError(f"it is damaged: an array of shape {sides}")
        if kind == _CELL:
            return text, self._arrays(place, end, math.prod(sides), depth)[0]
        if kind == _STRUCT:
            return text, self._structs(place, end, math.prod(sides), depth)
        return text, self._values(place, end, kind, sides)

    def _arrays(self, place: int, end: int, count: int, depth: int) -> tuple[list[Any], int]:
        if count > _MOST:
            raise WeightsError(f"it is damaged: an array of {count:,} parts")
        values = []
        for _ in range(count):
            kind, start, length, place = self.tag(place, end)
            if kind != _MATRIX:
                raise WeightsError(f"it is damaged before byte {start}")
            values.append(self.matrix(start, start + length, depth=depth + 1)[1])
        return values, place

    def _structs(self, place: int, end: int, count: int, depth: int) -> Any:
        """A dictionary; a list of them where there is not just one."""
        longest, place = self._plain(place, end)
        names, place = self._plain(place, end)
        width = max(1, int(longest[0]))
        fields = [
            names.tobytes()[i : i + width].split(b"\0")[0].decode("latin-1")
            for i in range(0, names.nbytes, width)
        ]
        values, _ = self._arrays(place, end, count * len(fields), depth)
        structs = [dict(zip(fields, values[i * len(fields) :], strict=False)) for i in range(count)]
        return structs[0] if count == 1 else structs

    def _values(self, place: int, end: int, kind: int, shape: tuple[int, ...]) -> Any:
        """Text, or numbers that are read later."""
        stored, start, length, _ = self.tag(place, end)
        if stored not in _TYPES:
            raise WeightsError(f"it is damaged at byte {place}")
        dtype = np.dtype(_TYPES[stored])
        if length != math.prod(shape) * dtype.itemsize:
            raise WeightsError(f"it is damaged: an array of shape {shape} has {length} bytes")
        if kind == _CHAR:
            return "".join(map(chr, self._plain(place, end)[0]))
        name = _CLASSES.get(kind, f"class {kind}")

        def read() -> np.ndarray:
            return self._numbers(start, length, _TYPES[stored]).reshape(shape, order="F")

        return StoredTensor(shape, name, read)
