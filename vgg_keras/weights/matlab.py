"""Reads the parts of MAT-files of version 5 that nets need: cells, structs, text and numbers.

The constants have the names of "MAT-File Format" (MathWorks). SciPy also reads such files, but a
damaged file can crash it, and it reads whole variables into memory.
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
from vgg_keras.weights.stored import StoredTensor, refuse_expansion, refuse_repeated

_HEADER = 128
_HDF5 = b"MATLAB 7.3"
_MATRIX, _COMPRESSED = 14, 15  # miMATRIX, miCOMPRESSED
_CELL, _STRUCT, _CHAR = 1, 2, 4  # mxCELL_CLASS, mxSTRUCT_CLASS, mxCHAR_CLASS
_CLASSES = {6: "float64", 7: "float32"}  # mxDOUBLE_CLASS, mxSINGLE_CLASS
# miINT8 to miUINT64, miUTF8 and miUTF16
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
# Limits on nesting and on the number of elements of an array. Nets are far below them.
_MAX_DEPTH, _MAX_COUNT = 16, 10_000


@contextlib.contextmanager
def open_variables(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Opens the variables of a file. Compressed variables are unpacked to temporary files.

    Args:
        path: the file.
        names: names of the variables to return. Other variables are ignored.

    Yields:
        Values by name: cells as lists, structs as dictionaries, text as strings, and numbers as
        `StoredTensor`s, which are read on demand.

    Raises:
        WeightsError: the file is damaged, or is not a MAT-file of version 5.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        header = file.read(_HEADER)
        if header.startswith(_HDF5):
            raise WeightsError(
                f"{path} is a MAT-file of version 7.3. Load it in MATLAB and save it with -v7."
            )
        if len(header) < _HEADER or header[-2:] not in (b"IM", b"MI"):
            raise WeightsError(f"{path} is not a MAT-file of version 5. Save it with -v7.")
        order: Literal["little", "big"] = "little" if header[-2:] == b"IM" else "big"
        variables: dict[str, Any] = {}
        offset, end, unpacked_bytes = _HEADER, os.path.getsize(path), 0
        while offset < end:
            elements = _Elements(file, order, end)
            kind, start, length, offset = elements.tag(offset)
            if kind == _COMPRESSED:
                unpacked = stack.enter_context(tempfile.TemporaryFile())
                offset = start + length  # compressed elements are not padded
                size = _unpack(path, file, start, length, unpacked, unpacked_bytes)
                unpacked_bytes += size
                elements = _Elements(unpacked, order, size)
                kind, start, length, _ = elements.tag(0)
            if kind == _MATRIX:
                name, value = elements.matrix(start, start + length, names)
                if name in variables:
                    raise WeightsError(f"{name} must be stored once. Received: two variables")
                if name in names:
                    variables[name] = value
        yield variables


def _unpack(
    path: Path, file: IO[bytes], start: int, length: int, target: IO[bytes], so_far: int
) -> int:
    """Decompresses a variable into `target` and returns its size.

    `so_far` is the size of the variables before it, for the limit on the size of all together.
    """
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


class _Elements:
    """The data elements in a file. All positions are byte offsets."""

    def __init__(self, file: IO[bytes], order: Literal["little", "big"], end: int):
        self.file, self.order, self.end = file, order, end

    def tag(self, offset: int, end: int | None = None) -> tuple[int, int, int, int]:
        """Type, offset of the data, length of the data and offset of the next element."""
        end = self.end if end is None else end
        first = self._numbers(offset, 4, "u4", end)[0]
        if first >> 16:  # a small element: type and length share 4 bytes, the data have 4 more
            kind, length, start = first & 0xFFFF, first >> 16, offset + 4
            after = offset + 8
        else:
            kind, length, start = first, int(self._numbers(offset + 4, 4, "u4", end)[0]), offset + 8
            after = start + length + (-length % 8)
        if start + length > end:
            raise WeightsError(
                f"it is cut off or damaged: the element at byte {offset} claims {length} bytes of "
                f"{end - start}"
            )
        return int(kind), start, int(length), int(after)

    def _numbers(self, start: int, length: int, kind: str, end: int | None = None) -> np.ndarray:
        if start + length > (self.end if end is None else end):
            raise WeightsError("it is cut off")
        self.file.seek(start)
        data = self.file.read(length)
        return np.frombuffer(data, np.dtype(kind).newbyteorder(self.order))

    def _plain(self, offset: int, end: int) -> tuple[np.ndarray, int]:
        """Numbers of a small element, such as dimensions, and the offset of the next element."""
        kind, start, length, after = self.tag(offset, end)
        if kind not in _TYPES or length > 2**16:
            raise WeightsError(f"it is damaged at byte {offset}")
        return self._numbers(start, length, _TYPES[kind]), after

    def matrix(
        self, offset: int, end: int, names: tuple[str, ...] = (), depth: int = 0
    ) -> tuple[str, Any]:
        """Name and value of an array. With `names`, the value of an array of another name is None.

        An array consists of flags, dimensions, a name, and the elements of its class.
        """
        if offset == end:
            return "", []
        if depth > _MAX_DEPTH:
            raise WeightsError(f"it has arrays nested more than {_MAX_DEPTH} deep")
        flags, offset = self._plain(offset, end)
        shape, offset = self._plain(offset, end)
        name, offset = self._plain(offset, end)
        text = name.tobytes().decode("latin-1")
        if names and text not in names:
            return text, None
        kind, sides = int(flags[0]) & 0xFF, tuple(map(int, shape))
        if min(sides, default=-1) < 0:
            raise WeightsError(f"it is damaged: an array of shape {sides}")
        if kind == _CELL:
            return text, self._arrays(offset, end, math.prod(sides), depth)[0]
        if kind == _STRUCT:
            return text, self._structs(offset, end, math.prod(sides), depth)
        return text, self._values(offset, end, kind, sides)

    def _arrays(self, offset: int, end: int, count: int, depth: int) -> tuple[list[Any], int]:
        if count > _MAX_COUNT:
            raise WeightsError(f"it is damaged: an array of {count:,} elements")
        values = []
        for _ in range(count):
            kind, start, length, offset = self.tag(offset, end)
            if kind != _MATRIX:
                raise WeightsError(f"it is damaged before byte {start}")
            values.append(self.matrix(start, start + length, depth=depth + 1)[1])
        return values, offset

    def _structs(self, offset: int, end: int, count: int, depth: int) -> Any:
        """A dictionary, or a list of dictionaries if `count` is not 1."""
        longest, offset = self._plain(offset, end)
        names, offset = self._plain(offset, end)
        width = max(1, int(longest[0]))
        fields = [
            names.tobytes()[i : i + width].split(b"\0")[0].decode("latin-1")
            for i in range(0, names.nbytes, width)
        ]
        refuse_repeated(fields)
        values, _ = self._arrays(offset, end, count * len(fields), depth)
        structs = [dict(zip(fields, values[i * len(fields) :], strict=False)) for i in range(count)]
        return structs[0] if count == 1 else structs

    def _values(self, offset: int, end: int, kind: int, shape: tuple[int, ...]) -> Any:
        """A string, or a `StoredTensor` of numbers."""
        stored, start, length, _ = self.tag(offset, end)
        if stored not in _TYPES:
            raise WeightsError(f"it is damaged at byte {offset}")
        dtype = np.dtype(_TYPES[stored])
        if length != math.prod(shape) * dtype.itemsize:
            raise WeightsError(f"it is damaged: an array of shape {shape} has {length} bytes")
        if kind == _CHAR:
            return "".join(map(chr, self._plain(offset, end)[0]))
        name = _CLASSES.get(kind, f"class {kind}")

        def read() -> np.ndarray:
            return self._numbers(start, length, _TYPES[stored]).reshape(shape, order="F")

        return StoredTensor(shape, name, read)
