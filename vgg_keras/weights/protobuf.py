"""Walks the fields of a protobuf message in a file, without parsing the message.

https://protobuf.dev/programming-guides/encoding: a field is a key, number * 8 + wire type, and a
payload. So the large tensors of a file are found, and skipped, before anything is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

from vgg_keras.errors import WeightsError

_VARINT, _LENGTH = 0, 2  # wire types
_FIXED_BYTES = {1: 8, 5: 4}  # length by wire type


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: number of the field.
        start: offset of the key.
        payload, end: offsets of the payload and of the next field.
        is_message: whether the payload is a message, text, or bytes.
    """

    number: int
    start: int
    payload: int
    end: int
    is_message: bool

    @property
    def length(self) -> int:
        """Number of bytes of the payload."""
        return self.end - self.payload


def fields(file: IO[bytes], offset: int, end: int, most: int) -> Iterator[Field]:
    """Yields the fields of the message in the bytes from `offset` to `end`.

    Raises:
        WeightsError: the message is damaged, or has more than `most` fields.
    """
    for _ in range(most):
        if offset >= end:
            return
        file.seek(offset)
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        length = 0
        if wire_type == _LENGTH:
            length = _varint(file)
        elif wire_type == _VARINT:
            _varint(file)
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise WeightsError(f"it is of another kind, or is damaged at byte {offset}")
        payload = file.tell()
        if payload + length > end or number == 0:
            raise WeightsError(
                f"it is cut off or damaged: the field at byte {payload} claims {length} bytes of "
                f"{end - payload}"
            )
        yield Field(number, offset, payload, payload + length, wire_type == _LENGTH)
        offset = payload + length
    if offset < end:
        raise WeightsError(f"it has a message of more than {most:,} fields")


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WeightsError("it ends in the middle of a number")
